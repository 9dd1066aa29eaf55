# SPDX-License-Identifier: Apache-2.0
"""The discriminators have the published build, keys and losses."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.networks.outputs import Outputs  # noqa: E402
from mtl_perception.tasks import Task  # noqa: E402
from mtl_perception.training.adaptation.discriminators import (  # noqa: E402
    Discriminator,
    Discriminators,
    domain_loss,
    SOURCE,
    TARGET,
)
from mtl_perception.training.errors import TrainingError  # noqa: E402
from mtl_perception.training.recipe import (  # noqa: E402
    AdaptationRecipe,
    load_recipe,
    TargetRecipe,
)

CONFIG = Path(__file__).parents[3] / 'config' / 'train'
SIZE = (64, 96)


class TwoScales(torch.nn.Module):
    """Depth and edges, finally and at one inner scale, where there are normals as well."""

    def __init__(self):
        super().__init__()
        self.all_tasks = (
            Task('depth', 'depth'),
            Task('edges', 'edges', edge_meaning='depth_jumps'),
            Task('normals', 'normals'),
        )
        self.layer = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, image):
        raw = self.layer(image)
        inner = {'depth': raw[:, :1], 'edges': raw[:, 1:2], 'normals': raw[:, 2:]}
        return Outputs(
            {'depth': raw[:, 1:2], 'edges': raw[:, :1]}, (inner,) if self.training else ()
        )


def _recipe(**values):
    adaptation = AdaptationRecipe(TargetRecipe('nowhere', 'rosbag'), **values)
    recipe = load_recipe(CONFIG / 'rooms_small.yaml')
    return replace(recipe, network=replace(recipe.network, size=SIZE), adaptation=adaptation)


def test_five_convolutions_of_the_published_sizes():
    found = Discriminator(16)
    # 4x4 kernels and biases of 16 -> 64 -> 128 -> 256 -> 512 -> 1.
    widths = (16, 64, 128, 256, 512, 1)
    expected = sum(16 * a * b + b for a, b in pairwise(widths))
    assert sum(each.numel() for each in found.parameters()) == expected == 2_778_049
    assert found(torch.randn(2, 16, 64, 128)).shape == (2, 1, 2, 4)
    assert [layer.negative_slope for layer in found.layers[1::2]] == [0.2] * 4


def test_every_layer_has_spectral_norm_one():
    torch.manual_seed(0)
    found = Discriminator(2)
    for _ in range(40):  # each pass is one step of the power iteration
        found(torch.zeros(1, 2, 32, 32))
    found.eval()
    for layer in (found.layers[0], found.layers[2], found.layers[8]):
        values = np.linalg.svd(layer.weight.detach().flatten(1).numpy(), compute_uv=False)
        assert values[0] == pytest.approx(1, abs=0.03)


def test_half_of_the_batches_are_mirrored_as_a_whole():
    torch.manual_seed(1)
    found = Discriminator(1).eval()
    left, right = torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    left[..., :8] = right[..., -8:] = 1
    with torch.no_grad():
        plain = found.layers(left)
        mirrored = found.layers(right)
        answers = [found(left) for _ in range(40)]
    assert not torch.allclose(plain, mirrored)
    are_plain = [torch.allclose(answer, plain) for answer in answers]
    assert all(torch.allclose(a, plain if p else mirrored) for a, p in zip(answers, are_plain))
    assert 10 < sum(are_plain) < 30


def test_the_loss_is_the_cross_entropy_of_the_answer():
    logits = torch.randn(2, 1, 3, 4)
    for answer in (SOURCE, TARGET):
        total = 0.0
        for value in logits.flatten().tolist():
            target_probability = 1 / (1 + math.exp(-value))
            total -= math.log(target_probability if answer == TARGET else 1 - target_probability)
        found = domain_loss({'depth@final': logits}, answer)
        assert float(found['depth@final']) == pytest.approx(total / 24, rel=1e-5)


def test_there_is_one_for_every_task_and_scale_and_fooling_is_the_weighted_mean():
    every = Discriminators(TwoScales(), _recipe(weights={'depth': 0.02}))
    assert list(every.by_key) == [
        'depth@final', 'edges@final', 'depth@0', 'edges@0', 'normals@0'
    ]
    losses = {key: torch.tensor(float(n)) for n, key in enumerate(every.by_key, 1)}
    expected = (0.02 * 1 + 0.005 * 2 + 0.02 * 3 + 0.005 * 4 + 0.005 * 5) / 5
    assert float(every.fooling_loss(losses)) == pytest.approx(expected)
    final = Discriminators(TwoScales(), _recipe(auxiliary=False, weights={'edges': 0}))
    assert list(final.by_key) == ['depth@final']
    assert '0.005 x depth' in final.describe()


def test_they_see_each_scale_of_the_outputs_at_one_size():
    network = TwoScales()
    found = Discriminators(network, _recipe())
    outputs = network(torch.randn(2, 3, *SIZE))
    ranges = found.inverse_depths({'depth': torch.tensor([[[0.5, 5.0]]])})
    maps = found.domain_maps(outputs, SIZE, ranges)
    assert {key: tuple(each.shape) for key, each in maps.items()} == {
        'depth@final': (2, 1, *SIZE), 'edges@final': (2, 2, *SIZE), 'depth@0': (2, 1, *SIZE),
        'edges@0': (2, 2, *SIZE), 'normals@0': (2, 3, *SIZE),
    }
    assert not torch.equal(maps['depth@final'], maps['depth@0'])
    assert {key: tuple(each.shape) for key, each in found(maps).items()} == dict.fromkeys(
        maps, (2, 1, 2, 3)
    )


def test_looking_for_the_maps_leaves_the_network_as_it_was():
    network = TwoScales().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Discriminators(network, _recipe())
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_nothing_to_adapt_is_refused():
    with pytest.raises(TrainingError, match='every task has weight 0'):
        Discriminators(TwoScales(), _recipe(weights={'depth': 0, 'edges': 0, 'normals': 0}))
