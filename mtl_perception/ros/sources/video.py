# SPDX-License-Identifier: Apache-2.0
"""The frames of a video file."""

from __future__ import annotations

from collections.abc import Iterator
import math
from pathlib import Path

from mtl_perception.ros.errors import RosError
from mtl_perception.ros.sources.frame_source import SourceOptions
from mtl_perception.values import Sample

_FALLBACK_RATE_HZ = 30.0


class VideoSource:
    """
    Reads a video through OpenCV, at the rate that the file states.

    Raises
    ------
    RosError
        If the file does not exist, cannot be opened, or holds no frame.

    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        import cv2

        if not path.is_file():
            msg = f'video:{path} is not a file'
            raise RosError(msg)
        self._path = path
        self._options = options
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            self._capture.release()
            msg = f'video:{path} cannot be opened: OpenCV knows neither its format nor its codec'
            raise RosError(msg)
        stated = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate_hz = stated if math.isfinite(stated) and stated > 0 else _FALLBACK_RATE_HZ

    def frames(self) -> Iterator[Sample | None]:
        """Yield the frames in order, over again with `loop`."""
        import cv2

        while True:
            count = 0
            while True:
                read, image = self._capture.read()
                if not read:
                    break
                yield self._options.sample(image, f'{self._path.stem}_{count:06d}')
                count += 1
            if not count:
                msg = f'video:{self._path} holds no frame that can be decoded'
                raise RosError(msg)
            if not self._options.loop:
                return
            # Opening again works for every container; seeking to frame 0 does not.
            self._capture.release()
            self._capture = cv2.VideoCapture(str(self._path))

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self._capture.release()
