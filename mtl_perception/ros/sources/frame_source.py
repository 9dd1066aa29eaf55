# SPDX-License-Identifier: Apache-2.0
"""What every frame source offers, and the options that they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import math
from typing import Protocol

from mtl_perception.camera import CameraModel
from mtl_perception.ros.errors import RosError
from mtl_perception.values import Sample
import numpy as np
import numpy.typing as npt


class FrameSource(Protocol):
    """A stream of frames; a context manager that lets go of files and devices."""

    rate_hz: float  # the pace at which the frames were meant to be seen; 0 = it paces itself

    def frames(self) -> Iterator[Sample | None]:
        """
        Yield frames until the source ends.

        None means that no frame is to be had at present (an unplugged camera) and that the
        next one may be asked for: the caller gets the chance to stop.
        """
        ...

    def __enter__(self) -> FrameSource: ...

    def __exit__(self, *exception: object) -> None: ...


@dataclass(frozen=True)
class SourceOptions:
    """
    What the user may ask of a source.

    `size` is (width, height) of the published image; what is None is the source's own choice.
    `calibration` describes the source's own size, and so does `fov_deg`, the horizontal field
    of view of an ideal pinhole.
    """

    loop: bool = False
    size: tuple[int, int] | None = None
    rate_hz: float | None = None
    seed: int = 1  # of rendered rooms
    fov_deg: float | None = None
    calibration: CameraModel | None = None

    def camera(self, width: int, height: int) -> CameraModel | None:
        """
        Return the intrinsics of the source's image of that size, None if nobody gave any.

        Raises
        ------
        RosError
            If the calibration is for another size: scaling would hide a mixed-up file.

        """
        if self.calibration is not None:
            calibrated = (self.calibration.width, self.calibration.height)
            if calibrated != (width, height):
                msg = (
                    f'the calibration is for {calibrated[0]}x{calibrated[1]} pixels but the '
                    f'source gives {width}x{height}; use the calibration of that size'
                )
                raise RosError(msg)
            return self.calibration
        if self.fov_deg is None:
            return None
        focal = 0.5 * width / math.tan(math.radians(self.fov_deg) / 2)
        return CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    def sample(self, image_bgr: npt.NDArray[np.uint8], name: str) -> Sample:
        """Return an OpenCV image (H, W, 3) BGR as a frame of the size that was asked for."""
        import cv2

        height, width = image_bgr.shape[:2]
        camera = self.camera(width, height)
        if self.size is not None and self.size != (width, height):
            shrinks = self.size[0] < width and self.size[1] < height
            interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image_bgr = np.asarray(cv2.resize(image_bgr, self.size, interpolation=interpolation))
            camera = camera.scaled(*self.size) if camera is not None else None
        image = np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
        return Sample(image=image, targets={}, camera=camera, name=name)
