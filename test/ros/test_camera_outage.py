# SPDX-License-Identifier: Apache-2.0
"""The camera process dies and comes back: the perception node says so and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('onnxruntime')
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros


def test_camera_killed_and_started_again(
    tmp_path: Path,
    listener: Any,
    start_command: Callable[..., Any],
) -> None:
    (tmp_path / 'pictures').mkdir()
    picture = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'pictures' / 'one.png'), picture)
    arguments = ('camera', f'images:{tmp_path}/pictures', '--loop', '--rate', 10)
    labels = listener.subscribe(Image, 'semantic/image_raw')
    diagnostics = listener.subscribe(DiagnosticArray, '/diagnostics')

    def status() -> Any:
        return diagnostics[-1].status[0] if diagnostics else None

    live = start_command(
        'live', '--ros-args',
        '-r', 'image:=camera/image_raw', '-r', 'camera_info:=camera/camera_info',
        '-p', 'image_timeout_s:=1.0',
    )  # fmt: skip
    camera = start_command(*arguments)
    listener.spin_until(lambda: len(labels) >= 5, 60, [live, camera])
    camera.process.kill()
    camera.process.wait()
    listener.spin_until(
        lambda: status() is not None
        and status().level == DiagnosticStatus.ERROR
        and 'no image on /camera/image_raw for' in status().message,
        20,
        [live],
    )
    before = len(labels)
    again = start_command(*arguments)
    listener.spin_until(lambda: len(labels) >= before + 5, 30, [live, again])
    listener.spin_until(lambda: status().level != DiagnosticStatus.ERROR, 10, [live])
    assert [message.width for message in labels[-5:]] == [64] * 5
    assert again.interrupt() == 0
    assert live.interrupt() == 0
