# SPDX-License-Identifier: Apache-2.0
"""The checks of a replay on scenes whose answer is arithmetic."""

from __future__ import annotations

from dataclasses import replace
import math

from mtl_perception.camera import CameraModel
from mtl_perception.evaluation import checks
from mtl_perception.evaluation.checks import Scene
from mtl_perception.evaluation.cross_task import CrossTaskConsistency
from mtl_perception.evaluation.depth_checks import DepthByDistance, DepthEdges
from mtl_perception.evaluation.focal_checks import MotionFocal, NormalsFocal
from mtl_perception.evaluation.temporal import TemporalConsistency
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.tasks import standard_tasks, Task
import numpy as np
import pytest

CAMERA = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
MS = 1_000_000


def wall(distance: float) -> dict[str, np.ndarray]:
    """A wall square to the camera with vertical stripes of labels, 8 pixels wide."""
    return {
        'depth': np.full((48, 64), distance, np.float32),
        'normals': np.tile(np.float32([0, 0, -1]), (48, 64, 1)),
        'semantic': np.tile(np.repeat(np.arange(8, dtype=np.uint8), 8), (48, 1)),
    }


def seen(
    index: int, predicted: dict[str, np.ndarray], position: tuple[float, float, float],
    truth: dict[str, np.ndarray] | None = None,
) -> Scene:
    pose = np.eye(4)
    pose[:3, 3] = position
    return Scene(predicted, truth or {}, CAMERA, (index + 1) * 33 * MS, pose)


def test_bands_of_distance_against_a_loop() -> None:
    random = np.random.default_rng(0)
    check = DepthByDistance()
    rows = []
    for _ in range(2):
        true = random.uniform(0.3, 12, (48, 64)).astype(np.float32)
        true[:4] = np.nan
        predicted = (true * random.uniform(0.7, 1.4, true.shape)).astype(np.float32)
        predicted[10, :5] = np.nan
        frame = check.score(Scene({'depth': predicted}, {'depth': true}, CAMERA))
        rows.append((true, predicted))
    limits = {'0_1m': (0, 1), '1_2m': (1, 2), '2_4m': (2, 4), '4_8m': (4, 8), '8m_on': (8, 99)}
    for values, frames in ((frame, rows[1:]), (check.totals(), rows)):
        for name, (near, far) in limits.items():
            gathered: dict[str, list[float]] = {}
            for true, predicted in frames:
                known = np.isfinite(true)
                filled = np.where(np.isfinite(predicted), predicted, 0.001).astype(np.float64)
                scale = np.median(true[known].astype(np.float64)) / np.median(filled[known])
                for z, p in zip(true.ravel().tolist(), predicted.ravel().tolist()):
                    if near <= z < far:
                        p = p if np.isfinite(p) else 0.001
                        for metric, value in {
                            'abs_rel': abs(p - z) / z, 'rmse_m': (p - z) ** 2,
                            'log10': abs(math.log10(p) - math.log10(z)),
                            **{f'delta{k}': max(p / z, z / p) < 1.25**k for k in (1, 2, 3)},
                            'scaled_abs_rel': abs(p * scale - z) / z,
                            'scaled_rmse_m': (p * scale - z) ** 2,
                        }.items():  # fmt: skip
                            gathered.setdefault(metric, []).append(value)
            assert values[f'pixels_{name}'] == len(gathered['abs_rel'])
            assert len(gathered) == 8
            for metric, entries in gathered.items():
                expected = np.mean(entries) ** (0.5 if 'rmse' in metric else 1)
                assert values[f'{metric}_{name}'] == pytest.approx(expected, rel=1e-9)
    # A band without a pixel has no value.
    assert 'abs_rel_8m_on' not in check.score(
        Scene({'depth': np.ones((4, 4))}, {'depth': np.ones((4, 4))}, CAMERA)
    )


def box(left: int) -> np.ndarray:
    """A box 1 m away before a wall 3 m away; its left side is at column `left`."""
    depth = np.full((48, 64), 3.0, np.float32)
    depth[:, left:] = 1.0
    return depth


def test_depth_edges_are_found_within_two_pixels() -> None:
    for shift, expected in ((0, 1.0), (2, 1.0), (7, 0.0)):
        check = DepthEdges()
        values = check.score(Scene({'depth': box(30 + shift)}, {'depth': box(30)}, CAMERA))
        assert (values['precision'], values['recall']) == (expected, expected)
    # Half of the true edge is found: in the lower half the prediction is flat.
    half = box(30)
    half[24:] = 3.0
    values = check.score(Scene({'depth': half}, {'depth': box(30)}, CAMERA))
    # 24 rows, the next one of the new horizontal edge, and two more within the tolerance.
    assert values['recall'] == pytest.approx(27 / 48)
    assert check.score(Scene({'depth': half}, {'depth': np.full((48, 64), np.nan)}, CAMERA)) == {}


def test_a_true_walk_is_steady() -> None:
    """Towards the wall and sideways by whole and by broken pixels."""
    check = TemporalConsistency()
    for index, (x, z) in enumerate([(0, 0), (0.03, 0.1), (0.1, 0.15), (0.1, 0.15)]):
        maps = wall(4.0 - z)
        # The stripes stay where they are in the world.
        columns = (np.arange(64) - 31.5) / 60 * (4.0 - z) + x
        maps['semantic'] = np.tile((np.floor(columns * 2) + 9).astype(np.uint8), (48, 1))
        values = check.score(seen(index, maps, (x, 0, z), {'depth': maps['depth']}))
    assert values['overlap'] == 1
    totals = check.totals()
    assert totals['depth_log_ratio'] < 1e-6
    assert totals['normals_deg'] == pytest.approx(0, abs=1e-5)
    assert totals['label_flicker'] == 0


@pytest.mark.parametrize('with_truth', [True, False])
def test_every_third_frame_frozen(with_truth: bool) -> None:
    """0.1 m closer with each frame; frames 2, 5, ... show the one before once more."""
    check = TemporalConsistency()
    depths = [4.0 - 0.1 * index for index in range(9)]
    for index, depth in enumerate(depths):
        shown = depths[index - 1] if index % 3 == 2 else depth
        truth = wall(depth) if with_truth else {}
        values = check.score(seen(index, wall(shown), (0, 0, 0.1 * index), truth))
        if not index:
            assert values == {}
            continue
        if index % 3 == 2:  # expected depth: that of now; predicted: that of before
            expected = np.log(depths[index - 1] / depth)
        elif index % 3 == 0:  # the frozen frame is 0.1 m too far
            expected = np.log((depths[index - 2] - 0.1) / depth)
        else:
            expected = 0.0
        assert values['depth_log_ratio'] == pytest.approx(expected, abs=1e-6)


def test_depth_normals_and_labels_that_flicker() -> None:
    """A camera at rest; every second frame is 10 % farther, tilted 10 degrees, relabelled."""
    check = TemporalConsistency()
    angle = np.radians(10)
    for index in range(4):
        maps = wall(2.0)
        if index % 2:
            maps['depth'] = maps['depth'] * np.float32(1.1)
            maps['normals'] = np.tile(
                np.float32([np.sin(angle), 0, -np.cos(angle)]), (48, 64, 1)
            )
            maps['semantic'][:24] += 8
        check.score(seen(index, maps, (0, 0, 0), {'depth': wall(2.0)['depth']}))
    totals = check.totals()
    assert totals['depth_log_ratio'] == pytest.approx(np.log(1.1), abs=1e-6)
    assert totals['normals_deg'] == pytest.approx(10, abs=1e-4)
    assert totals['label_flicker'] == 0.5


def test_labels_that_stick_to_the_image_flicker_where_the_stripes_pass() -> None:
    """The camera moves 3 pixels a frame; 3 of 8 columns of each stripe get the next label."""
    check = TemporalConsistency()
    step = 3 * 2.0 / 60
    for index in range(3):
        check.score(seen(index, wall(2.0), (index * step, 0, 0), wall(2.0)))
    # 61 columns are seen again, each 3 to the left.
    columns = np.arange(3, 64)
    changed = columns // 8 != (columns - 3) // 8
    assert check.totals()['label_flicker'] == pytest.approx(changed.mean())


def test_what_is_hidden_is_not_compared() -> None:
    """Sideways past a box: the wall that it covers or uncovers is left out."""
    check = TemporalConsistency()
    for index in range(2):
        # The box at 1 m moves by 6 pixels, the wall at 3 m by 2.
        depth = box(30 - 6 * index)
        check.score(seen(index, {'depth': depth}, (0.1 * index, 0, 0), {'depth': depth}))
    assert check.totals()['depth_log_ratio'] < 1e-6
    assert 0.7 < check.totals()['overlap'] < 0.95


def test_steps_that_are_none_are_not_compared() -> None:
    check = TemporalConsistency()
    first = seen(0, wall(2.0), (0, 0, 0))
    check.score(first)
    assert check.score(first) == {}  # the same stamp
    assert check.score(replace(first, stamp_ns=first.stamp_ns + 10**9)) == {}
    assert check.score(replace(first, stamp_ns=0)) == {}  # jumped back
    assert check.score(replace(first, pose=None)) == {}
    assert check.score(first) == {}  # the one before had no pose
    assert check.totals() == {}


def corner() -> dict[str, np.ndarray]:
    """Two walls that meet at 45 degrees to the camera, and a floor: depth and normals."""
    rays = CAMERA.rays().astype(np.float64)
    depth = np.full((48, 64), np.inf)
    normals = np.zeros((48, 64, 3))
    for normal, distance in (
        ((0.7, 0.0, -0.7), 2.0), ((-0.7, 0.1, -0.7), 2.2), ((0.0, -0.8, -0.6), 1.6)
    ):  # fmt: skip
        n = np.array(normal) / np.linalg.norm(normal)
        z = -distance / (rays @ n)
        nearer = (z > 0) & (z < depth)
        depth[nearer] = z[nearer]
        normals[nearer] = n
    return {'depth': depth.astype(np.float32), 'normals': normals.astype(np.float32)}


def test_maps_of_one_scene_agree() -> None:
    maps = corner()
    check = CrossTaskConsistency(standard_tasks('rooms'))
    assert check.score(Scene(maps, {}, CAMERA))['normals_vs_depth_deg'] < 0.1
    # A camera whose normals are all turned by 10 degrees about the optical axis of the plane.
    flat = wall(2.0)
    angle = np.radians(10)
    flat['normals'] = np.tile(np.float32([0, np.sin(angle), -np.cos(angle)]), (48, 64, 1))
    found = check.score(Scene(flat, {}, CAMERA))
    assert found['normals_vs_depth_deg'] == pytest.approx(10, abs=0.01)


@pytest.mark.parametrize('meaning', ['label_borders', 'depth_jumps', 'contours'])
def test_edges_are_compared_with_what_they_mean(meaning: str) -> None:
    """Labels change at column 16, depth at 48; edges are predicted at both."""
    labels = np.zeros((48, 64), np.uint8)
    labels[:, 16:] = 1
    edges = np.zeros((48, 64), np.uint8)
    edges[:, 15] = edges[:, 48] = 200
    tasks = (*standard_tasks('rooms')[:3], Task('edges', 'edges', edge_meaning=meaning))
    maps = {'semantic': labels, 'depth': box(48), 'edges': edges}
    values = CrossTaskConsistency(tasks).score(Scene(maps, {}, CAMERA))
    assert values['edges_recall'] == 1
    assert values['edges_precision'] == (1 if meaning == 'contours' else 0.5)
    # Against each alone, whatever they mean: half of what is predicted, all that is there.
    for other in ('labels', 'depth'):
        assert values[f'edges_vs_{other}_precision'] == 0.5
        assert values[f'edges_vs_{other}_recall'] == 1
        assert values[f'edges_vs_{other}_f'] == pytest.approx(2 / 3)
    del maps['semantic']
    alone = CrossTaskConsistency(tasks).score(Scene(maps, {}, CAMERA))
    assert 'edges_vs_labels_f' not in alone
    assert alone['edges_vs_depth_precision'] == 0.5
    assert ('edges_f' in alone) == (meaning != 'label_borders')


def test_normals_of_predicted_depth_are_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    def counted(depth: np.ndarray, camera: CameraModel, window: int) -> np.ndarray:
        fitted.append(depth)
        return normals_from_depth(depth, camera, window)

    monkeypatch.setattr(checks, 'normals_from_depth', counted)
    scene = Scene(corner(), {}, CAMERA)
    values = [
        check.score(scene)
        for check in (CrossTaskConsistency(standard_tasks('rooms')), NormalsFocal())
    ]
    assert all(values)
    assert len(fitted) == 1


@pytest.mark.parametrize('error', [1.0, 1.3, 0.75])
@pytest.mark.parametrize('recorded', [True, False])
def test_normals_tell_a_wrong_focal_length(error: float, recorded: bool) -> None:
    """True maps, but camera_info says a focal length that is wrong by `error`."""
    said = replace(CAMERA, fx=CAMERA.fx * error, fy=CAMERA.fy * error)
    check = NormalsFocal()
    maps = corner()
    scene = Scene(maps, {}, said)
    if recorded:  # then the predictions, which agree with each other, do not count
        flat = wall(2.0)
        scene = Scene(flat, maps, said, recorded=frozenset(maps))
    check.score(scene)
    check.score(scene)
    assert check.totals()['factor'] == pytest.approx(1 / error, rel=0.03)
    assert (check.warning() is None) == (error == 1.0)
    # A wall square to the camera says nothing, and no warning is made of nothing.
    nothing = NormalsFocal()
    assert nothing.score(Scene(wall(2.0), {}, said)) == {}
    assert nothing.warning() is None
    assert nothing.totals() == {}


@pytest.mark.parametrize('error', [1.0, 1.3, 0.75])
def test_motion_tells_a_wrong_focal_length(error: float) -> None:
    """The corner, seen from where the camera is: planes moved by hand."""
    said = replace(CAMERA, fx=CAMERA.fx * error, fy=CAMERA.fy * error)
    check = MotionFocal()
    rays = CAMERA.rays().astype(np.float64)
    for index in range(4):
        pose = np.eye(4)
        pose[:3, 3] = (0.15 * index, 0.0, 0.0)
        turn = np.radians(6) * index
        pose[:3, :3] = [
            [np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)],
        ]  # fmt: skip
        depth = np.full((48, 64), np.inf)
        for normal, distance in (((0.7, 0.0, -0.7), 2.0), ((-0.7, 0.1, -0.7), 2.2)):
            n = np.array(normal) / np.linalg.norm(normal)
            # n . X = -distance in the world; X = R x + t.
            z = -(distance + n @ pose[:3, 3]) / (rays @ (pose[:3, :3].T @ n))
            depth = np.where((z > 0) & (z < depth), z, depth)
        truth = {'depth': np.where(np.isfinite(depth), depth, np.nan).astype(np.float32)}
        scene = Scene({}, truth, said, (index + 1) * 33 * MS, pose)
        check.score(scene)
    assert check.totals()['factor'] == pytest.approx(1 / error, rel=0.06)
    assert (check.warning() is None) == (error == 1.0)
