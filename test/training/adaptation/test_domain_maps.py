# SPDX-License-Identifier: Apache-2.0
"""What the discriminators see, pixel by pixel from the formulas."""

from __future__ import annotations

import math

from mtl_perception.tasks import LabelSet, Task
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.training.adaptation.domain_maps import (  # noqa: E402
    domain_map,
    inverse_depth_range,
    map_channels,
    self_information,
)

LABELS = LabelSet('three', ('a', 'b', 'c'), ((1, 0, 0), (2, 0, 0), (3, 0, 0)))
SEMANTIC = Task('semantic', 'semantic', label_set=LABELS)
DEPTH = Task('depth', 'depth')
NORMALS = Task('normals', 'normals')
EDGES = Task('edges', 'edges', edge_meaning='depth_jumps')


def _slowly(probabilities):
    """-p log2(p) / log2(C), number by number."""
    classes = len(probabilities)
    return [-p * math.log2(p) / math.log2(classes) for p in probabilities]


def _enlarged(raw, size):
    """Bilinear with corners on corners, from the definition; raw (C, h, w)."""
    (_, h, w), (height, width) = raw.shape, size
    out = np.empty((raw.shape[0], height, width))
    for y in range(height):
        for x in range(width):
            v, u = y * (h - 1) / (height - 1), x * (w - 1) / (width - 1)
            top, left = min(int(v), h - 2), min(int(u), w - 2)
            b, a = v - top, u - left
            out[:, y, x] = (
                (1 - b) * (1 - a) * raw[:, top, left] + (1 - b) * a * raw[:, top, left + 1]
                + b * (1 - a) * raw[:, top + 1, left] + b * a * raw[:, top + 1, left + 1]
            )
    return out


def test_self_information_is_the_formula():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = self_information(logits.log_softmax(1)).numpy()
    for b, y, x in np.ndindex(2, 4, 5):
        exponentials = [math.exp(float(each)) for each in logits[b, :, y, x]]
        probabilities = [each / sum(exponentials) for each in exponentials]
        np.testing.assert_allclose(found[b, :, y, x], _slowly(probabilities), atol=1e-12)


def test_information_sums_to_one_where_all_classes_are_alike_and_to_none_where_one_is_sure():
    alike, sure = torch.zeros(1, 3, 1, 1), torch.tensor([200.0, 0, -200]).view(1, 3, 1, 1)
    assert float(self_information(alike.log_softmax(1)).sum()) == pytest.approx(1)
    sure.requires_grad_()
    information = self_information(sure.log_softmax(1)).sum()
    information.backward()
    assert float(information) == 0
    assert torch.isfinite(sure.grad).all()


def test_the_semantic_map_is_enlarged_before_it_is_compared():
    raw = torch.randn(1, 3, 3, 4)
    found = domain_map(SEMANTIC, raw, (7, 9), {})[0].numpy()
    large = _enlarged(raw[0].numpy(), (7, 9))
    for y, x in np.ndindex(7, 9):
        exponentials = np.exp(large[:, y, x])
        np.testing.assert_allclose(
            found[:, y, x], _slowly(exponentials / exponentials.sum()), atol=1e-6
        )


def test_depth_is_published_inverse_depth_over_the_range_of_the_source_targets():
    target = torch.tensor([[[1.0, 2.0, math.nan], [8.0, 4.0, 0.0]]])
    bounds = inverse_depth_range(target, (0.2, 20.0))
    raw = torch.tensor([0.5, 1.0, 8.0, 30.0]).log().view(1, 1, 2, 2)
    found = domain_map(DEPTH, raw, (2, 2), {'depth': bounds}).flatten()

    def published(depth):
        return 65536 / (100 * depth + 1)

    low, high = published(8.0), published(1.0)
    expected = [(published(z) - low) / (high - low) for z in (0.5, 1.0, 8.0, 30.0)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert found[0] > 1 > found[1] - 1e-6
    assert found[3] < 0


def test_a_batch_without_depth_takes_the_range_of_the_recipe():
    empty = torch.full((1, 2, 2), math.nan)
    full = torch.tensor([[[0.5, 10.0]]])
    assert inverse_depth_range(empty, (0.5, 10.0)) == inverse_depth_range(full, (1.0, 2.0))
    low, high = inverse_depth_range(torch.full((1, 2, 2), 3.0), (0.5, 10.0))
    assert high > low


def test_normals_are_unit_vectors_and_edges_two_classes():
    raw = torch.randn(2, 3, 4, 4) * 5
    found = domain_map(NORMALS, raw, (4, 4), {})
    torch.testing.assert_close(found, raw / raw.square().sum(1, keepdim=True).sqrt())
    logit = torch.tensor([[[[0.0, 3.0]]]]).expand(1, 1, 2, 2)
    edges = domain_map(EDGES, logit, (2, 2), {})
    probability = 1 / (1 + math.exp(-3.0))
    assert edges[0, :, 0, 0].tolist() == pytest.approx([0.5, 0.5])
    assert edges[0, :, 1, 1].tolist() == pytest.approx(
        _slowly([probability, 1 - probability]), abs=1e-6
    )


@pytest.mark.parametrize('task', [SEMANTIC, DEPTH, NORMALS, EDGES], ids=lambda task: task.name)
def test_maps_have_the_channels_that_are_announced_and_pass_gradients(task):
    raw = torch.randn(2, task.channels, 3, 4, requires_grad=True)
    bounds = inverse_depth_range(torch.tensor([[[0.5, 5.0]]]), (0.2, 20.0))
    found = domain_map(task, raw, (6, 8), {'depth': bounds})
    assert found.shape == (2, map_channels(task), 6, 8)
    found.square().sum().backward()
    assert (raw.grad != 0).any(3).any(2).any(0).all()
