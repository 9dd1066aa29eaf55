# SPDX-License-Identifier: Apache-2.0
"""Each loss against its formula in plain numpy loops, with holes in the targets."""

from __future__ import annotations

import math

from mtl_perception.losses.task_loss import loss_for, LossError, LOSSES, task_loss
from mtl_perception.tasks import load_label_set, standard_tasks, Task
import numpy as np
import pytest
import torch
import torch.nn.functional as F

SEMANTIC, DEPTH, NORMALS, EDGES = standard_tasks('nyu13')
RNG = np.random.default_rng(3)
B, H, W = 2, 5, 7


def _pixels():
    return [(b, y, x) for b in range(B) for y in range(H) for x in range(W)]


def test_semantic_is_mean_negative_log_likelihood_of_labelled_pixels():
    raw = RNG.normal(size=(B, 13, H, W))
    target = RNG.integers(0, 13, (B, H, W)).astype(np.uint8)
    target[0, :2] = 255
    values = []
    for b, y, x in _pixels():
        if target[b, y, x] != 255:
            logits = raw[b, :, y, x]
            values.append(math.log(np.exp(logits).sum()) - logits[target[b, y, x]])
    loss = task_loss(SEMANTIC, torch.tensor(raw), torch.tensor(target))
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-5)


@pytest.mark.parametrize('name', ['l1', 'log_l1'])
def test_depth_is_a_mean_over_valid_pixels(name):
    raw = RNG.normal(size=(B, 1, H, W))
    target = RNG.uniform(0.3, 9, (B, H, W)).astype(np.float32)
    target[1, 2:] = np.nan
    values = []
    for b, y, x in _pixels():
        z = float(target[b, y, x])
        if not math.isnan(z):
            log_depth = raw[b, 0, y, x]
            error = math.exp(log_depth) - z if name == 'l1' else log_depth - math.log(z)
            values.append(abs(error))
    loss = task_loss(DEPTH, torch.tensor(raw), torch.tensor(target), name)
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-5)


def test_depth_slope_compares_neighbours_at_four_strides():
    """Plain loops over a map large enough for the longest stride, with holes."""
    height, width = 11, 19
    raw = RNG.normal(size=(1, 1, height, width))
    target = RNG.uniform(0.3, 9, (1, height, width)).astype(np.float32)
    target[0, 3, 2:8] = np.nan
    error = {
        (y, x): raw[0, 0, y, x] - math.log(target[0, y, x])
        for y in range(height) for x in range(width) if not math.isnan(target[0, y, x])
    }
    expected = np.mean([abs(each) for each in error.values()])
    for stride in (1, 2, 4, 8):
        for dy, dx in ((0, stride), (stride, 0)):
            steps = [
                abs(error[y + dy, x + dx] - error[y, x])
                for y in range(0, height, stride) for x in range(0, width, stride)
                if (y, x) in error and (y + dy, x + dx) in error
            ]
            expected += np.mean(steps)
    loss = task_loss(DEPTH, torch.tensor(raw), torch.tensor(target), 'log_gradient')
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('name', ['l1', 'cosine'])
def test_normals_compare_unit_vectors_of_valid_pixels(name):
    raw = RNG.normal(size=(B, 3, H, W)) * 5
    target = RNG.normal(size=(B, 3, H, W)).astype(np.float32)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    target[0, :, 1] = np.nan
    values = []
    for b, y, x in _pixels():
        n = target[b, :, y, x].astype(float)
        if not np.isnan(n).any():
            p = raw[b, :, y, x] / math.sqrt((raw[b, :, y, x] ** 2).sum())
            values.append(np.abs(p - n).mean() if name == 'l1' else 1 - (p * n).sum())
    loss = task_loss(NORMALS, torch.tensor(raw), torch.tensor(target), name)
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-5)


def test_edges_weigh_positives_and_negatives():
    raw = RNG.normal(size=(B, 1, H, W)) * 3
    target = (RNG.random((B, H, W)) < 0.2).astype(np.uint8)
    target[1, 0] = 255
    values = []
    for b, y, x in _pixels():
        if target[b, y, x] != 255:
            p = 1 / (1 + math.exp(-raw[b, 0, y, x]))
            values.append(
                -0.95 * math.log(p) if target[b, y, x] else -(1 - 0.95) * math.log(1 - p)
            )
    loss = task_loss(EDGES, torch.tensor(raw), torch.tensor(target))
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-5)


def test_edges_as_two_classes_with_weights():
    """PyTorch's own weighted cross-entropy; at zero logits ln 2, whatever the weights."""
    generator = torch.Generator().manual_seed(5)
    raw = 3 * torch.randn(B, 1, H, W, generator=generator)
    target = (torch.rand(B, H, W, generator=generator) < 0.2).to(torch.uint8)
    target[1, 0] = 255
    expected = F.cross_entropy(
        torch.cat((torch.zeros_like(raw), raw), 1), target.long(),
        weight=torch.tensor([0.05, 0.95]), ignore_index=255,
    )
    assert float(task_loss(EDGES, raw, target, 'balanced_mean')) == pytest.approx(float(expected))
    flat = task_loss(EDGES, torch.zeros_like(raw), target, 'balanced_mean')
    assert float(flat) == pytest.approx(math.log(2))


def _nothing_annotated(task):
    if task.kind == 'depth':
        return torch.full((B, H, W), math.nan)
    if task.kind == 'normals':
        return torch.full((B, 3, H, W), math.nan)
    return torch.full((B, H, W), 255, dtype=torch.uint8)


@pytest.mark.parametrize('task', [SEMANTIC, DEPTH, NORMALS, EDGES], ids=lambda task: task.name)
def test_nothing_annotated_gives_zero_with_a_finite_gradient(task):
    for name in LOSSES[task.kind]:
        raw = torch.randn(B, task.channels, H, W, requires_grad=True)
        loss = task_loss(task, raw, _nothing_annotated(task), name)
        assert float(loss.detach()) == 0.0
        loss.backward()
        assert torch.equal(raw.grad, torch.zeros_like(raw))


@pytest.mark.parametrize('task', [DEPTH, NORMALS], ids=lambda task: task.name)
def test_a_hole_does_not_poison_the_gradient(task):
    for name in LOSSES[task.kind]:
        raw = torch.randn(B, task.channels, H, W, requires_grad=True)
        target = _nothing_annotated(task)
        target[..., 0, 0] = 1.0
        task_loss(task, raw, target, name).backward()
        assert torch.isfinite(raw.grad).all()
        assert raw.grad[..., 0, 0].abs().sum() > 0
        assert raw.grad[..., 1:, 1:].abs().sum() == 0


def test_raw_maps_are_enlarged_with_half_pixel_centres():
    # A linear ramp stays a ramp away from the border; align_corners would change its slope.
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 4, 8)
    target = torch.exp((torch.arange(32.0) + 0.5) / 4 - 0.5).expand(1, 16, 32).clone()
    target[..., :2] = math.nan
    target[..., -2:] = math.nan
    assert float(task_loss(DEPTH, ramp, target, 'log_l1')) == pytest.approx(0, abs=1e-5)


def test_or_with_corners_that_meet():
    # A ramp over four pixels to seven: corners stay, and each step is halved.
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 3, 4)
    target = torch.exp(torch.arange(7.0) / 2).expand(1, 3, 7)
    assert float(task_loss(DEPTH, ramp, target, 'log_l1', align_corners=True)) < 1e-6
    assert float(task_loss(DEPTH, ramp, target, 'log_l1')) > 0.05


def test_bfloat16_maps_are_compared_in_single_precision():
    raw = torch.full((1, 1, 4, 4), 1.0, dtype=torch.bfloat16)
    target = torch.full((1, 4, 4), math.exp(1.001))
    assert float(task_loss(DEPTH, raw, target, 'log_l1')) == pytest.approx(0.001, rel=1e-3)


def test_unknown_loss_and_misshapen_target_are_refused():
    with pytest.raises(LossError, match=r"'huber'.*l1, log_l1"):
        loss_for(DEPTH, 'huber')
    with pytest.raises(LossError, match=r"'normals'.*\(2, 5, 7\).*\(B, 3, H, W\)"):
        task_loss(NORMALS, torch.zeros(B, 3, H, W), torch.zeros(B, H, W))


PARTS = Task('parts', 'parts', label_set=load_label_set('pascal_parts7'))
SALIENCY = Task('saliency', 'saliency')


def test_parts_are_classes_that_leave_255_out():
    raw = RNG.normal(size=(B, 7, H, W))
    target = RNG.integers(0, 7, (B, H, W)).astype(np.uint8)
    target[1, 1:] = 255
    values = []
    for b, y, x in _pixels():
        if target[b, y, x] != 255:
            logits = raw[b, :, y, x]
            values.append(math.log(np.exp(logits).sum()) - logits[target[b, y, x]])
    loss = task_loss(PARTS, torch.tensor(raw), torch.tensor(target))
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-5)


def test_saliency_weighs_by_the_share_of_the_other_side_in_the_batch():
    raw = RNG.normal(size=(B, 1, H, W))
    target = (RNG.random((B, H, W)) < 0.2).astype(np.uint8)
    target[0, :, 3] = 255
    known = [pixel for pixel in _pixels() if target[pixel] != 255]
    weight = np.mean([target[pixel] == 0 for pixel in known])
    values = []
    for b, y, x in known:
        p = 1 / (1 + math.exp(-raw[b, 0, y, x]))
        hit = target[b, y, x] == 1
        values.append(-weight * math.log(p) if hit else -(1 - weight) * math.log(1 - p))
    loss = task_loss(SALIENCY, torch.tensor(raw), torch.tensor(target))
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-5)


@pytest.mark.parametrize('task', [PARTS, SALIENCY], ids=lambda task: task.name)
def test_no_annotated_part_or_salient_pixel_gives_zero_with_a_gradient(task):
    raw = torch.randn(1, task.channels, 4, 4, requires_grad=True)
    loss = task_loss(task, raw, torch.full((1, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert float(loss.detach()) == 0
    assert raw.grad is not None
    assert not bool(raw.grad.any())


def test_inverse_berhu_is_linear_up_to_a_fifth_of_the_largest_error():
    raw = RNG.normal(size=(B, 1, H, W))
    target = RNG.uniform(0.5, 9, (B, H, W)).astype(np.float32)
    target[0, 3:] = np.nan
    errors = [
        abs(65536 / (100 * math.exp(raw[b, 0, y, x]) + 1) - 65536 / (100 * target[b, y, x] + 1))
        for b, y, x in _pixels()
        if not math.isnan(target[b, y, x])
    ]
    c = max(errors) / 5
    values = [r if r <= c else (r * r + c * c) / (2 * c) for r in errors]
    loss = task_loss(DEPTH, torch.tensor(raw), torch.tensor(target), 'inverse_berhu')
    assert float(loss) == pytest.approx(np.mean(values), rel=1e-4)
    # A perfect prediction has a gradient, and it is no NaN.
    perfect = torch.full((1, 1, 2, 2), 1.0, requires_grad=True)
    task_loss(DEPTH, perfect, torch.full((1, 2, 2), math.e), 'inverse_berhu').backward()
    assert perfect.grad is not None
    assert bool(torch.isfinite(perfect.grad).all())


def test_demt_counts_edge_pixels_by_four_fifths():
    raw = torch.zeros(1, 1, 2, 2)
    target = torch.tensor([[[1, 0], [0, 0]]])
    loss = task_loss(EDGES, raw, target, 'balanced_0.8')
    assert float(loss) == pytest.approx(math.log(2) * (0.8 + 3 * 0.2) / 4)
