# SPDX-License-Identifier: Apache-2.0
"""Parts and saliency scores against loops over pixels, and merging against one pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.metrics.errors import MetricError  # noqa: E402
from mtl_perception.metrics.parts import PartsMetric  # noqa: E402
from mtl_perception.metrics.saliency import SaliencyMetric  # noqa: E402
from mtl_perception.metrics.task_metric import HEADLINES, metric_for  # noqa: E402
from mtl_perception.tasks import load_label_set, Task  # noqa: E402

TASKS = (
    Task('parts', 'parts', label_set=load_label_set('pascal_parts7')),
    Task('saliency', 'saliency'),
)


def test_parts_count_only_images_that_show_some():
    rng = np.random.default_rng(2)
    prediction = rng.integers(0, 7, (4, 5, 6))
    target = rng.integers(0, 7, (4, 5, 6))
    target[1] = 0  # background only
    target[2] = 255  # nobody annotated
    target[3, :, :3] = 255
    ious = []
    for label in range(7):
        both = either = 0
        for image in (0, 3):
            for p, t in zip(prediction[image].ravel(), target[image].ravel()):
                if t != 255:
                    both += p == label and t == label
                    either += p == label or t == label
        ious.append(both / either)
    metric = PartsMetric(7)
    metric.update(torch.tensor(prediction), torch.tensor(target))
    assert metric.compute()['miou'] == pytest.approx(np.mean(ious))
    # The target that was given stays as it was.
    assert int((torch.tensor(target)[1] == 0).sum()) == 30


def _saliency_by_hand(prediction, target):
    pooled, images = [], []
    for step in range(1, 20):
        threshold = np.float32(step / 20)
        tp = fp = fn = 0
        ious = []
        for p, t in zip(prediction, target):
            if (t == 255).all():
                continue
            known = t != 255
            found, true = (p >= threshold) & known, t == 1
            a, b, c = (found & true).sum(), (found & ~true).sum(), (~found & true).sum()
            tp, fp, fn = tp + a, fp + b, fn + c
            ious.append(a / (a + b + c) if a + b + c else 1.0)
        precision, recall = tp / max(tp + fp, 1), tp / (tp + fn)
        weighted = 0.3 * precision + recall
        pooled.append(1.3 * precision * recall / weighted if weighted else 0.0)
        if 4 <= step <= 18:
            images.append(np.mean(ious))
    return max(pooled), (np.argmax(pooled) + 1) / 20, max(images), (np.argmax(images) + 4) / 20


def test_saliency_against_loops_over_thresholds_and_images():
    rng = np.random.default_rng(5)
    target = (rng.random((5, 8, 9)) < 0.3).astype(np.uint8)
    target[1] = 0
    target[2, :4], target[3] = 255, 255
    # Bytes, as the graph gives them: 51 is exactly on the threshold 0.2.
    levels = np.where(rng.random(target.shape) < 0.5, 51, rng.integers(0, 256, target.shape))
    prediction = (levels / 255).astype(np.float32)
    prediction[target == 1] = np.maximum(prediction[target == 1], np.float32(0.4))
    metric = SaliencyMetric()
    for part in (slice(0, 2), slice(2, None)):
        metric.update(torch.tensor(prediction[part]), torch.tensor(target[part]))
    assert tuple(metric.compute().values()) == pytest.approx(_saliency_by_hand(prediction, target))


def test_the_two_saliency_scores_differ_as_published():
    # One large object found, one small one missed: pooled pixels forgive, images do not.
    target = np.zeros((2, 20, 20), np.uint8)
    target[0, :, :10], target[1, 0, 0] = 1, 1
    prediction = np.zeros((2, 20, 20), np.float32)
    prediction[0, :, :10] = 0.95
    metric = SaliencyMetric()
    metric.update(torch.tensor(prediction), torch.tensor(target))
    values = metric.compute()
    assert values['max_f_pooled'] == pytest.approx(1.3 * 200 / (0.3 * 201 + 200))
    assert values['max_mean_image_iou'] == pytest.approx(0.5)


def _maps(task, count):
    rng = np.random.default_rng(count)
    if task.kind == 'parts':
        return rng.integers(0, 7, (count, 6, 8)), rng.integers(0, 7, (count, 6, 8))
    return rng.random((count, 6, 8)), (rng.random((count, 6, 8)) < 0.3).astype(np.uint8)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_halves_merged_equal_one_pass(task):
    prediction, target = (torch.tensor(each) for each in _maps(task, 4))
    whole, first, second = metric_for(task), metric_for(task), metric_for(task)
    whole.update(prediction, target)
    first.update(prediction[:1], target[:1])
    second.update(prediction[1:], target[1:])
    first.merge_state(copy.deepcopy(second))
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-9)
    assert HEADLINES[task.kind][0] in whole.compute()


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_maps_of_other_sizes_are_refused(task):
    prediction, target = (torch.tensor(each) for each in _maps(task, 2))
    with pytest.raises(MetricError, match='shape'):
        metric_for(task).update(prediction[..., :-1], target)
