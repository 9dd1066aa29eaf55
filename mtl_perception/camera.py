# SPDX-License-Identifier: Apache-2.0
"""
The pinhole camera with lens distortion, exact under scaling, cropping and padding.

Pixel centres lie at integer coordinates: the image covers [-0.5, width - 0.5] horizontally.
The optical frame is x right, y down, z forward (REP-103).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
import math
from typing import Any

from mtl_perception.errors import MtlPerceptionError
import numpy as np
import numpy.typing as npt

_DISTORTION_SIZES = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}


class CameraError(MtlPerceptionError):
    """Intrinsics that cannot be used; the message says which value and why."""


@dataclass(frozen=True)
class CameraModel:
    """
    Intrinsics of one image (sensor_msgs/CameraInfo, REP-104) for the size at hand.

    `fx, fy, cx, cy` are K. Where `distortion` is not all zero, or there is a `rectification`
    (R), the image is raw, and `projection` (from P) is the pinhole of its rectified twin.
    An all-zero distortion is a pinhole, whatever the model is called.

    Raises
    ------
    CameraError
        If a size is not positive, a focal length is zero, negative or not finite, or the
        number of distortion coefficients does not fit the model.

    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    distortion_model: str = 'plumb_bob'
    rectification: tuple[float, ...] | None = None  # R, 9 values row by row; None = identity
    projection: tuple[float, float, float, float] | None = None  # fx', fy', cx', cy' from P

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            msg = f'camera image size {self.width}x{self.height} is empty; it must be positive'
            raise CameraError(msg)
        for label, values in (
            ('K', (self.fx, self.fy, self.cx, self.cy)),
            ('P', self.projection or (1.0, 1.0, 0.0, 0.0)),
        ):
            if not all(math.isfinite(value) for value in values):
                msg = f'camera matrix {label} holds {values}: every entry must be finite'
                raise CameraError(msg)
            if values[0] <= 0 or values[1] <= 0:
                msg = (
                    f'camera matrix {label} has focal lengths {values[:2]}: they must be '
                    'positive (zero means the camera is not calibrated)'
                )
                raise CameraError(msg)
        if not all(math.isfinite(value) for value in self.distortion):
            msg = f'distortion D holds {self.distortion}: every coefficient must be finite'
            raise CameraError(msg)
        if not any(self.distortion):  # a lens without distortion needs no model
            return
        sizes = _DISTORTION_SIZES.get(self.distortion_model)
        if sizes is None:
            msg = (
                f'distortion model {self.distortion_model!r} is unknown; '
                f'use one of {", ".join(_DISTORTION_SIZES)}'
            )
            raise CameraError(msg)
        if len(self.distortion) not in sizes:
            msg = (
                f'distortion model {self.distortion_model!r} takes {sizes} coefficients, '
                f'not {len(self.distortion)}'
            )
            raise CameraError(msg)

    @classmethod
    def from_camera_info(cls, message: Any) -> CameraModel:
        """
        Read a sensor_msgs/CameraInfo (rclpy's or rosbags', fields k or K and so on).

        Width and height are the calibration's; binning and region of interest give the
        image at hand (sensor_msgs/CameraInfo, "operational parameters").

        Raises
        ------
        CameraError
            If the camera is not calibrated (K[0] = 0) or a value cannot be used.

        """
        k, d, r, p = (
            [float(value) for value in getattr(message, low, getattr(message, low.upper(), ()))]
            for low in 'kdrp'
        )
        if len(k) != 9 or k[0] == 0.0:
            msg = 'camera_info has K[0] = 0: the camera is not calibrated; calibrate it'
            raise CameraError(msg)
        projection = None
        if len(p) == 12 and p[0] != 0.0:
            projection = (p[0], p[5], p[2], p[6])
        identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        rectification = tuple(r) if len(r) == 9 and any(r) and r != identity else None
        model = cls(
            width=int(message.width),
            height=int(message.height),
            fx=k[0],
            fy=k[4],
            cx=k[2],
            cy=k[5],
            distortion=tuple(d) if any(d) else (),
            distortion_model=str(message.distortion_model) or 'plumb_bob',
            rectification=rectification,
            projection=projection,
        )
        region = message.roi
        if int(region.width) and int(region.height):
            model = model.cropped(
                int(region.x_offset), int(region.y_offset), int(region.width), int(region.height)
            )
        binning_x = max(1, int(message.binning_x))
        binning_y = max(1, int(message.binning_y))
        if (binning_x, binning_y) != (1, 1):
            model = model.scaled(model.width // binning_x, model.height // binning_y)
        return model

    @property
    def focal_px(self) -> float:
        """The geometric mean of the focal lengths, in pixels."""
        return math.sqrt(self.fx * self.fy)

    @property
    def is_rectified(self) -> bool:
        """Whether the image is free of distortion and rotation: a pure pinhole image."""
        return not any(self.distortion) and self.rectification is None

    @cached_property
    def matrix(self) -> npt.NDArray[np.float64]:
        """K, (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def scaled(self, width: int, height: int) -> CameraModel:
        """Return the camera of the image resized to `width` x `height` (each axis on its own)."""
        sx, sy = width / self.width, height / self.height

        def scale(fx: float, fy: float, cx: float, cy: float) -> tuple[float, float, float, float]:
            return fx * sx, fy * sy, (cx + 0.5) * sx - 0.5, (cy + 0.5) * sy - 0.5

        return self._mapped(width, height, scale)

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraModel:
        """Return the camera of the region whose top left pixel is (x, y)."""
        return self._mapped(width, height, lambda fx, fy, cx, cy: (fx, fy, cx - x, cy - y))

    def padded(self, left: int, top: int, right: int, bottom: int) -> CameraModel:
        """Return the camera of the image with that many pixels added on each side."""
        return self.cropped(
            -left, -top, self.width + left + right, self.height + top + bottom
        )

    def flipped(self) -> CameraModel:
        """
        Return the camera of the horizontally mirrored image.

        Raises
        ------
        CameraError
            If the image is not rectified: mirrored tangential distortion is not modelled.

        """
        if not self.is_rectified:
            msg = 'a distorted image cannot be mirrored exactly; rectify it first'
            raise CameraError(msg)
        last = self.width - 1
        return self._mapped(
            self.width, self.height, lambda fx, fy, cx, cy: (fx, fy, last - cx, cy)
        )

    def _mapped(self, width: int, height: int, mapping: Any) -> CameraModel:
        fx, fy, cx, cy = mapping(self.fx, self.fy, self.cx, self.cy)
        projection = None if self.projection is None else mapping(*self.projection)
        return replace(
            self, width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, projection=projection
        )

    def rectified(self) -> CameraModel:
        """
        Return the pinhole of the rectified image: K from P (K where P is absent), D = 0.

        An image without distortion is left as it is, so its own K stays.
        """
        fx, fy, cx, cy = self.fx, self.fy, self.cx, self.cy
        if self.is_rectified:
            if self.projection is None:
                return self
        elif self.projection is not None:
            fx, fy, cx, cy = self.projection
        return CameraModel(self.width, self.height, fx, fy, cx, cy)

    def of_rectified_image(self) -> CameraModel:
        """
        Return the pinhole of an image that somebody else has rectified: P (K where it is absent).

        D and R, which describe the raw image, are not applied again.
        """
        if self.projection is None:
            return CameraModel(self.width, self.height, self.fx, self.fy, self.cx, self.cy)
        return CameraModel(self.width, self.height, *self.projection)

    @cached_property
    def _rectification_maps(self) -> tuple[Any, Any]:
        import cv2

        new = self.rectified().matrix
        rotation = (
            np.eye(3) if self.rectification is None else np.reshape(self.rectification, (3, 3))
        )
        # All zero is a pinhole whatever the model's name; OpenCV's fisheye would bend it still.
        is_bent = any(self.distortion)
        coefficients = np.array(self.distortion if is_bent else (0.0,) * 5, np.float64)
        size = (self.width, self.height)
        if self.distortion_model == 'equidistant' and is_bent:
            return cv2.fisheye.initUndistortRectifyMap(
                self.matrix, coefficients, rotation, new, size, cv2.CV_16SC2
            )
        return cv2.initUndistortRectifyMap(
            self.matrix, coefficients, rotation, new, size, cv2.CV_16SC2
        )

    def rectify(
        self, image: npt.NDArray[Any], *, nearest: bool = False
    ) -> npt.NDArray[Any]:
        """
        Return `image` (H, W[, C]) without distortion, as `rectified()` sees it.

        The look-up tables are computed once and kept; `nearest` is for labels.
        """
        import cv2

        if image.shape[:2] != (self.height, self.width):
            msg = (
                f'image is {image.shape[1]}x{image.shape[0]} but the camera model is for '
                f'{self.width}x{self.height}'
            )
            raise CameraError(msg)
        first, second = self._rectification_maps
        if not nearest:
            return np.asarray(cv2.remap(image, first, second, cv2.INTER_LINEAR))
        # The fixed-point table holds the pixel to the upper left, which OpenCV would take.
        across, down = cv2.convertMaps(first, second, cv2.CV_32FC1)
        return np.asarray(cv2.remap(image, across, down, cv2.INTER_NEAREST))

    def _require_rectified(self, what: str) -> None:
        if not self.is_rectified:
            msg = f'{what} needs a rectified image; use rectify() and rectified() first'
            raise CameraError(msg)

    @cached_property
    def _rays(self) -> npt.NDArray[np.float32]:
        rays = np.empty((self.height, self.width, 3), np.float32)
        rays[..., 0] = (np.arange(self.width) - self.cx) / self.fx
        rays[..., 1] = ((np.arange(self.height) - self.cy) / self.fy)[:, None]
        rays[..., 2] = 1.0
        rays.setflags(write=False)
        return rays

    def rays(self) -> npt.NDArray[np.float32]:
        """Return the viewing ray of each pixel, (H, W, 3) with z = 1; computed once, read-only."""
        self._require_rectified('rays()')
        return self._rays

    def project(self, points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Project points (..., 3) in the optical frame, metres, to pixels (..., 2)."""
        self._require_rectified('project()')
        points = np.asarray(points, np.float64)
        z = points[..., 2]
        with np.errstate(divide='ignore', invalid='ignore'):
            return np.stack(
                (self.fx * points[..., 0] / z + self.cx, self.fy * points[..., 1] / z + self.cy),
                axis=-1,
            )

    def back_project(self, depth: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the point of each pixel, (H, W, 3) metres, from depth (H, W) along Z."""
        self._require_rectified('back_project()')
        if depth.shape != (self.height, self.width):
            msg = (
                f'depth is {depth.shape[1]}x{depth.shape[0]} but the camera model is for '
                f'{self.width}x{self.height}'
            )
            raise CameraError(msg)
        return np.asarray(self._rays * depth.astype(np.float32)[..., None], np.float32)
