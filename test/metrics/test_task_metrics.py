# SPDX-License-Identifier: Apache-2.0
"""Each metric against slow loops written from its definition, and merging against one pass."""

from __future__ import annotations

import copy
import math

from mtl_perception.metrics.depth import DepthMetric
from mtl_perception.metrics.edges import EdgesMetric
from mtl_perception.metrics.errors import MetricError
from mtl_perception.metrics.normals import NormalsMetric
from mtl_perception.metrics.semantic import SemanticMetric
from mtl_perception.metrics.task_metric import HEADLINES, metric_for
from mtl_perception.tasks import standard_tasks
import numpy as np
import pytest
import torch

RNG = np.random.default_rng(11)


def _run(metric, prediction, target):
    # In two batches, so that nothing depends on seeing all at once.
    for part in (slice(0, 1), slice(1, None)):
        metric.update(torch.tensor(prediction[part]), torch.tensor(target[part]))
    return metric.compute()


def test_semantic_against_set_arithmetic():
    prediction = RNG.integers(0, 5, (3, 6, 8)).astype(np.uint8)
    target = RNG.integers(0, 5, (3, 6, 8)).astype(np.uint8)
    target[target == 4] = 2  # class 4 is only ever predicted
    prediction[0, 0], target[1, 1] = 255, 255
    valid = target != 255
    ious = []
    for label in range(6):  # class 5 never occurs and must not count
        predicted, true = (prediction == label) & valid, (target == label) & valid
        union = (predicted | true).sum()
        if union:
            ious.append((predicted & true).sum() / union)
    result = _run(SemanticMetric(6), prediction, target)
    assert result['miou'] == pytest.approx(np.mean(ious))
    assert result['pixel_accuracy'] == pytest.approx((prediction == target)[valid].mean())


def test_semantic_refuses_labels_out_of_range():
    with pytest.raises(MetricError, match=r'label 7.*6 classes'):
        SemanticMetric(6).update(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 7))


def test_depth_against_the_formulas():
    target = RNG.uniform(0.5, 8, (3, 6, 8)).astype(np.float32)
    prediction = (target * RNG.uniform(0.6, 1.7, target.shape)).astype(np.float32)
    target[0, :2], target[2, 3] = np.nan, 0.0
    prediction[1, 0, 0] = np.nan
    sums = {prefix: [] for prefix in ('', 'scaled_')}
    for p, z in zip(prediction.astype(float), target.astype(float)):
        valid = np.isfinite(z) & (z > 0)
        p, z = np.where(np.isfinite(p), p, 1e-3)[valid], z[valid]
        sums[''] += list(zip(p, z))
        sums['scaled_'] += list(zip(p * np.median(z) / np.median(p), z))
    result = _run(DepthMetric(), prediction, target)
    for prefix, pairs in sums.items():
        expected = {
            'abs_rel': np.mean([abs(p - z) / z for p, z in pairs]),
            'sq_rel_m': np.mean([(p - z) ** 2 / z for p, z in pairs]),
            'rmse_m': math.sqrt(np.mean([(p - z) ** 2 for p, z in pairs])),
            'log10': np.mean([abs(math.log10(p / z)) for p, z in pairs]),
            **{
                f'delta{n}': np.mean([max(p / z, z / p) < 1.25**n for p, z in pairs])
                for n in (1, 2, 3)
            },
        }
        for name, value in expected.items():
            assert result[f'{prefix}{name}'] == pytest.approx(value, rel=1e-6), name


def test_normals_against_arccos():
    target = RNG.normal(size=(3, 3, 20, 24))
    prediction = target + RNG.normal(size=target.shape) * 0.4
    target[0, :, :5] = np.nan
    prediction[1, :, 0, 0] = 0.0
    angles = []
    for b in range(3):
        for y in range(20):
            for x in range(24):
                a, n = prediction[b, :, y, x], target[b, :, y, x]
                if np.isnan(n).any():
                    continue
                length = np.linalg.norm(a) * np.linalg.norm(n)
                cosine = 0.0 if length == 0 else (a @ n) / length
                angles.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    result = _run(NormalsMetric(), prediction, target)
    assert result['mean_deg'] == pytest.approx(np.mean(angles), abs=1e-4)
    assert result['median_deg'] == pytest.approx(np.median(angles), abs=0.06)
    assert result['rmse_deg'] == pytest.approx(math.sqrt(np.mean(np.square(angles))), abs=1e-4)
    for limit in (11.25, 22.5, 30):
        assert result[f'within_{limit:g}'] == pytest.approx(np.mean(np.array(angles) < limit))


def test_normals_median_is_exact_to_half_a_bin_on_many_angles():
    angles = np.radians(np.linspace(1, 61, 6001))
    prediction = np.stack((np.sin(angles), 0 * angles, np.cos(angles)))[None, :, None]
    target = np.zeros_like(prediction)
    target[:, 2] = 1
    metric = NormalsMetric()
    metric.update(torch.tensor(prediction), torch.tensor(target))
    assert metric.compute()['median_deg'] == pytest.approx(31.0, abs=0.0101)


def _near(mask, y, x, reach):
    return mask[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].any()


def test_edges_against_a_search_around_every_pixel():
    target = (RNG.random((3, 14, 18)) < 0.06).astype(np.uint8)
    prediction = np.clip(
        0.6 * np.roll(target, 1, axis=2) + RNG.random(target.shape) * 0.5, 0, 1
    ).astype(np.float32)
    target[0, :3] = 255
    best = (0.0, 0.0, 0.0, 0.0)
    for threshold in (0.25, 0.5, 0.75):
        predicted_hits, found = [], []
        for p, t in zip(prediction, target):
            chosen = (p >= threshold) & (t != 255)
            predicted_hits += [_near(t == 1, y, x, 2) for y, x in zip(*np.nonzero(chosen))]
            found += [_near(chosen, y, x, 2) for y, x in zip(*np.nonzero(t == 1))]
        precision = np.mean(predicted_hits) if predicted_hits else 0.0
        recall = np.mean(found)
        f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        best = max(best, (f, precision, recall, threshold))
    result = _run(EdgesMetric(tolerance_px=2, thresholds=3), prediction, target)
    assert tuple(result.values()) == pytest.approx(best)


def test_perfect_edges_score_one_and_far_ones_zero():
    target = np.zeros((1, 12, 20), np.uint8)
    target[0, :, 5] = 1
    near, far = np.roll(target, 2, axis=2), np.roll(target, 3, axis=2)
    for moved, expected in ((near, 1.0), (far, 0.0)):
        metric = EdgesMetric(tolerance_px=2)
        metric.update(torch.tensor(moved).float(), torch.tensor(target))
        assert metric.compute()['f_best_tolerance'] == expected


def _random_maps(task, count):
    if task.kind == 'semantic':
        return RNG.integers(0, 13, (count, 6, 8)), RNG.integers(0, 13, (count, 6, 8))
    if task.kind == 'normals':
        return RNG.normal(size=(count, 3, 6, 8)), RNG.normal(size=(count, 3, 6, 8))
    if task.kind == 'depth':
        return RNG.uniform(1, 5, (count, 6, 8)), RNG.uniform(1, 5, (count, 6, 8))
    return RNG.random((count, 6, 8)), (RNG.random((count, 6, 8)) < 0.3).astype(np.uint8)


@pytest.mark.parametrize('task', standard_tasks('nyu13'), ids=lambda task: task.name)
def test_parts_merged_equal_one_pass(task):
    prediction, target = (torch.tensor(each) for each in _random_maps(task, 4))
    whole, first, second = metric_for(task), metric_for(task), metric_for(task)
    whole.update(prediction, target)
    first.update(prediction[:1], target[:1])
    second.update(prediction[1:], target[1:])
    first.merge_state(copy.deepcopy(second))
    for name, value in whole.compute().items():
        assert first.compute()[name] == pytest.approx(value, rel=1e-9), name
    assert HEADLINES[task.kind][0] in whole.compute()


@pytest.mark.parametrize('task', standard_tasks('nyu13'), ids=lambda task: task.name)
def test_different_shapes_are_refused(task):
    prediction, target = (torch.tensor(each) for each in _random_maps(task, 2))
    with pytest.raises(MetricError, match='shape'):
        metric_for(task).update(prediction[..., :-1], target)
