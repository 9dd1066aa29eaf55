# SPDX-License-Identifier: Apache-2.0
"""What the node with the shipped model holds in memory under load, and what it never loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import time
from typing import Any

import psutil
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('onnxruntime')
from sensor_msgs.msg import Image, PointCloud2

pytestmark = [pytest.mark.ros, pytest.mark.realdata, pytest.mark.slow]

IMAGE = '/camera/color/image_raw'
OUTPUTS = (
    'semantic/image_raw', 'semantic/confidence', 'semantic_color/image_raw', 'depth/image_rect',
    'normals/image_raw', 'normals_color/image_raw', 'edges/image_raw',
)  # fmt: skip


def private_bytes(process: psutil.Process) -> int:
    """Return VmRSS minus RssShmem: the shared memory of DDS is not the process's own."""
    fields = {}
    for line in Path(f'/proc/{process.pid}/status').read_text().splitlines():
        name, _, value = line.partition(':')
        fields[name] = value.split()
    return (int(fields['VmRSS'][0]) - int(fields['RssShmem'][0])) * 1024


@pytest.mark.parametrize('seconds', [20, pytest.param(60, marks=pytest.mark.matrix)])
def test_memory_of_the_node_at_30_hz_stays_below_300_mb(
    seconds: int,
    sample_data: Path,
    listener: Any,
    start_command: Callable[..., Any],
) -> None:
    live = start_command(
        'live', '--ros-args', '-r', f'image:={IMAGE}',
        '-r', 'camera_info:=/camera/color/camera_info', '-p', 'image_transport:=compressed',
    )  # fmt: skip
    for topic in OUTPUTS:
        # Not kept: these are many seconds of images.
        listener.node.create_subscription(Image, topic, lambda message: None, 1)
    clouds = []
    listener.node.create_subscription(
        PointCloud2, 'points', lambda message: clouds.append(message.width), 1
    )
    player = start_command('camera', f'bag:{sample_data}/bags/kitchen_val', '--loop')
    listener.spin_until(lambda: clouds, 60, [live, player])
    process = psutil.Process(live.process.pid)
    peak, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        listener.spin_for(0.5)
        tree = [process, *process.children(recursive=True)]
        peak = max(peak, sum(private_bytes(one) for one in tree))
    # How many depends on who else uses the machine; that it worked all the time does not.
    assert len(clouds) > seconds / 2
    for one in tree:
        mapped = Path(f'/proc/{one.pid}/maps').read_text()
        assert 'libtorch' not in mapped
        assert 'onnxruntime' in mapped  # so the maps are those of the right process
    print(f'peak {peak / 1e6:.0f} MB, {len(clouds)} clouds')
    assert peak < 300e6, f'{peak / 1e6:.0f} MB'
    assert player.interrupt() == 0
    assert live.interrupt() == 0
