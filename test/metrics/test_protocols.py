# SPDX-License-Identifier: Apache-2.0
"""What the protocols of the papers count, against numpy and scikit-like set arithmetic."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip('torch')

from mtl_perception.metrics.boundary import BoundaryMetric  # noqa: E402
from mtl_perception.metrics.depth import DepthMetric  # noqa: E402
from mtl_perception.metrics.edge_classes import EdgeClassesMetric  # noqa: E402
from mtl_perception.metrics.errors import MetricError  # noqa: E402
from mtl_perception.metrics.task_metric import find_protocol, PROTOCOLS  # noqa: E402
from mtl_perception.tasks import load_label_set, standard_tasks, Task  # noqa: E402
import numpy as np  # noqa: E402

RNG = np.random.default_rng(3)
TASKS = (
    *standard_tasks('nyu13'),
    Task('saliency', 'saliency'),
    Task('parts', 'parts', load_label_set('nyu13')),
)


def _depths():
    target = RNG.uniform(0.5, 90, (4, 9, 7))
    prediction = target * RNG.uniform(0.5, 1.9, target.shape)
    # The images differ much in how many pixels they have: pooled is not by image.
    target[0, :7], target[2, 1:] = np.nan, np.nan
    return prediction, target


def _update(metric, prediction, target):
    metric.update(torch.tensor(prediction[:1]), torch.tensor(target[:1]))
    metric.update(torch.tensor(prediction[1:]), torch.tensor(target[1:]))
    return metric.compute()


def test_depth_by_image_is_the_mean_of_each_image_alone():
    prediction, target = _depths()
    found = _update(DepthMetric(per_image=True), prediction, target)
    pooled = _update(DepthMetric(), prediction, target)
    alone = [
        _update(DepthMetric(), prediction[index : index + 1], target[index : index + 1])
        for index in range(4)
    ]
    for name, value in pooled.items():
        assert found[name] == value
        mean = np.mean([each[name] for each in alone])
        assert found[f'image_{name}'] == pytest.approx(mean, rel=1e-12), name
        assert found[f'image_{name}'] != pytest.approx(value, rel=1e-3)
    for prefix in ('', 'scaled_'):
        squared = np.mean([each[f'{prefix}rmse_m'] ** 2 for each in alone])
        assert found[f'{prefix}root_image_mse_m'] == pytest.approx(np.sqrt(squared), rel=1e-12)


def test_depth_below_a_ceiling_against_numpy():
    prediction, target = _depths()
    prediction[3, 0, 0], target[3, 0, 0] = 500.0, 79.0
    found = _update(DepthMetric(ceiling_m=80.0, per_image=True), prediction, target)
    errors, squares = [], []
    for p, z in zip(prediction, target):
        valid = (z > 1e-3) & (z < 80)
        p, z = np.clip(p[valid], 1e-3, 80), z[valid]
        errors.append((np.abs(p - z) / z).mean())
        squares.append(((p - z) ** 2).mean())
    assert found['image_abs_rel'] == pytest.approx(np.mean(errors), rel=1e-9)
    assert found['root_image_mse_m'] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-9)
    with pytest.raises(MetricError, match='rises from above 0'):
        DepthMetric(ceiling_m=1e-4)


def test_edge_classes_against_counting():
    prediction = RNG.random((3, 8, 9)).astype(np.float32)
    target = (RNG.random((3, 8, 9)) < 0.3).astype(np.uint8)
    target[1, 2] = 255
    said, known = prediction > 0.5, target != 255
    scores = []
    for is_edge in (True, False):
        truth, answer = (target == 1) == is_edge, said == is_edge
        hits = (truth & answer & known).sum()
        precision, recall = hits / (answer & known).sum(), hits / (truth & known).sum()
        scores.append(2 * precision * recall / (precision + recall))
    found = _update(EdgeClassesMetric(), prediction, target)
    assert found['edge_f1'] == pytest.approx(scores[0])
    assert found['background_f1'] == pytest.approx(scores[1])
    assert found['mean_class_f1'] == pytest.approx(np.mean(scores))


def _maps(task, count):
    shape = (count, 12, 16)
    if task.kind in ('semantic', 'parts'):
        return RNG.integers(0, 13, shape), RNG.integers(0, 13, shape)
    if task.kind == 'normals':
        return RNG.normal(size=(count, 3, 12, 16)), RNG.normal(size=(count, 3, 12, 16))
    if task.kind == 'depth':
        return RNG.uniform(1, 5, shape), RNG.uniform(1, 5, shape)
    return RNG.random(shape).astype(np.float32), (RNG.random(shape) < 0.2).astype(np.uint8)


@pytest.mark.parametrize('name', PROTOCOLS)
def test_every_protocol_has_its_headlines_and_merges(name):
    protocol = find_protocol(name)
    assert set(protocol.headlines) == {task.kind for task in TASKS}
    for task in TASKS:
        prediction, target = (torch.tensor(each) for each in _maps(task, 3))
        whole, first, second = (protocol.metric_for(task) for _ in range(3))
        whole.update(prediction, target)
        first.update(prediction[:1], target[:1])
        second.update(prediction[1:], target[1:])
        first.merge_state(copy.deepcopy(second))
        values = whole.compute()
        assert protocol.headlines[task.kind][0] in values
        assert first.compute() == pytest.approx(values, rel=1e-9)


def test_the_boundary_tolerances_are_the_papers():
    edges = next(task for task in TASKS if task.kind == 'edges')
    for name, reach in (('nyud_mti', 0.011), ('nyud_demt', 0.011), ('pascal_mti', 0.0075)):
        metric = find_protocol(name).metric_for(edges)
        assert isinstance(metric, BoundaryMetric)
        assert metric.max_distance == reach
    assert find_protocol('pascal_demt').headlines['saliency'] == ('max_f_pooled', True)
    assert find_protocol('pascal_mti').headlines['saliency'] == ('max_mean_image_iou', True)
    with pytest.raises(MetricError, match="'nyud' is unknown; there are training"):
        find_protocol('nyud')
