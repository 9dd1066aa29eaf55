# SPDX-License-Identifier: Apache-2.0
"""The pictures of a folder, in the order of their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mtl_perception.ros.errors import RosError
from mtl_perception.ros.sources.frame_source import SourceOptions
from mtl_perception.values import Sample

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class ImagesSource:
    """
    Reads a folder of pictures; one that cannot be decoded is reported and passed over.

    Raises
    ------
    RosError
        If the folder does not exist or holds no picture that can be decoded.

    """

    rate_hz = 10.0

    def __init__(
        self, folder: Path, options: SourceOptions, report: Callable[[str], None]
    ) -> None:
        if not folder.is_dir():
            msg = f'images:{folder} is not a folder'
            raise RosError(msg)
        self._folder = folder
        self._files = sorted(
            file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES
        )
        if not self._files:
            msg = f'images:{folder} holds no picture ({", ".join(SUFFIXES)})'
            raise RosError(msg)
        self._options = options
        self._report = report

    def frames(self) -> Iterator[Sample | None]:
        """Yield the pictures in the order of their names, over again with `loop`."""
        import cv2

        while True:
            decoded = 0
            for file in self._files:
                image = cv2.imread(str(file), cv2.IMREAD_COLOR)
                if image is None:
                    self._report(f'picture {file} cannot be decoded and is passed over')
                    continue
                decoded += 1
                yield self._options.sample(image, file.stem)
            if not decoded:
                msg = f'images:{self._folder} holds no picture that can be decoded'
                raise RosError(msg)
            if not self._options.loop:
                return

    def __enter__(self) -> ImagesSource:
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is kept open between pictures."""
