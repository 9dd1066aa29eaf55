# SPDX-License-Identifier: Apache-2.0
"""A perception node in a process of its own, fed and watched by the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
import time
from typing import Any

import numpy as np
import pytest

HEIGHT, WIDTH = 48, 64
# The model's reference focal length: depth is not rescaled.
FOCAL = 50.0


@dataclass
class Camera:
    """Publishes images and infos under stamps of its own counting."""

    listener: Any
    frame_id: str = 'test_camera_optical'
    image_type: Any = None
    image_topic: str = 'image'
    sent: list[Any] = field(default_factory=list)
    random: Any = field(default_factory=lambda: np.random.default_rng(7))

    def __post_init__(self) -> None:
        from sensor_msgs.msg import CameraInfo, Image

        node = self.listener.node
        self.images = node.create_publisher(self.image_type or Image, self.image_topic, 10)
        self.infos = node.create_publisher(CameraInfo, 'camera_info', 10)

    def header(self) -> Any:
        from std_msgs.msg import Header

        return Header(stamp=self.listener.node.get_clock().now().to_msg(), frame_id=self.frame_id)

    def picture(self, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
        return self.random.integers(0, 256, (height, width, 3), dtype=np.uint8)

    def image(self, pixels: np.ndarray | None = None, header: Any = None, **fields: Any) -> Any:
        """Return an rgb8 message of `pixels`; `fields` then overwrite what it says."""
        from sensor_msgs.msg import Image

        pixels = self.picture() if pixels is None else np.ascontiguousarray(pixels)
        message = Image(header=header or self.header(), encoding='rgb8')
        message.height, message.width = pixels.shape[:2]
        message.step = pixels.strides[0]
        message.data.frombytes(pixels.tobytes())
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def info(self, header: Any, height: int = HEIGHT, width: int = WIDTH, **fields: Any) -> Any:
        from sensor_msgs.msg import CameraInfo

        cx, cy = (width - 1) / 2, (height - 1) / 2
        message = CameraInfo(header=header, height=height, width=width)
        message.distortion_model = 'plumb_bob'
        message.d = [0.0] * 5
        message.k = [FOCAL, 0.0, cx, 0.0, FOCAL, cy, 0.0, 0.0, 1.0]
        message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        message.p = [FOCAL, 0.0, cx, 0.0, 0.0, FOCAL, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def send(self, image: Any = None, info: Any = None) -> Any:
        """Publish an image after its info; return the image."""
        image = image or self.image()
        self.infos.publish(info or self.info(image.header, image.height, image.width))
        self.images.publish(image)
        self.sent.append(image)
        return image


@dataclass
class Perception:
    """The node's process and the test's ends of its topics."""

    process: Any
    listener: Any
    camera: Camera
    diagnostics: list[Any]

    def subscribe(self, kind: Any, topic: str) -> list[Any]:
        return self.listener.subscribe(kind, topic)

    def send_until(self, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Send a good frame again and again until `condition` holds."""
        due = 0.0

        def step() -> object:
            nonlocal due
            if time.monotonic() > due:
                self.camera.send()
                due = time.monotonic() + 0.1
            return condition()

        self.listener.spin_until(step, timeout_s, [self.process])

    @property
    def status(self) -> Any:
        """The latest diagnostic status."""
        return self.diagnostics[-1].status[0]

    @property
    def values(self) -> dict[str, str]:
        """The key values of the latest diagnostic status."""
        return {pair.key: pair.value for pair in self.status.values}

    def next_status(self, skip: int = 1) -> Any:
        """Wait for the diagnosis after the coming `skip`, which began before now."""
        due = len(self.diagnostics) + skip + 1
        self.listener.spin_until(lambda: len(self.diagnostics) >= due, 10, [self.process])
        return self.status


@pytest.fixture
def start_perception(
    start: Callable[..., Any], listener: Any, tmp_path: Path
) -> Callable[..., Perception]:
    """Return a function that starts `live` on the fake engine: parameters, then environment."""
    from diagnostic_msgs.msg import DiagnosticArray

    def run(
        *ros_arguments: str, camera: Camera | None = None, model: Any = tmp_path, **env: Any
    ) -> Perception:
        camera = camera or Camera(listener)
        diagnostics = listener.subscribe(DiagnosticArray, '/diagnostics')
        process = start(
            Path(__file__).with_name('fake_live.py'), '--model', model, '--ros-args',
            *ros_arguments,
            env={name: str(value) for name, value in env.items()},
        )  # fmt: skip
        return Perception(process, listener, camera, diagnostics)

    return run


@pytest.fixture
def camera_on(listener: Any) -> Callable[..., Camera]:
    """Return a function that makes a camera on other topics or of another type."""

    def make(**options: Any) -> Camera:
        return Camera(listener, **options)

    return make
