# SPDX-License-Identifier: Apache-2.0
"""The node serves from the first frame while its engine is built, and says which one serves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.ros, pytest.mark.slow]
pytest.importorskip('rclpy')
pytest.importorskip('openvino')
pytest.importorskip('onnxruntime')


def test_it_is_never_dark_and_swaps_between_two_frames(
    start_command: Callable[..., Any],
    listener: Any,
    camera_on: Callable[..., Any],
    small_bundle: Path,
    tmp_path: Path,
) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import Image

    process = start_command(
        'live', '--model', small_bundle, '--ros-args', '-p', 'threads:=1',
        '-p', 'engine:=openvino',
        env={'XDG_CACHE_HOME': str(tmp_path)},
    )  # fmt: skip
    camera = camera_on()
    depth = listener.subscribe(Image, 'depth/image_rect')
    diagnostics = listener.subscribe(DiagnosticArray, '/diagnostics')
    pixels = camera.picture()
    seen: list[tuple[str, str]] = []

    def send() -> bool:
        camera.send(camera.image(pixels))
        listener.spin_for(0.05)
        for message in diagnostics:
            values = {pair.key: pair.value for pair in message.status[0].values}
            if 'engine_state' in values:
                state = (values['engine_state'], values['engine'])
                if not seen or seen[-1] != state:
                    seen.append(state)
        return ('ready', 'openvino') in seen

    listener.spin_until(send, 120, [process])
    # Diagnostics come once a second: a quick build may be over before the first of them.
    order = [('opening', 'onnxruntime'), ('building', 'onnxruntime'), ('ready', 'openvino')]
    assert seen == [state for state in order if state in seen]
    count = len(depth)
    assert count > 3
    listener.spin_until(lambda: send() and len(depth) > count + 2, 20, [process])
    # The same picture before and after: two engines, one answer.
    first, last = (np.frombuffer(bytes(depth[index].data), np.float32) for index in (0, -1))
    np.testing.assert_allclose(last, first, rtol=1e-3)
    assert 'onnxruntime serves while openvino is built' in process.output
    assert 'openvino serves now' in process.output
    assert process.interrupt() == 0
    assert 'Traceback' not in process.output
