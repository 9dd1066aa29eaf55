# SPDX-License-Identifier: Apache-2.0
"""Whether predictions stay what they were while the camera moves, by the true motion."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.checks import (
    angles_deg,
    Array,
    coarse,
    coarse_stride,
    FrameMeans,
    Scene,
)
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt

# Frames further apart are no neighbours: the stamps jumped, or frames are missing.
_LONGEST_STEP_NS = 500_000_000
# How far the moved point may be from the surface that the next frame has there. Where that
# surface is predicted, a narrow limit would leave out just the pixels that changed.
_OCCLUSION_MEASURED, _OCCLUSION_PREDICTED = 0.05, 0.25
# Within the four pixels about a point: more is a jump, across which nothing is interpolated.
_STEEPEST = 0.1
_NEAREST_M = 0.05
_FEWEST_PIXELS = 50
_ROUNDING_PX = 1e-4  # what arithmetic may move a point that stays where it is


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Pixels of one frame and where the next frame sees the same points."""

    rows: Array  # in the first frame
    columns: Array
    position: Array  # (n, 2), x and y in the second frame, not rounded
    share: float  # of the pixels with depth that were found again


def correspond(
    depth: Array,
    other_depth: Array,
    camera: CameraModel,
    motion: npt.NDArray[np.float64],
    occlusion: float,
    stride: int,
) -> Correspondence | None:
    """
    Follow the points of a depth map (H, W) into another frame by `motion` (4, 4).

    A point counts as seen there if the other depth at its projection (inverse depth between
    four pixels, which is exact on planes) is within the part `occlusion` of its own. Returns
    None where too few points are left to say anything.
    """
    rows, columns = stride * np.array(np.nonzero(coarse(depth > 0, stride)))
    if not len(rows):
        return None
    points = camera.rays()[rows, columns] * depth[rows, columns, None].astype(np.float64)
    moved = points @ motion[:3, :3].T + motion[:3, 3]
    position = camera.project(moved)
    with np.errstate(invalid='ignore'):
        inside = (
            (moved[:, 2] > _NEAREST_M)
            & (position >= -_ROUNDING_PX).all(axis=1)
            & (position[:, 0] <= camera.width - 1 + _ROUNDING_PX)
            & (position[:, 1] <= camera.height - 1 + _ROUNDING_PX)
        )
    rows, columns, position, z = rows[inside], columns[inside], position[inside], moved[inside, 2]
    surface, spread = interpolated_depth(other_depth, position)
    with np.errstate(invalid='ignore'):
        seen = (spread < 1 + _STEEPEST) & (np.abs(z / surface - 1) < occlusion)
    if seen.sum() < _FEWEST_PIXELS:
        return None
    return Correspondence(
        rows[seen], columns[seen], position[seen], float(seen.sum() / len(points))
    )


def four_pixels(
    shape: tuple[int, ...], position: npt.NDArray[np.float64]
) -> tuple[Array, Array, npt.NDArray[np.float64]]:
    """Return rows and columns (4, n) of the pixels about each position, and their weights."""
    left = np.clip(np.floor(position[:, 0]).astype(np.intp), 0, shape[1] - 2)
    top = np.clip(np.floor(position[:, 1]).astype(np.intp), 0, shape[0] - 2)
    x, y = position[:, 0] - left, position[:, 1] - top
    weights = np.stack(((1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y))
    rows = np.stack((top, top, top + 1, top + 1))
    return rows, np.stack((left, left + 1, left, left + 1)), weights


def interpolated_depth(
    depth: Array, position: npt.NDArray[np.float64]
) -> tuple[Array, Array]:
    """Return depth between four pixels, linear in 1/z, and farthest / nearest of the four."""
    rows, columns, weights = four_pixels(depth.shape, position)
    values = depth[rows, columns].astype(np.float64)
    with np.errstate(divide='ignore', invalid='ignore'):
        return 1.0 / (weights / values).sum(axis=0), values.max(axis=0) / values.min(axis=0)


class TemporalConsistency:
    """
    Warps each frame into the next one by the true motion and compares the predictions.

    The points to follow come from measured depth where both frames have it, so that an error of
    predicted depth does not spoil the correspondence; else from predicted depth.
    `depth_log_ratio` is the median of |ln(z' / z)|, z' the depth predicted in the first frame
    after the motion, z the depth predicted in the second at that place. `label_flicker` is the
    share of points whose label none of the four pixels about that place has. `normals_deg` is
    the median angle between the normals, the first turned by the motion. `overlap` is the share
    of points that were found again. All are means over the pairs of neighbouring frames.
    """

    name = 'temporal'
    columns: tuple[str, ...] = ('depth_log_ratio', 'label_flicker', 'normals_deg', 'overlap')

    def __init__(self) -> None:
        self._means = FrameMeans(self.columns)
        self.arrays = self._means.arrays
        self.memory: Scene | None = None

    def score(self, scene: Scene) -> dict[str, float]:
        """Compare with the frame before, if that was one step ago and both poses are known."""
        before, self.memory = self.memory, None
        if scene.pose is None or scene.camera is None or 'depth' not in scene.predicted:
            return {}
        self.memory = scene.only(('depth', 'semantic', 'normals'), ('depth',))
        if before is None or before.camera != scene.camera or before.pose is None:
            return {}
        if not 0 < scene.stamp_ns - before.stamp_ns <= _LONGEST_STEP_NS:
            return {}
        motion = np.linalg.inv(scene.pose) @ before.pose
        measured = 'depth' in before.truth and 'depth' in scene.truth
        depth = [(entry.truth if measured else entry.predicted)['depth']
                 for entry in (before, scene)]  # fmt: skip
        occlusion = _OCCLUSION_MEASURED if measured else _OCCLUSION_PREDICTED
        stride = coarse_stride(scene.camera.width)
        pairs = correspond(depth[0], depth[1], scene.camera, motion, occlusion, stride)
        if pairs is None:
            return {}
        return self._means.add({
            'depth_log_ratio': _depth_change(before, scene, pairs, motion),
            'label_flicker': _label_change(before, scene, pairs),
            'normals_deg': _normals_change(before, scene, pairs, motion),
            'overlap': pairs.share,
        })

    def totals(self) -> dict[str, float]:
        """Return the means over the pairs."""
        return self._means.means()


def _depth_change(
    before: Scene, scene: Scene, pairs: Correspondence, motion: npt.NDArray[np.float64]
) -> float:
    assert scene.camera is not None
    at = pairs.rows, pairs.columns
    points = scene.camera.rays()[at] * before.predicted['depth'][at][:, None].astype(np.float64)
    expected = points @ motion[2, :3] + motion[2, 3]
    found, _ = interpolated_depth(scene.predicted['depth'], pairs.position)
    with np.errstate(divide='ignore', invalid='ignore'):
        change = np.abs(np.log(expected / found))
    return _median(change)


def _label_change(before: Scene, scene: Scene, pairs: Correspondence) -> float:
    if 'semantic' not in scene.predicted or 'semantic' not in before.predicted:
        return float('nan')
    label = before.predicted['semantic'][pairs.rows, pairs.columns]
    rows, columns, weights = four_pixels(scene.predicted['semantic'].shape, pairs.position)
    same = scene.predicted['semantic'][rows, columns] == label
    stays = (same & (weights > _ROUNDING_PX)).any(axis=0)
    labelled = label != UNLABELLED
    return float(1 - stays[labelled].mean()) if labelled.any() else float('nan')


def _normals_change(
    before: Scene, scene: Scene, pairs: Correspondence, motion: npt.NDArray[np.float64]
) -> float:
    if 'normals' not in scene.predicted or 'normals' not in before.predicted:
        return float('nan')
    expected = before.predicted['normals'][pairs.rows, pairs.columns] @ motion[:3, :3].T
    columns, rows = np.rint(pairs.position).astype(np.intp).T
    return _median(angles_deg(expected, scene.predicted['normals'][rows, columns]))


def _median(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float('nan')
