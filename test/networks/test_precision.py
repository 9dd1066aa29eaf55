# SPDX-License-Identifier: Apache-2.0
"""Half precision is left where it would ruin a result; double precision never."""

from __future__ import annotations

from mtl_perception.graph import PerceptionGraph
from mtl_perception.losses.task_loss import task_loss
from mtl_perception.manifest import Manifest
from mtl_perception.networks.decoding import (
    decode_depth,
    decode_normals,
    decode_probability,
    decode_semantic,
)
from mtl_perception.networks.layers.deformable_mixer import ReleasedOffsetHead
from mtl_perception.networks.layers.precision import promote
from mtl_perception.networks.outputs import Outputs
from mtl_perception.tasks import Task
import numpy as np
import pytest
import torch
from torch import nn

DEPTH = Task('depth', 'depth')


@pytest.mark.parametrize(('given', 'expected'), [
    (torch.float16, torch.float32), (torch.bfloat16, torch.float32),
    (torch.float32, torch.float32), (torch.float64, torch.float64),
])
def test_half_is_promoted_and_double_stays(given, expected):
    x = torch.ones(2, dtype=given)
    assert promote(x).dtype == expected
    assert (promote(x) is x) == (given == expected)


def test_decoders_keep_double_precision():
    raw = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    scale = torch.tensor([1.3])
    values = raw.numpy()
    np.testing.assert_allclose(
        decode_depth(raw, (1e-3, 1e3), scale)[0], np.exp(values[0, 0]) * float(scale), rtol=1e-12
    )
    np.testing.assert_allclose(
        decode_probability(raw)[0], 1 / (1 + np.exp(-values[0, 0])), rtol=1e-12
    )
    score = np.exp(values[0])
    np.testing.assert_allclose(
        decode_semantic(raw)[1][0], score.max(0) / score.sum(0), rtol=1e-12
    )
    turned = values[0] / np.array([1, 1, float(scale)])[:, None, None]
    np.testing.assert_allclose(
        decode_normals(raw, scale)[0], turned / np.linalg.norm(turned, axis=0), rtol=1e-12
    )


def test_losses_keep_double_precision():
    raw = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    target = torch.rand(1, 4, 4, dtype=torch.float64) + 1
    expected = np.abs(raw[:, 0].numpy() - np.log(target.numpy())).mean()
    assert float(task_loss(DEPTH, raw, target, 'log_l1')) == pytest.approx(expected, rel=1e-12)


def test_the_graph_enlarges_in_double_precision():
    class Ramp(nn.Module):
        def forward(self, image):
            ramp = torch.linspace(-1, 1, 16, dtype=torch.float64)
            return Outputs({'depth': ramp.expand(1, 1, 16, 16)})

    manifest = Manifest(
        name='ramp', system='multi_task', backbone='none', tasks=(DEPTH,), network_size=(64, 64),
        reference_focal_px=60.0, depth_range_m=(0.01, 100.0),
    )  # fmt: skip
    image = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    (depth,) = PerceptionGraph(Ramp(), manifest)(image, torch.ones(1))
    places = np.clip((np.arange(64) + 0.5) / 4 - 0.5, 0, 15)
    np.testing.assert_allclose(depth[0, 5], np.exp(places / 7.5 - 1), rtol=1e-12)


def test_released_offsets_are_single_precision_under_autocast():
    """Coordinates up to 300: bfloat16 would miss them by a whole pixel."""
    head = ReleasedOffsetHead(4).eval()
    nn.init.zeros_(head.neighbourhood.bias)
    x = torch.randn(1, 4, 3, 300)
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = head(x)
    with torch.no_grad():
        expected = head.double()(x.double())
    assert mixed.dtype == torch.float32
    np.testing.assert_allclose(mixed.numpy(), expected.numpy(), rtol=1e-5, atol=1e-3)
