# SPDX-License-Identifier: Apache-2.0
"""Targets as the maps see them: rectified where the image was, normals where there is depth."""

from __future__ import annotations

from dataclasses import replace

import cv2
from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.scores import complete_targets, Scorer
from mtl_perception.tasks import standard_tasks, Task
from mtl_perception.values import PerceptionMaps
import numpy as np
import pytest

CAMERA = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
CUSHION = CameraModel(
    160, 120, 100.0, 100.0, 79.5, 59.5, distortion=(0.1, 0.02, 0.001, -0.002, 0.0),
    projection=(100.0, 100.0, 80.0, 60.0),
)  # fmt: skip


def test_targets_are_rectified_like_the_image() -> None:
    """Each rectified pixel against the raw pixel where OpenCV projects its ray to."""
    random = np.random.default_rng(0)
    depth = random.uniform(1, 5, (120, 160)).astype(np.float32)
    labels = random.integers(0, 18, (120, 160), dtype=np.uint8)
    normals = random.normal(size=(120, 160, 3)).astype(np.float32)
    edges = random.integers(0, 2, (120, 160), dtype=np.uint8)
    targets = {'depth': depth, 'semantic': labels, 'normals': normals, 'edges': edges}
    complete = complete_targets(targets, CUSHION, 11)
    u, v = np.meshgrid(np.arange(160.0), np.arange(120.0))
    rays = np.stack(((u - 80) / 100, (v - 60) / 100, np.ones_like(u)), axis=-1).reshape(-1, 3)
    raw, _ = cv2.projectPoints(
        rays, np.zeros(3), np.zeros(3), CUSHION.matrix, np.array(CUSHION.distortion)
    )
    x, y = raw.reshape(120, 160, 2).transpose(2, 0, 1)
    outside = (x < -0.1) | (y < -0.1) | (x > 159.1) | (y > 119.1)
    assert outside.any()
    assert np.isnan(complete['depth'][outside]).all()
    assert np.isnan(complete['normals'][outside]).all()
    assert (complete['semantic'][outside] == 255).all()
    assert (complete['edges'][outside] == 255).all()
    # Away from the border, and where the nearest pixel is not a matter of rounding.
    clear = (x > 1) & (y > 1) & (x < 158) & (y < 118)
    clear &= (np.abs(x % 1 - 0.5) > 0.05) & (np.abs(y % 1 - 0.5) > 0.05)
    columns, rows = np.rint(x[clear]).astype(int), np.rint(y[clear]).astype(int)
    for kind, target in targets.items():
        np.testing.assert_array_equal(complete[kind][clear], target[rows, columns])


def test_a_distorted_wall_has_the_normals_of_a_wall() -> None:
    complete = complete_targets({'depth': np.full((120, 160), 2.0, np.float32)}, CUSHION, 5)
    normals = complete['normals'][np.isfinite(complete['normals'][..., 0])]
    assert len(normals) > 0.8 * 120 * 160
    np.testing.assert_allclose(normals, np.tile([0, 0, -1.0], (len(normals), 1)), atol=1e-3)


@pytest.mark.parametrize('distortion', [(0.0,) * 5, CUSHION.distortion])
def test_depth_and_normals_turn_with_the_camera(distortion: tuple[float, ...]) -> None:
    """A wall seen by a camera that R turns by 5 degrees about y: one plane, turned."""
    angle = np.radians(5.0)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    camera = replace(CUSHION, distortion=distortion, rectification=tuple(turn.ravel()))
    normal = np.array([0.36, 0.48, -0.8])
    normals = np.tile(normal.astype(np.float32), (120, 160, 1))
    u, v = np.meshgrid(np.arange(160.0), np.arange(120.0))
    raw = cv2.undistortPoints(
        np.stack((u, v), axis=-1).reshape(-1, 1, 2), camera.matrix,
        np.array(distortion),
    ).reshape(120, 160, 2)  # fmt: skip
    depth = -2.0 / (raw @ normal[:2] + normal[2])
    targets = {'normals': normals, 'depth': depth.astype(np.float32)}
    complete = complete_targets(targets, camera, 11)
    result = complete['normals']
    seen = result[np.isfinite(result[..., 0])]
    assert 0.5 * 120 * 160 < len(seen) < 120 * 160
    expected = [
        0.36 * np.cos(angle) - 0.8 * np.sin(angle), 0.48,
        -0.36 * np.sin(angle) - 0.8 * np.cos(angle),
    ]  # fmt: skip
    np.testing.assert_allclose(seen, np.tile(expected, (len(seen), 1)), atol=1e-6)
    # The plane n . X = -2 in the rectified frame; the nearest raw pixel is half a pixel off.
    rays = np.stack(((u - 80) / 100, (v - 60) / 100, np.ones_like(u)), axis=-1)
    flat = -2.0 / (rays @ np.array(expected))
    found = np.isfinite(complete['depth'])
    np.testing.assert_allclose(complete['depth'][found], flat[found], rtol=0.012)


def test_recorded_normals_are_not_replaced() -> None:
    normals = np.tile(np.float32([0.6, 0, -0.8]), (48, 64, 1))
    targets = {'depth': np.full((48, 64), 2.0, np.float32), 'normals': normals}
    assert complete_targets(targets, CAMERA, 11)['normals'] is normals


def test_without_intrinsics_only_labels_and_edges_can_be_compared() -> None:
    targets = {
        kind: np.zeros((48, 64), np.uint8) for kind in ('depth', 'semantic', 'normals', 'edges')
    }
    assert set(complete_targets(targets, None, 11)) == {'semantic', 'edges'}


def test_only_the_first_task_of_a_kind_is_scored() -> None:
    rooms = standard_tasks('rooms')
    tasks = (*rooms, Task('far_depth', 'depth'))
    depth = np.full((48, 64), 2.0, np.float32)
    maps = PerceptionMaps(
        maps={'depth': depth, 'far_depth': depth * 3},
        confidence={},
        image=np.zeros((48, 64, 3), np.uint8),
        camera=CAMERA,
    )
    scorer = Scorer(tasks)
    assert scorer.ranking() is None
    scores, notes = scorer.score(maps, {'depth': depth * np.float32(0.8), 'edges': depth})
    assert set(scores) == {'depth'}
    assert notes == ()
    assert scores['depth']['abs_rel'] == pytest.approx(0.25)
    assert scorer.ranking() == ('depth', 'abs_rel', False)
    # A target without one valid pixel counts for nothing.
    empty, _ = scorer.score(maps, {'depth': np.full((48, 64), np.nan, np.float32)})
    assert empty == {}
    assert scorer.totals()['depth']['abs_rel'] == pytest.approx(0.25)


def test_the_columns_are_the_scores_to_come() -> None:
    scorer = Scorer(standard_tasks('rooms'))
    columns = scorer.columns({'semantic', 'depth'})
    assert ('semantic', 'miou') in columns
    assert ('depth', 'delta1') in columns
    assert {task for task, _ in columns} == {'semantic', 'depth'}
