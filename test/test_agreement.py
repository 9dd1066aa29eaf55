# SPDX-License-Identifier: Apache-2.0
"""The disagreement of maps against plain arithmetic."""

from __future__ import annotations

import math

from mtl_perception.agreement import disagreement, TOLERANCES
from mtl_perception.tasks import KINDS, load_label_set, standard_tasks, Task
import numpy as np

TASKS = standard_tasks('rooms')


def rotated(degrees: float) -> list[float]:
    return [math.sin(math.radians(degrees)), 0.0, -math.cos(math.radians(degrees))]


def test_each_kind_in_its_own_unit() -> None:
    reference = {
        'semantic': np.zeros((1, 4, 5), np.uint8),
        'depth': np.full((1, 4, 5), 2.0, np.float32),
        'normals': np.tile(np.float32([0, 0, -1]), (1, 4, 5, 1)),
        'edges': np.full((1, 4, 5), 200, np.uint8),
    }
    maps = {name: values.copy() for name, values in reference.items()}
    assert set(disagreement(TASKS, reference, maps).values()) == {0.0}
    maps['semantic'][0, 0, :3] = 1
    maps['depth'][0, 1, 1] = 1.9
    maps['normals'][...] = np.float32(rotated(0.02))
    maps['edges'][0, 0, 0] = 149
    errors = disagreement(TASKS, reference, maps)
    np.testing.assert_allclose(errors['semantic'], 3 / 20)
    np.testing.assert_allclose(errors['depth'], 0.05, rtol=1e-5)
    np.testing.assert_allclose(errors['normals'], 0.02, rtol=1e-3)
    np.testing.assert_allclose(errors['edges'], 51 / 255)


def test_normals_are_judged_at_the_99th_percentile() -> None:
    reference = np.tile(np.float32([0, 0, -1]), (1, 10, 100, 1))
    maps = reference.copy()
    maps[0, 0, :9] = np.float32(rotated(30.0))  # 9 of 1000
    assert disagreement(TASKS[2:3], {'normals': reference}, {'normals': maps})['normals'] == 0.0
    maps[0, 1, :9] = np.float32(rotated(30.0))  # 18 of 1000
    error = disagreement(TASKS[2:3], {'normals': reference}, {'normals': maps})['normals']
    np.testing.assert_allclose(error, 30.0, rtol=1e-5)


def test_nan_is_never_agreement() -> None:
    reference = {'depth': np.ones((1, 2, 2), np.float32)}
    maps = {'depth': np.full((1, 2, 2), np.nan, np.float32)}
    assert math.isnan(disagreement(TASKS[1:2], reference, maps)['depth'])


def test_parts_are_judged_as_labels_and_saliency_as_probability() -> None:
    tasks = (
        Task('parts', 'parts', label_set=load_label_set('pascal_parts7')),
        Task('saliency', 'saliency'),
    )
    reference = {task.name: np.zeros((1, 4, 5), np.uint8) for task in tasks}
    maps = {name: values.copy() for name, values in reference.items()}
    maps['parts'][0, 0, :2] = 6
    maps['saliency'][0, 0, 0] = 51
    errors = disagreement(tasks, reference, maps)
    np.testing.assert_allclose((errors['parts'], errors['saliency']), (2 / 20, 51 / 255))
    for limits in TOLERANCES.values():
        assert set(limits) == set(KINDS)
