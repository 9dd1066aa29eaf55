# SPDX-License-Identifier: Apache-2.0
"""Bring the graph's maps to the camera's size: padding cropped, geometry exact."""

from __future__ import annotations

from typing import Any

from mtl_perception.inference.fitting import FittedGeometry
import numpy as np
import numpy.typing as npt

# The widest vector register of a processor, in bytes.
_ALIGNMENT = 64


def _aligned(height: int, width: int) -> npt.NDArray[np.float32]:
    """
    Return an uninitialised float32 array (height, width) that begins at a register's boundary.

    OpenCV computes what lies before and after whole registers one by one, and rounds it
    differently: with memory that begins anywhere, two runs would differ in the last digit.
    """
    size = height * width * np.dtype(np.float32).itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + size].view(np.float32).reshape(height, width)


class MapFinisher:
    """
    Enlarges maps of one geometry (shrinks them where the camera is smaller than the network).

    Every map it returns is a new array, or `out` where the caller gives one of the map's shape
    and type, C-contiguous. The planes it works in are kept from frame to frame: fresh memory for
    each would cost more than the arithmetic.
    """

    def __init__(self, geometry: FittedGeometry) -> None:
        self.geometry = geometry
        height, width = geometry.camera_size
        self._planes = [_aligned(height, width) for _ in range(4)]

    def labels(
        self, labels: npt.NDArray[Any], step: int = 1, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """
        Return labels (h, w) at the camera's size; each pixel takes the nearest one's.

        :param step: the map has 1/step of the network's size
        """
        import cv2

        # Plain INTER_NEAREST takes the label at floor(x * scale), up to half a label off.
        return self._resize(self.geometry.crop(labels, step), cv2.INTER_NEAREST_EXACT, out)

    def linear(
        self, values: npt.NDArray[Any], step: int = 1, out: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[Any]:
        """
        Return a map (h, w) at the camera's size, interpolated bilinearly.

        :param step: the map has 1/step of the network's size
        """
        import cv2

        return self._resize(self.geometry.crop(values, step), cv2.INTER_LINEAR, out)

    def normals(
        self, normals: npt.NDArray[np.float32], out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return normals (h, w, 3) at the camera's size: bilinear, then of unit length again."""
        import cv2

        height, width = self.geometry.camera_size
        # Plane by plane is three times faster than along a last axis of three.
        planes = [
            cv2.resize(source, (width, height), dst=plane, interpolation=cv2.INTER_LINEAR)
            for source, plane in zip(cv2.split(self.geometry.crop(normals)), self._planes)
        ]
        length = cv2.magnitude(planes[0], planes[1], magnitude=self._planes[3])
        length = cv2.magnitude(length, planes[2], magnitude=length)
        # Opposite neighbours can cancel out: 0 / 0 is NaN, which is how invalid is written.
        with np.errstate(invalid='ignore'):
            for plane in planes:
                np.divide(plane, length, out=plane)
        merged = np.asarray(cv2.merge(planes, out))
        return merged if out is None else out

    def _resize(
        self, values: npt.NDArray[Any], interpolation: int, out: npt.NDArray[Any] | None
    ) -> npt.NDArray[Any]:
        import cv2

        height, width = self.geometry.camera_size
        resized = cv2.resize(values, (width, height), dst=out, interpolation=interpolation)
        return np.asarray(resized) if out is None else out
