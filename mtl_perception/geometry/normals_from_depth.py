# SPDX-License-Identifier: Apache-2.0
"""Surface normals from a depth image: planes fitted to inverse depth in image windows."""

from __future__ import annotations

import cv2
from mtl_perception.camera import CameraModel
from mtl_perception.geometry.errors import GeometryError
import numpy as np
from numpy.typing import NDArray

# Root mean square residual, as a part of the inverse depth, up to which a fit counts as perfect:
# the noise of a structured-light camera at 7 m. Choosing the least residual below it would
# choose the plateaus of quantised disparity, which all face the camera.
_SENSOR_NOISE = 0.01
# Root mean square residual, as a part of the inverse depth, above which no plane is there.
_LARGEST_RESIDUAL = 0.02


def normals_from_depth(
    depth: NDArray[np.floating], camera: CameraModel, window: int = 11
) -> NDArray[np.float32]:
    """
    Estimate the surface normal of each pixel from measured depth.

    The inverse depth of a plane is linear in the pixel coordinates, so in each window of
    `window` x `window` pixels a least-squares plane is fitted to 1/z by sums over the window;
    the error of structured light and stereo is about constant in 1/z, so every pixel has the
    same weight. At depth jumps, where the centred window covers two surfaces and fits worse
    than 1 % of the inverse depth, the best of the eight windows that have the pixel on their
    border is taken instead; creases are rounded over half a window.

    `depth` is (H, W) in metres along Z, NaN (or not positive) = invalid; `camera` is its
    rectified camera. Returns (H, W, 3) unit normals in the optical frame (x right, y down, z
    forward) that face the camera (normal . ray < 0); NaN where depth is invalid, where fewer
    than a quarter of a window is valid, or where no plane fits.

    Raises
    ------
    GeometryError
        If the depth is not (H, W) of the camera's size, the camera is not rectified, or the
        window is not an odd number >= 3.

    """
    if window < 3 or window % 2 == 0:
        msg = f'window is {window} pixels; use an odd number from 3 on'
        raise GeometryError(msg)
    if not camera.is_rectified:
        msg = 'normals from depth need a rectified camera; rectify the depth image first'
        raise GeometryError(msg)
    if depth.shape != (camera.height, camera.width):
        msg = (
            f'depth has shape {depth.shape}, but the camera model is for '
            f'({camera.height}, {camera.width}); use the camera of the depth image'
        )
        raise GeometryError(msg)
    with np.errstate(divide='ignore', invalid='ignore'):
        inverse = 1.0 / depth.astype(np.float64)
    valid = np.isfinite(inverse) & (inverse > 0)
    inverse[~valid] = 0.0

    planes, variance = _fit_windows(inverse, valid, camera, window)
    plane, residual = _choose_windows(planes, variance, inverse, camera, window // 2)
    with np.errstate(invalid='ignore', divide='ignore'):
        normals = -plane / np.linalg.norm(plane, axis=-1, keepdims=True)
    normals[~(valid & (residual < (_LARGEST_RESIDUAL * inverse) ** 2))] = np.nan
    return normals.astype(np.float32)


def _fit_windows(
    inverse: NDArray[np.float64], valid: NDArray[np.bool_], camera: CameraModel, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Fit 1/z = a x + b y + c in the window around each pixel, x and y normalised coordinates.

    Returns (a, b, c) as (H, W, 3) and the residual variance (H, W), infinite where the window
    holds too few pixels or only pixels on a line.
    """
    offsets = np.arange(window, dtype=np.float64) - window // 2
    powers = [offsets**power for power in range(3)]
    weight = valid.astype(np.float64)

    def window_sum(values: NDArray[np.float64], power_x: int, power_y: int) -> NDArray[np.float64]:
        return np.asarray(
            cv2.sepFilter2D(
                values, cv2.CV_64F, powers[power_x], powers[power_y],
                borderType=cv2.BORDER_CONSTANT,
            )
        )

    # Moments about the window's own means: the sums stay small and nothing cancels.
    count = np.maximum(window_sum(weight, 0, 0), 1.0)
    mean_x, mean_y = window_sum(weight, 1, 0) / count, window_sum(weight, 0, 1) / count
    xx = window_sum(weight, 2, 0) / count - mean_x**2
    xy = window_sum(weight, 1, 1) / count - mean_x * mean_y
    yy = window_sum(weight, 0, 2) / count - mean_y**2
    mean = window_sum(inverse, 0, 0) / count
    xw = window_sum(inverse, 1, 0) / count - mean_x * mean
    yw = window_sum(inverse, 0, 1) / count - mean_y * mean
    ww = window_sum(inverse**2, 0, 0) / count - mean**2

    determinant = xx * yy - xy**2
    enough = (count >= window**2 / 4) & (determinant > (window**2 / 96) ** 2)
    determinant[~enough] = 1.0
    slope_x = (xw * yy - yw * xy) / determinant  # per pixel
    slope_y = (yw * xx - xw * xy) / determinant
    variance = np.maximum(ww - slope_x * xw - slope_y * yw, 0.0)
    variance[~enough] = np.inf

    a, b = slope_x * camera.fx, slope_y * camera.fy
    rays = camera.rays()
    at_centre = mean - slope_x * mean_x - slope_y * mean_y
    return np.stack((a, b, at_centre - a * rays[..., 0] - b * rays[..., 1]), axis=-1), variance


def _choose_windows(
    planes: NDArray[np.float64],
    variance: NDArray[np.float64],
    inverse: NDArray[np.float64],
    camera: CameraModel,
    half: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Choose for each pixel the fit of the centred window or of one that is shifted by `half`.

    Returns the plane (H, W, 3) and its residual variance (H, W), infinite where no window's
    plane passes through the pixel itself.
    """
    noise = (_SENSOR_NOISE * inverse) ** 2
    rays = camera.rays()
    missed = np.abs(np.einsum('hwc,hwc->hw', planes, rays) - inverse)
    residual = np.maximum(variance, noise)
    residual[missed > 4.0 * np.sqrt(residual)] = np.inf
    best = planes.copy()

    # The other windows only where the centred one does not do: a few per cent of the pixels.
    poor = (inverse > 0) & (residual > noise)
    rows, columns = np.nonzero(poor)
    ray, value, floor = rays[poor], inverse[poor], noise[poor]
    chosen, least = best[poor], residual[poor]
    for dy in (0, -half, half):
        for dx in (0, -half, half):
            beside = rows + dy, columns + dx
            inside = (
                (beside[0] >= 0) & (beside[0] < camera.height)
                & (beside[1] >= 0) & (beside[1] < camera.width)
            )  # fmt: skip
            beside = beside[0][inside], beside[1][inside]
            plane, candidate = planes[beside], np.maximum(variance[beside], floor[inside])
            missed = np.abs(np.einsum('nc,nc->n', plane, ray[inside]) - value[inside])
            better = (candidate < least[inside]) & (missed <= 4.0 * np.sqrt(candidate))
            positions = np.flatnonzero(inside)[better]
            chosen[positions], least[positions] = plane[better], candidate[better]
    best[poor], residual[poor] = chosen, least
    return best, residual
