# SPDX-License-Identifier: Apache-2.0
"""The boundary benchmark against an assignment solver, by hand, and on human drawings."""

from __future__ import annotations

import copy
import math
from pathlib import Path

from hypothesis import given, settings, strategies
from mtl_perception.thinning import thin
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.metrics.boundary import BoundaryMetric  # noqa: E402
from mtl_perception.metrics.boundary_matching import match_boundaries  # noqa: E402
from mtl_perception.metrics.errors import MetricError  # noqa: E402

optimize = pytest.importorskip('scipy.optimize')


def _most_matches(a, b, reach):
    """Return the size of the largest matching, by the Hungarian method on every pair."""
    p, t = np.argwhere(a), np.argwhere(b)
    if not len(p) or not len(t):
        return 0
    near = ((p[:, None] - t[None]) ** 2).sum(-1) <= reach**2
    return int(near[optimize.linear_sum_assignment(near, maximize=True)].sum())


@settings(max_examples=60, deadline=None)
@given(
    seed=strategies.integers(0, 2**31),
    share=strategies.floats(0.05, 0.6),
    reach=strategies.sampled_from([0.5, 1.0, 1.5, 2.3, 3.0]),
)
def test_no_assignment_matches_more(seed, share, reach):
    generator = np.random.default_rng(seed)
    a, b = generator.random((7, 9)) < share, generator.random((7, 9)) < share
    hit, found = match_boundaries(a, b, reach)
    assert hit.sum() == found.sum() == _most_matches(a, b, reach)
    assert not (hit & ~a).any()
    assert not (found & ~b).any()


def test_a_chain_must_be_shifted_as_a_whole():
    # Each pixel's nearest partner is its neighbour's only one: greedy pairs leave one over.
    a, b = np.zeros((1, 12), bool), np.zeros((1, 12), bool)
    a[0, 1:9:2], b[0, 2:10:2] = True, True
    b[0, 8], b[0, 0] = False, True
    assert match_boundaries(a, b, 1.0)[0].sum() == 4


def _f(hit, predicted, found, total):
    precision, recall = hit / max(predicted, 1), found / max(total, 1)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _benchmark(probabilities, annotators, reach, steps):
    """Return odsF and oisF from counts of each image and threshold."""
    table = []
    for probability, several in zip(probabilities, annotators):
        row = []
        for step in range(1, steps + 1):
            lines = thin(probability >= np.float32(step / (steps + 1))).astype(bool)
            found = [_most_matches(lines, each == 1, reach) for each in several]
            # These annotators are too far apart to claim the same pixel.
            total = sum(int((each == 1).sum()) for each in several)
            row.append((sum(found), int(lines.sum()), sum(found), total))
        table.append(row)
    counts = np.array(table)
    ods = max(_f(*counts[:, step].sum(0)) for step in range(steps))
    best = [max(range(steps), key=lambda step: _f(*row[step])) for row in table]
    return ods, _f(*sum(counts[image, step] for image, step in enumerate(best)))


def _pictures():
    generator = np.random.default_rng(8)
    annotators = np.zeros((3, 2, 12, 16), np.uint8)
    annotators[0, 0, 1:11, 3], annotators[0, 1, 5, 9:15] = 1, 1
    annotators[1, 0, 3, 1:6], annotators[1, 1, 2:10, 12] = 1, 1
    annotators[2, 0, 2:9, 4], annotators[2, 1, 9, 9:14] = 1, 1
    drawn = np.roll(annotators.max(1), 1, axis=2)
    share = np.array([0.5, 0.2, 0.35])[:, None, None]
    return (drawn * share + generator.random(drawn.shape) * 0.55).clip(0, 1).astype(
        np.float32
    ), annotators


def test_ods_and_ois_are_those_of_the_counts():
    probabilities, annotators = _pictures()
    metric = BoundaryMetric(0.06, thresholds=9)
    metric.update(torch.tensor(probabilities[:1]), torch.tensor(annotators[:1]))
    metric.update(torch.tensor(probabilities[1:]), torch.tensor(annotators[1:]))
    values = metric.compute()
    ods, ois = _benchmark(probabilities, annotators, 0.06 * math.hypot(12, 16), 9)
    assert values['ods_f'] == pytest.approx(ods)
    assert values['ois_f'] == pytest.approx(ois)
    assert 0.3 < ods < 1
    assert ois != pytest.approx(ods)


def test_thick_predictions_are_thinned_and_doubles_punished():
    target = np.zeros((1, 20, 30), np.uint8)
    target[0, 10, 5:25] = 1
    double = np.zeros((1, 20, 30), np.float32)
    double[0, [9, 11], 5:25] = 0.8
    metric = BoundaryMetric(0.06)
    metric.update(torch.tensor(double), torch.tensor(target))
    # Both lines are near, but each true pixel may be claimed once.
    assert metric.compute()['ods_precision'] == pytest.approx(0.5)
    thick = np.zeros((1, 20, 30), np.float32)
    thick[0, 9:12, 5:25] = 0.8
    metric = BoundaryMetric(0.06)
    metric.update(torch.tensor(thick), torch.tensor(target))
    assert metric.compute()['ods_precision'] == 1


def test_pixels_that_nobody_annotated_count_on_neither_side():
    target = np.zeros((2, 12, 16), np.uint8)
    target[0, 6, :8], target[0, :, 8:], target[1] = 1, 255, 255
    prediction = np.zeros((2, 12, 16), np.float32)
    prediction[0, 6], prediction[1, 3] = 0.9, 0.9
    metric = BoundaryMetric(0.03)
    metric.update(torch.tensor(prediction), torch.tensor(target))
    assert metric.compute()['ods_f'] == 1


def test_halves_merged_equal_one_pass():
    probabilities, annotators = (torch.tensor(each) for each in _pictures())
    whole, first, second = (BoundaryMetric(0.06, thresholds=9) for _ in range(3))
    whole.update(probabilities, annotators)
    first.update(probabilities[:1], annotators[:1])
    second.update(probabilities[1:], annotators[1:])
    first.merge_state(copy.deepcopy(second))
    assert first.compute() == whole.compute()


def test_what_does_not_fit_is_refused():
    with pytest.raises(MetricError, match='shape'):
        BoundaryMetric(0.01).update(torch.zeros(1, 4, 5), torch.zeros(1, 4, 6))
    with pytest.raises(MetricError, match='max_distance 4'):
        BoundaryMetric(4)


@pytest.mark.realdata
def test_people_agree_with_each_other_as_published(sample_data: Path):
    # Each person against the others: 0.80 over the whole set (Arbelaez et al., 2011).
    io = pytest.importorskip('scipy.io')
    files = sorted((sample_data / 'bsds500').glob('*/*.mat'))
    assert len(files) == 16
    metric = BoundaryMetric(0.0075, thresholds=1)
    for file in files:
        drawings = np.stack(
            [each['Boundaries'][0, 0] for each in io.loadmat(file)['groundTruth'][0]]
        )
        for index, drawing in enumerate(drawings):
            others = np.delete(drawings, index, 0)
            metric.update(torch.tensor(drawing)[None].float(), torch.tensor(others)[None])
    assert 0.74 < metric.compute()['ods_f'] < 0.88
