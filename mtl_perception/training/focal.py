# SPDX-License-Identifier: Apache-2.0
"""
Focal correction on targets: what a camera with the reference focal length would have seen.

One picture shows a surface at depth d under focal length f, and just as well at d / s under
f / s. A network cannot tell them apart, so it learns all frames as if f were the reference
f_ref: with s = f / f_ref the depth target is divided by s. The stretched points (x, y, z / s)
have normals along (nx, ny, nz * s). The graph does the opposite with the live camera's s.
"""

from __future__ import annotations

from mtl_perception.camera import CameraModel
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def depth_scale(camera: CameraModel, reference_focal_px: float) -> float:
    """Return s = f / f_ref; `camera` must be that of the image at network size."""
    return camera.focal_px / reference_focal_px


def reference_depth(depth: FloatArray, scale: float) -> FloatArray:
    """Return metric depth (H, W) as seen by the reference focal length."""
    return np.asarray(depth / np.float32(scale), np.float32)


def reference_normals(normals: FloatArray, scale: float) -> FloatArray:
    """Return unit normals (H, W, 3) as seen by the reference focal length, unit again."""
    stretched = normals * np.array([1.0, 1.0, scale], np.float32)
    length = np.sqrt(np.einsum('ijk,ijk->ij', stretched, stretched))[..., None]
    # A zero vector is no normal; NaN marks it invalid.
    length[length == 0] = np.nan
    return np.asarray(stretched / length, np.float32)
