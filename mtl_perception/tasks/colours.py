# SPDX-License-Identifier: Apache-2.0
"""
Pictures of finished maps, with colours that mean the same in every frame.

Nothing is stretched to the frame's own minimum and maximum: a colour stands for one value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

DEPTH_PICTURE_RANGE_M = (0.3, 10.0)
# Rows: red, green and blue of a normal (x, y, z, 1).
_NORMALS_TO_RGB = np.array(
    [[127.5, 0.0, 0.0, 127.5], [0.0, -127.5, 0.0, 127.5], [0.0, 0.0, -127.5, 127.5]]
)
_BAND_ROWS = 32


def colourise_labels(
    labels: npt.NDArray[Any], palette: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Look each label (H, W) uint8 up in a (256, 3) palette; never blended."""
    import cv2

    # Ten times faster than palette[labels]; the live node does this for every frame.
    return np.asarray(cv2.applyColorMap(labels.astype(np.uint8, copy=False), palette[:, None]))


@lru_cache(maxsize=1)
def _depth_palette() -> npt.NDArray[np.uint8]:
    """Near is warm, far is cool; entry 0 is black for invalid."""
    import cv2

    ramp = np.arange(255, -1, -1, dtype=np.uint8)[:, None]
    palette = cv2.cvtColor(cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    palette = np.ascontiguousarray(palette[:, 0])
    palette[0] = 0
    return palette


def colourise_depth(depth: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Colour depth (H, W) metres on a fixed logarithmic scale 0.3 to 10 m; invalid is black."""
    near, far = DEPTH_PICTURE_RANGE_M
    with np.errstate(divide='ignore', invalid='ignore'):
        level = np.log(depth / np.float32(near)) * np.float32(254.0 / np.log(far / near))
    # NaN compares false on both sides and ends as 0, the entry for invalid.
    index = np.where(np.isfinite(level), np.clip(level, 0, 254) + 1, 0).astype(np.uint8)
    return _depth_palette()[index]


def colourise_normals(normals: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """
    Colour normals (H, W, 3), optical frame: red = x right, green = y up, blue = towards us.

    A surface that faces the camera is (128, 128, 255), as in the NYU and 2D-3D-S pictures;
    y and z are negated for that, in the picture only. Invalid is black.
    """
    import cv2

    picture = np.empty(normals.shape, np.uint8)
    # Band by band: what one step writes is still in the cache when the next reads it.
    for start in range(0, len(normals), _BAND_ROWS):
        band = normals[start : start + _BAND_ROWS].astype(np.float32, copy=False)
        coloured = cv2.transform(band, _NORMALS_TO_RGB)
        cv2.patchNaNs(coloured, 0.0)
        # Rounds to the nearest.
        cv2.convertScaleAbs(coloured, picture[start : start + _BAND_ROWS])
    return picture


def colourise_edges(edges: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Show edges (H, W) uint8, probability times 255, dark on white."""
    return np.repeat(255 - edges.astype(np.uint8)[..., None], 3, axis=-1)


def colourise_saliency(saliency: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Show saliency (H, W) uint8, probability times 255, bright on black."""
    return np.repeat(saliency.astype(np.uint8)[..., None], 3, axis=-1)


COLOURISE: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]] = {
    'depth': colourise_depth,
    'normals': colourise_normals,
    'edges': colourise_edges,
    'saliency': colourise_saliency,
}
