# SPDX-License-Identifier: Apache-2.0
"""MTLSegFormer, our reading: its layers against slow references, and that it learns."""

from __future__ import annotations

from mtl_perception.networks import build_network, mtl_segformer, NetworkError
from mtl_perception.networks.layers.all_mlp import AllMLP
from mtl_perception.networks.layers.reduced_cross_attention import (
    block_means,
    ReducedCrossAttention,
)
from mtl_perception.networks.layers.resize import resize_like
from mtl_perception.tasks import Task
import numpy as np
import pytest
import torch


def test_all_mlp_equals_segformers_order_of_steps(randomise):
    """SegFormer enlarges and concatenates first and fuses then; the result is the same."""
    layer = randomise(AllMLP((3, 5, 6), 8).double().eval())
    levels = [torch.randn(1, width, height, height + 2, dtype=torch.float64)
              for width, height in ((3, 11), (5, 6), (6, 3))]
    embedded = [linear(level) for linear, level in zip(layer.linear, levels)]
    joined = torch.cat([resize_like(level, embedded[0]) for level in embedded], 1)
    weight = torch.cat([level.weight for level in layer.fuse.levels], 1)
    expected = layer.activate(torch.nn.functional.conv2d(joined, weight))
    torch.testing.assert_close(layer(levels), expected, rtol=0, atol=1e-9)


def test_all_mlp_has_segformers_size():
    """SegFormer-B0's head with two classes has 0.40 M weights."""
    count = sum(p.numel() for p in AllMLP((32, 64, 160, 256), 256).parameters())
    assert (count + 2 * 257) / 1e6 == pytest.approx(0.40, abs=0.005)


@pytest.mark.parametrize('size', [(8, 4), (7, 6)])
def test_attention_follows_its_formula(size, randomise):
    layer = randomise(ReducedCrossAttention(8, ('a', 'b'), heads=2).double())
    target = torch.randn(1, 8, *size, dtype=torch.float64)
    sources = {name: torch.randn(1, 8, *size, dtype=torch.float64) for name in ('a', 'b')}

    def point(convolution, x):
        weight = convolution.weight.detach().numpy()[:, :, 0, 0]
        return weight @ x + convolution.bias.detach().numpy()

    keys, values = [], []
    for name, source in sources.items():
        for row in range(0, size[0], 4):
            for column in range(0, size[1], 4):
                rows = np.clip(np.arange(row, row + 4), 0, size[0] - 1)  # the border repeats
                columns = np.clip(np.arange(column, column + 4), 0, size[1] - 1)
                block = source[0].numpy()[:, rows[:, None], columns]
                both = point(layer.key_value[name], block.mean((1, 2)))
                keys.append(both[:8])
                values.append(both[8:])
    key, value = np.array(keys), np.array(values)
    expected = np.empty((8, *size))
    for row, column in np.ndindex(size):
        query = point(layer.query, target[0].numpy()[:, row, column])
        found = np.empty(8)
        for part in (slice(0, 4), slice(4, 8)):
            weight = np.exp(key[:, part] @ query[part] / 2)
            found[part] = weight @ value[:, part] / weight.sum()
        expected[:, row, column] = point(layer.project, found)
    reduced = {name: block_means(source, 4) for name, source in sources.items()}
    np.testing.assert_allclose(layer(target, reduced)[0].detach().numpy(), expected, atol=1e-9)
    single = layer.float()(target.float(), {name: s.float() for name, s in reduced.items()})
    np.testing.assert_allclose(single[0].detach().numpy(), expected, atol=1e-5)


def test_attention_gradients_agree_with_finite_differences(randomise):
    layer = randomise(ReducedCrossAttention(4, ('a',), heads=2).double())
    inputs = [torch.randn(1, 4, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def attend(target, source):
        return layer(target, {'a': block_means(source, 2)})

    assert torch.autograd.gradcheck(attend, inputs, atol=1e-6)


def test_several_semantic_tasks_and_their_mechanisms(classes, randomise, monkeypatch):
    monkeypatch.setattr(mtl_segformer, 'WIDTH', 32)
    tasks = [classes(3, 'crop_rows'), classes(2, 'gaps')]
    network = build_network('mtl_segformer', tasks, backbone='mit_b0',
                            auxiliary=[Task('depth', 'depth')])
    randomise(network.eval())
    image = torch.randn(1, 3, 64, 96)
    attention = 'attention.crop_rows'
    mechanisms = ['own.gaps.linear', 'own.depth', attention, f'{attention}.query',
                  f'{attention}.key_value.depth', f'{attention}.project', 'combine.gaps',
                  'predict.crop_rows']
    intact = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        before = network(image).maps
        assert {name: raw.shape[1] for name, raw in before.items()} == {'crop_rows': 3, 'gaps': 2}
        for mechanism in mechanisms:
            for parameter in network.get_submodule(mechanism).parameters():
                parameter.zero_()
            after = network(image).maps
            change = max((before[name] - after[name]).abs().max() for name in before)
            assert change > 1e-6, mechanism
            network.load_state_dict(intact)


def test_there_is_no_released_code_to_follow(classes):
    with pytest.raises(NetworkError, match="'published' does not exist; use corrected"):
        build_network('mtl_segformer', [classes(3)], backbone='mit_b0', mode='published')


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_overfits_four_frames(four_tasks, overfit, monkeypatch):
    # the same network, narrower, so that it learns within seconds
    monkeypatch.setattr(mtl_segformer, 'WIDTH', 48)
    scores = overfit(build_network('mtl_segformer', four_tasks, backbone='mobilenetv2_100'), 70)
    assert scores['miou'] > 0.95, scores
    assert scores['abs_rel'] < 0.05, scores
    assert scores['degrees'] < 10, scores
