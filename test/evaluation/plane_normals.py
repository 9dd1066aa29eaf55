# SPDX-License-Identifier: Apache-2.0
"""Normals from depth by plain numpy, from the description in docs/replay.md."""

from __future__ import annotations

import numpy as np

WINDOW = 11
HALF = WINDOW // 2


def plane_normals(depth: np.ndarray, k: np.ndarray) -> np.ndarray:
    """
    Fit 1/z = p u + q v + r in windows of 11 pixels, u and v pixels from the window's middle.

    `depth` is (H, W) in metres, NaN where there is none; `k` the 3x3 of the intrinsics. Returns
    unit normals (H, W, 3), NaN where there are none.
    """
    height, width = depth.shape
    valid = np.isfinite(depth) & (depth > 0)
    inverse = np.where(valid, 1 / np.where(valid, depth, 1.0), 0.0)

    # Sums over every window of m u^i v^j: shifted copies, first along rows, then columns.
    def sums(values: np.ndarray, i: int, j: int) -> np.ndarray:
        padded = np.pad(values, HALF)
        steps = range(-HALF, HALF + 1)
        along = sum(float(u) ** i * padded[:, HALF + u : HALF + u + width] for u in steps)
        return sum(float(v) ** j * along[HALF + v : HALF + v + height] for v in steps)

    mask = valid.astype(np.float64)
    powers = ((1, 0), (0, 1), (0, 0))  # of p, q, r
    normal = np.empty((height, width, 3, 3))
    for a, (i, j) in enumerate(powers):
        for b, (m, n) in enumerate(powers):
            normal[..., a, b] = sums(mask, i + m, j + n)
    right = np.stack([sums(inverse, i, j) for i, j in powers], axis=-1)
    count = normal[..., 2, 2]
    # The spread of the valid pixels: the determinant of their covariance.
    spread = np.linalg.det(normal) / np.maximum(count, 1) ** 3
    fits = (count >= WINDOW**2 / 4) & (spread > (WINDOW**2 / 96) ** 2)
    normal[~fits] = np.eye(3)
    p, q, r = np.moveaxis(np.linalg.solve(normal, right[..., None])[..., 0], -1, 0)
    # Mean squared residual, by the squares of what is left of each pixel.
    residual = np.zeros_like(depth)
    ones, values = np.pad(mask, HALF), np.pad(inverse, HALF)
    for v in range(-HALF, HALF + 1):
        for u in range(-HALF, HALF + 1):
            window = np.s_[HALF + v : HALF + v + height, HALF + u : HALF + u + width]
            residual += ones[window] * (values[window] - (p * u + q * v + r)) ** 2
    residual = np.where(fits, residual / np.maximum(count, 1), np.inf)

    # Windows around the pixel itself, and with the pixel on their border or in a corner.
    rows, columns = np.indices(depth.shape)
    noise = (0.01 * inverse) ** 2
    best = np.full_like(depth, np.inf)
    plane = np.full((height, width, 3), np.nan)  # p, q, and 1/z at the pixel
    for dv, du in [(0, 0), *((a, b) for a in (0, -HALF, HALF) for b in (0, -HALF, HALF))]:
        v, u = rows + dv, columns + du
        inside = (v >= 0) & (v < height) & (u >= 0) & (u < width)
        at = np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)
        candidate = np.where(inside, np.maximum(residual[at], noise), np.inf)
        here = r[at] - p[at] * du - q[at] * dv
        with np.errstate(invalid='ignore'):
            passes = np.abs(here - inverse) <= 4 * np.sqrt(candidate)
        # The middle window is good enough where it fits as well as the sensor is exact.
        wanted = (best > noise) & (candidate < best) & passes
        best[wanted] = candidate[wanted]
        plane[wanted] = np.stack((p[at], q[at], here), axis=-1)[wanted]
    found = valid & (best < (0.02 * inverse) ** 2)

    # 1/z = a x + b y + c in normalised coordinates is a x z + b y z + c z = 1: a plane whose
    # normal, towards the camera, is along -(a, b, c).
    a, b = plane[..., 0] * k[0, 0], plane[..., 1] * k[1, 1]
    c = plane[..., 2] - a * (columns - k[0, 2]) / k[0, 0] - b * (rows - k[1, 2]) / k[1, 1]
    normals = -np.stack((a, b, c), axis=-1)
    with np.errstate(invalid='ignore'):
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[~found] = np.nan
    return normals
