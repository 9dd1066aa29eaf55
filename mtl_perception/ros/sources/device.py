# SPDX-License-Identifier: Apache-2.0
"""A camera attached to this machine, which may be unplugged and come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import time
from typing import Any

from mtl_perception.ros.errors import RosError
from mtl_perception.ros.sources.frame_source import SourceOptions
from mtl_perception.values import Sample
import numpy as np
import numpy.typing as npt

RETRY_S = 1.0


def _open_camera(index: int) -> Any:
    import cv2

    return cv2.VideoCapture(index)


class DeviceSource:
    """
    Reads camera number `index` through OpenCV; when it stops giving frames, tries to reopen it.

    The camera paces itself unless the node is told a rate. `open_camera` makes the
    `cv2.VideoCapture` for an index.

    Raises
    ------
    RosError
        If the camera cannot be opened at the start: a wrong number is no outage.

    """

    rate_hz = 0.0

    def __init__(
        self,
        index: int,
        options: SourceOptions,
        report: Callable[[str], None],
        open_camera: Callable[[int], Any] = _open_camera,
    ) -> None:
        self._index = index
        self._options = options
        self._report = report
        self._open_camera = open_camera
        self._capture = self._open()
        if self._capture is None:
            msg = (
                f'device:{index} cannot be opened: is /dev/video{index} there, may this user '
                'read it (group video), and does no other program hold it?'
            )
            raise RosError(msg)

    def _open(self) -> Any:
        import cv2

        capture = self._open_camera(self._index)
        if not capture.isOpened():
            capture.release()
            return None
        # Only the newest frame matters; a queue in the driver would make every frame late.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if self._options.size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._options.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._options.size[1])
        return capture

    def frames(self) -> Iterator[Sample | None]:
        """Yield what the camera sees; None once in `RETRY_S` while it is gone."""
        count = 0
        while True:
            image = self._read()
            if image is not None:
                yield self._options.sample(image, f'device{self._index}_{count:06d}')
                count += 1
                continue
            self._report(f'device:{self._index} gives no frame; trying to open it again')
            self._release()
            yield None
            time.sleep(RETRY_S)
            self._capture = self._open()
            if self._capture is not None:
                self._report(f'device:{self._index} is back')

    def _read(self) -> npt.NDArray[np.uint8] | None:
        if self._capture is None:
            return None
        read, image = self._capture.read()
        return image if read else None

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __enter__(self) -> DeviceSource:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let go of the camera."""
        self._release()
