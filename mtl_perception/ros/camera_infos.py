# SPDX-License-Identifier: Apache-2.0
"""Which camera model belongs to an image, and in words why there is none."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from mtl_perception.camera import CameraError, CameraModel

_KEPT = 8


class CameraInfos:
    """
    The latest sensor_msgs/CameraInfo messages; added in one thread, asked for in another.

    The one with the image's own stamp is preferred (zooming cameras), else the newest: many
    drivers send it once, slower, or a little after the image.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._lock = Lock()
        self._messages: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._parsed: tuple[Any, CameraModel | None, str] | None = None

    def add(self, message: Any) -> None:
        """Remember a message."""
        stamp = message.header.stamp
        with self._lock:
            self._messages[stamp.sec, stamp.nanosec] = message
            self._messages.move_to_end((stamp.sec, stamp.nanosec))
            while len(self._messages) > _KEPT:
                self._messages.popitem(last=False)

    def clear(self) -> None:
        """Forget all messages."""
        with self._lock:
            self._messages.clear()

    @property
    def is_silent(self) -> bool:
        """Whether no message has come at all."""
        with self._lock:
            return not self._messages

    def camera_for(self, stamp: Any, width: int, height: int) -> tuple[CameraModel | None, str]:
        """Return the model of an image of that stamp and size, or None and the reason."""
        with self._lock:
            if not self._messages:
                return None, (
                    f'no camera_info on {self._topic} yet; check the topic (remap camera_info) '
                    'or set assume_focal_px'
                )
            newest = next(reversed(self._messages.values()))
            message = self._messages.get((stamp.sec, stamp.nanosec), newest)
        camera, problem = self._parse(message)
        if camera is not None and (camera.width, camera.height) != (width, height):
            return None, (
                f'the image is {width}x{height} but camera_info on {self._topic} describes '
                f'{camera.width}x{camera.height}; publish the camera_info of this image'
            )
        return camera, problem

    def _parse(self, message: Any) -> tuple[CameraModel | None, str]:
        key = _content(message)
        # One model for equal messages: it keeps its look-up tables from frame to frame.
        if self._parsed is None or self._parsed[0] != key:
            try:
                self._parsed = key, CameraModel.from_camera_info(message), ''
            except CameraError as error:
                problem = f'camera_info on {self._topic} cannot be used: {error}'
                self._parsed = key, None, problem
        return self._parsed[1:]


def _content(message: Any) -> tuple[Any, ...]:
    """Return all that a model is made of."""
    roi = message.roi
    arrays = (tuple(float(value) for value in getattr(message, name)) for name in 'dkrp')
    return (
        message.width, message.height, message.distortion_model, *arrays,
        message.binning_x, message.binning_y, roi.x_offset, roi.y_offset, roi.width, roi.height,
    )  # fmt: skip
