# SPDX-License-Identifier: Apache-2.0
"""Targets as the maps see them: rectified where the image was, normals where there is depth."""

from __future__ import annotations

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
    complete = complete_targets({'depth': depth, 'semantic': labels}, CUSHION, 11)
    u, v = np.meshgrid(np.arange(160.0), np.arange(120.0))
    rays = np.stack(((u - 80) / 100, (v - 60) / 100, np.ones_like(u)), axis=-1).reshape(-1, 3)
    raw, _ = cv2.projectPoints(
        rays, np.zeros(3), np.zeros(3), CUSHION.matrix, np.array(CUSHION.distortion)
    )
    x, y = raw.reshape(120, 160, 2).transpose(2, 0, 1)
    outside = (x < -0.1) | (y < -0.1) | (x > 159.1) | (y > 119.1)
    assert outside.any()
    assert np.isnan(complete['depth'][outside]).all()
    assert (complete['semantic'][outside] == 255).all()
    # Away from the border, and where the nearest pixel is not a matter of rounding.
    clear = (x > 1) & (y > 1) & (x < 158) & (y < 118)
    clear &= (np.abs(x % 1 - 0.5) > 0.05) & (np.abs(y % 1 - 0.5) > 0.05)
    columns, rows = np.rint(x[clear]).astype(int), np.rint(y[clear]).astype(int)
    np.testing.assert_array_equal(complete['depth'][clear], depth[rows, columns])
    np.testing.assert_array_equal(complete['semantic'][clear], labels[rows, columns])


def test_a_distorted_wall_has_the_normals_of_a_wall() -> None:
    complete = complete_targets({'depth': np.full((120, 160), 2.0, np.float32)}, CUSHION, 5)
    normals = complete['normals'][np.isfinite(complete['normals'][..., 0])]
    assert len(normals) > 0.8 * 120 * 160
    np.testing.assert_allclose(normals, np.tile([0, 0, -1.0], (len(normals), 1)), atol=1e-3)


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
