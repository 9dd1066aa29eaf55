# SPDX-License-Identifier: Apache-2.0
"""What the demo calls alive: every output arrived, holds two values and changes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
from builtin_interfaces.msg import Time
from mtl_perception.ros import observer as observer_module
from mtl_perception.ros.codec import image_message
from mtl_perception.ros.observer import Observer, OUTPUTS, STEADY
from rclpy.clock import Clock
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header, String

pytestmark = pytest.mark.ros


class Topics:
    """Stands in for a node: keeps the callbacks, so that a test can be the publisher."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], None]] = {}

    def get_clock(self) -> Clock:
        return Clock()

    def create_subscription(self, kind: Any, topic: str, callback: Any, profile: Any) -> None:
        self.callbacks[topic] = callback


def message(kind: Any, values: np.ndarray) -> Any:
    """Return a message of a topic's type whose pixels or points are `values` (2, 3)."""
    header = Header(stamp=Time(sec=1), frame_id='camera')
    if kind is Image:
        return image_message(header, 'mono8', values.astype(np.uint8))
    if kind is PointCloud2:
        points = np.repeat(values.astype(np.float32)[..., None], 8, axis=-1)
        cloud = PointCloud2(header=header, height=2, width=3, point_step=32, row_step=96)
        cloud.data.frombytes(points.tobytes())
        return cloud
    return String(data='{}') if kind is String else kind(header=header)


def observe(frames: list[np.ndarray], missing: str = '') -> dict[str, str]:
    """Publish `frames` on every topic but one; return the complaints."""
    topics = Topics()
    observer = Observer(topics)  # type: ignore[arg-type]
    for topic, kind in OUTPUTS.items():
        for values in frames if topic != missing else ():
            topics.callbacks[topic](message(kind, values))
    return observer.complaints


ONE = np.array([[1, 2, 3], [4, 5, 6]])


def test_outputs_that_live_are_not_complained_of() -> None:
    assert observe([ONE, ONE + 1]) == {}


@pytest.mark.parametrize('missing', OUTPUTS)
def test_a_topic_that_is_silent_is_named(missing: str) -> None:
    assert observe([ONE, ONE + 1], missing) == {missing: 'never arrived'}


def test_constant_and_frozen_outputs_are_named() -> None:
    living = [topic for topic in OUTPUTS if topic not in STEADY]
    flat = observe([np.full((2, 3), 7), np.full((2, 3), 8)])
    assert flat == dict.fromkeys(living, 'holds one single value')
    frozen = observe([ONE, ONE])
    assert frozen == dict.fromkeys(living, 'does not differ between frames')


def test_where_vision_msgs_is_installed_its_form_of_the_label_names_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # CameraInfo stands in for LabelInfo, which pip does not offer: a header is all that counts.
    kinds = {name: kind for name, kind in OUTPUTS.items() if kind is not String}
    monkeypatch.setattr(
        observer_module, 'OUTPUTS', {**kinds, observer_module.LABEL_INFO: CameraInfo}
    )
    topics = Topics()
    observer = Observer(topics)  # type: ignore[arg-type]
    assert observer_module.LABEL_NAMES not in topics.callbacks
    assert observer.complaints[observer_module.LABEL_INFO] == 'never arrived'
    topics.callbacks[observer_module.LABEL_INFO](SimpleNamespace(header=Header()))
    assert observer_module.LABEL_INFO not in observer.complaints
    assert observer.label_names == {}
