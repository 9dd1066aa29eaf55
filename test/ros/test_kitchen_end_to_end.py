# SPDX-License-Identifier: Apache-2.0
"""A real recording through three processes: player, perception node, somebody's subscriber."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('onnxruntime')
from rosbags.highlevel import AnyReader

pytestmark = [pytest.mark.ros, pytest.mark.realdata]

IMAGE = '/camera/color/image_raw'
REMAPS = (
    '-r', f'image:={IMAGE}', '-r', 'camera_info:=/camera/color/camera_info',
    '-p', 'image_transport:=compressed',
)  # fmt: skip
SUBSCRIBER = Path(__file__).with_name('plain_subscriber.py')


def recorded_headers(path: Path) -> set[str]:
    """Return the CDR bytes of the header of every image in the bag."""
    headers = set()
    with AnyReader([path]) as reader:
        for connection, _, raw in reader.messages():
            if connection.topic == f'{IMAGE}/compressed':
                length = int.from_bytes(raw[12:16], 'little')
                headers.add(bytes(raw[4 : 16 + length]).hex())
    return headers


def test_every_output_of_a_real_kitchen_is_what_it_says(
    sample_data: Path,
    start: Callable[..., Any],
    start_command: Callable[..., Any],
) -> None:
    bag = sample_data / 'bags' / 'kitchen_val'
    subscriber = start(SUBSCRIBER, f'{IMAGE}/compressed', 60, 8)
    subscriber.wait_for_output('listening', 30)
    # Without --model: the bundle that ships.
    live = start_command('live', '--ros-args', *REMAPS, '-p', 'use_sim_time:=true')
    live.wait_for_output('runs', 30)
    player = start_command('camera', f'bag:{bag}', '--rate', 0.1, '--wait', 20)
    subscriber.wait(120)
    report = json.loads(subscriber.output.partition('report ')[2] or 'null')
    assert report is not None, subscriber.output + live.output
    assert report['frames'] >= 8
    assert report['valid_points'] > 100_000
    recorded = recorded_headers(bag)
    assert len(recorded) == 70
    for topic, headers in report['headers'].items():
        assert headers, topic
        assert set(headers) <= recorded, f'{topic} has a stamp or frame that the camera has not'
    assert report['classes'][:3] == ['wall', 'floor', 'ceiling']
    assert player.process.poll() in (None, 0)
    player.interrupt()
    assert live.interrupt() == 0
    assert 'Traceback' not in live.output
