# SPDX-License-Identifier: Apache-2.0
"""Whether the focal length of camera_info fits what the frames themselves say."""

from __future__ import annotations

from dataclasses import replace

from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.checks import (
    angles_deg,
    Array,
    coarse,
    coarse_normals,
    coarse_stride,
    Scene,
)
from mtl_perception.evaluation.temporal import interpolated_depth
import numpy as np
import numpy.typing as npt

FACTORS = np.geomspace(0.6, 1.7, 41)
TOLERATED = 0.15
# A normal along the optical axis, or square to it, is the same whatever the focal length.
_OBLIQUE = (0.2, 0.98)
_FEWEST_PIXELS = 200
# Without a minimum that stands out the frames say nothing about the focal length.
_LEAST_RISE_DEG = 2.0
_LEAST_GAIN_DEG = 0.5
_LEAST_RISE = 1.5  # times the least cost
_LEAST_MOTION_M, _LEAST_MOTION_DEG = 0.1, 5.0
_MOTION_COLUMNS = 80
_NEAREST_M = 0.05


class NormalsFocal:
    """
    The factor on the focal length with which normals fit depth best.

    With inverse depth a x + b y + c on a plane (x, y normalised coordinates) the normal is along
    -(a, b, c), and a focal length that is wrong by k makes it -(k a, k b, c). So for each factor
    in 0.6 to 1.7 the normals from depth are stretched and compared with the normals; `factor`
    has the least median angle, summed over the frames, `rise_deg` how much it stands out. Normals
    and depth that the bag holds are used where it holds both, else the predicted ones. A bundle
    that corrects its maps for the focal length keeps its own maps consistent whatever
    camera_info says: for those only recorded normals, or `MotionFocal`, can tell.
    """

    name = 'focal'
    columns: tuple[str, ...] = ('factor', 'rise_deg')

    def __init__(self) -> None:
        self.arrays = {'cost': np.zeros(len(FACTORS)), 'frames': np.zeros(1)}
        self.memory: Scene | None = None

    def score(self, scene: Scene) -> dict[str, float]:
        """Compare normals with normals from depth at every factor."""
        both = {'normals', 'depth'}
        is_recorded = both <= scene.recorded and both <= set(scene.truth)
        maps = scene.truth if is_recorded else scene.predicted
        if scene.camera is None or not both <= set(maps):
            return {}
        by_depth = (
            coarse_normals(maps['depth'], scene.camera)
            if is_recorded
            else scene.predicted_depth_normals
        )
        assert by_depth is not None
        by_depth = by_depth.astype(np.float64)
        stride = coarse_stride(scene.camera.width)
        normals = coarse(maps['normals'], stride).astype(np.float64)
        along = np.abs(normals[..., 2])
        with np.errstate(invalid='ignore'):
            used = (along > _OBLIQUE[0]) & (along < _OBLIQUE[1]) & np.isfinite(by_depth[..., 0])
        if used.sum() < _FEWEST_PIXELS:
            return {}
        # Every so-manieth pixel will do for a median.
        step = max(1, int(used.sum()) // 2000)
        normals, by_depth = normals[used][::step], by_depth[used][::step]
        cost = np.array([
            np.median(angles_deg(normals, _stretched(by_depth, factor))) for factor in FACTORS
        ])  # fmt: skip
        self.arrays['cost'] += cost
        self.arrays['frames'] += 1
        return _best(cost)

    def totals(self) -> dict[str, float]:
        """Return the factor over all frames."""
        frames = float(self.arrays['frames'][0])
        return _best(self.arrays['cost'] / frames) if frames else {}

    def warning(self) -> str | None:
        """Return a sentence if the focal length does not fit, else None."""
        if not self.arrays['frames'][0]:
            return None
        cost = self.arrays['cost'] / self.arrays['frames'][0]
        best = _best(cost)
        at_one = float(np.interp(0.0, np.log(FACTORS), cost))
        stands_out = best['rise_deg'] >= _LEAST_RISE_DEG and at_one - cost.min() >= _LEAST_GAIN_DEG
        if not stands_out or not _is_off(best['factor']):
            return None
        return (
            f'normals and depth agree best with {best["factor"]:.2f} times the focal length of '
            'camera_info: check the calibration, or give the right one with --camera'
        )


class MotionFocal:
    """
    The factor on the focal length with which measured depth fits the recorded motion best.

    The depth of a frame is moved into a later one, 0.1 m or 5 degrees on, at each factor; the
    cost is the median of |ln(z' / z)|, summed over such pairs. It needs measured depth and poses,
    and no model.
    """

    name = 'focal_motion'
    columns: tuple[str, ...] = ('factor', 'rise')

    def __init__(self) -> None:
        self.arrays = {'cost': np.zeros(len(FACTORS)), 'frames': np.zeros(1)}
        self.memory: Scene | None = None

    def score(self, scene: Scene) -> dict[str, float]:
        """Compare with the last frame from which the camera has moved on."""
        if scene.pose is None or scene.camera is None or 'depth' not in scene.truth:
            return {}
        reference = self.memory
        if (
            reference is None or reference.pose is None
            or reference.camera != scene.camera or scene.stamp_ns <= reference.stamp_ns
        ):  # fmt: skip
            self.memory = scene.only((), ('depth',))
            return {}
        motion = np.linalg.inv(scene.pose) @ reference.pose
        turned = np.degrees(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1)))
        if np.linalg.norm(motion[:3, 3]) < _LEAST_MOTION_M and turned < _LEAST_MOTION_DEG:
            return {}
        self.memory = scene.only((), ('depth',))
        cost = np.array([
            _motion_cost(
                reference.truth['depth'], scene.truth['depth'],
                replace(scene.camera, fx=scene.camera.fx * f, fy=scene.camera.fy * f), motion,
            )
            for f in FACTORS
        ])  # fmt: skip
        if not np.isfinite(cost).all():
            return {}
        self.arrays['cost'] += cost
        self.arrays['frames'] += 1
        return _best_ratio(cost)

    def totals(self) -> dict[str, float]:
        """Return the factor over all pairs."""
        frames = float(self.arrays['frames'][0])
        return _best_ratio(self.arrays['cost'] / frames) if frames else {}

    def warning(self) -> str | None:
        """Return a sentence if the focal length does not fit, else None."""
        best = self.totals()
        if not best or best['rise'] < _LEAST_RISE or not _is_off(best['factor']):
            return None
        return (
            f'measured depth and motion agree best with {best["factor"]:.2f} times the focal '
            'length of camera_info: check the calibration, or give the right one with --camera'
        )


def _motion_cost(
    depth: Array, other: Array, camera: CameraModel, motion: npt.NDArray[np.float64]
) -> float:
    stride = max(1, camera.width // _MOTION_COLUMNS)
    rows, columns = stride * np.array(np.nonzero(coarse(depth > 0, stride)))
    rays = np.stack(
        ((columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones(len(rows))),
        axis=-1,
    )
    moved = (rays * depth[rows, columns, None]) @ motion[:3, :3].T + motion[:3, 3]
    position = camera.project(moved)
    with np.errstate(invalid='ignore'):
        inside = (moved[:, 2] > _NEAREST_M) & (position >= 0).all(axis=1)
        inside &= (position[:, 0] <= camera.width - 1) & (position[:, 1] <= camera.height - 1)
    surface, _ = interpolated_depth(other, position[inside])
    with np.errstate(divide='ignore', invalid='ignore'):
        change = np.abs(np.log(moved[inside, 2] / surface))
    change = change[np.isfinite(change)]
    return float(np.median(change)) if change.size >= _FEWEST_PIXELS / 4 else float('nan')


def _stretched(normals: Array, factor: float) -> Array:
    stretched = normals * np.array([factor, factor, 1.0])
    return np.asarray(stretched / np.linalg.norm(stretched, axis=-1, keepdims=True))


def _best(cost: npt.NDArray[np.float64]) -> dict[str, float]:
    ends = min(float(cost[0]), float(cost[-1]))
    return {'factor': float(FACTORS[cost.argmin()]), 'rise_deg': ends - float(cost.min())}


def _best_ratio(cost: npt.NDArray[np.float64]) -> dict[str, float]:
    ends = min(float(cost[0]), float(cost[-1]))
    return {
        'factor': float(FACTORS[cost.argmin()]), 'rise': ends / max(float(cost.min()), 1e-9),
    }  # fmt: skip


def _is_off(factor: float) -> bool:
    return abs(np.log(factor)) > np.log(1 + TOLERATED)
