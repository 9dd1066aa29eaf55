# SPDX-License-Identifier: Apache-2.0
"""
Fit a camera image into the network's input, exact to the half pixel.

Pixel centres lie at integer coordinates, so an image of width w covers [-0.5, w - 0.5]. The
image is scaled to keep its aspect until one side fills the network's input, then centred; the
rest is padding. The content is a whole number of pixels, so the two axes have scales of their
own, `content / camera`, that differ by less than one content pixel over the whole image; they,
not the ideal scale, are used everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FittedGeometry:
    """
    Where the camera's image lies in the network's input; all sizes are (height, width).

    A point at camera pixel (u, v) is at `((u + 0.5) * scale_x - 0.5 + left, ...)` in the
    network's input.
    """

    camera_size: tuple[int, int]
    network_size: tuple[int, int]
    content_size: tuple[int, int]
    top: int
    left: int

    @classmethod
    def fit(
        cls, camera_size: tuple[int, int], network_size: tuple[int, int], step: int = 1
    ) -> FittedGeometry:
        """
        Return the geometry that shows the whole camera image as large as possible.

        :param step: content and padding are multiples of it, so that a map at 1/step of the
            network's size can be cropped at whole pixels too; it divides `network_size`
        """
        scale = min(network_size[0] / camera_size[0], network_size[1] / camera_size[1])
        content, margin = [], []
        for camera, network in zip(camera_size, network_size):
            # Half to even (round) would make the size depend on the parity of the number.
            steps = math.floor(camera * scale / step + 0.5)
            content.append(min(max(steps, 1) * step, network))
            margin.append((network - content[-1]) // (2 * step) * step)
        return cls(camera_size, network_size, (content[0], content[1]), margin[0], margin[1])

    @property
    def scale_x(self) -> float:
        """Network pixels per camera pixel, horizontally."""
        return self.content_size[1] / self.camera_size[1]

    @property
    def scale_y(self) -> float:
        """Network pixels per camera pixel, vertically."""
        return self.content_size[0] / self.camera_size[0]

    @property
    def scale(self) -> float:
        """Geometric mean of both: the focal length at network size over the camera's."""
        return math.sqrt(self.scale_x * self.scale_y)

    def to_network(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return where camera pixels (..., 2), x then y, lie in the network's input."""
        scale = np.array([self.scale_x, self.scale_y])
        return (np.asarray(points, np.float64) + 0.5) * scale - 0.5 + [self.left, self.top]

    def to_camera(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the camera pixels (..., 2) of points in the network's input."""
        scale = np.array([self.scale_x, self.scale_y])
        return (np.asarray(points, np.float64) - [self.left, self.top] + 0.5) / scale - 0.5

    def fit_image(
        self, image: npt.NDArray[np.uint8], canvas: npt.NDArray[np.uint8]
    ) -> None:
        """Draw `image` (H, W, 3) into its place on `canvas` (h, w, 3); padding is untouched."""
        import cv2

        height, width = self.content_size
        place = canvas[self.top : self.top + height, self.left : self.left + width]
        if self.content_size == self.camera_size:
            place[...] = image
            return
        shrinks = self.scale_x < 1.0 and self.scale_y < 1.0
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        place[...] = cv2.resize(image, (width, height), interpolation=interpolation)

    def crop(self, values: npt.NDArray[Any], step: int = 1) -> npt.NDArray[Any]:
        """Return the part of a map (at 1/step of the network's size) that shows the image."""
        top, left = self.top // step, self.left // step
        height, width = self.content_size[0] // step, self.content_size[1] // step
        return values[top : top + height, left : left + width]
