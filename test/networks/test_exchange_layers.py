# SPDX-License-Identifier: Apache-2.0
"""Layers against slow references written from their formulas, in float64."""

from __future__ import annotations

from mtl_perception.networks.layers.basic_block import BasicBlock
from mtl_perception.networks.layers.bottleneck import Bottleneck
from mtl_perception.networks.layers.cross_task_attention import (
    CorrelationAttention,
    MultiTaskExchange,
)
from mtl_perception.networks.layers.feature_propagation import FeaturePropagation
from mtl_perception.networks.layers.gated_distillation import (
    GatedDistillation,
    TargetGatedDistillation,
)
from mtl_perception.networks.layers.neck import Neck
from mtl_perception.networks.layers.pyramid_projection import PyramidProjection
from mtl_perception.networks.layers.resize import resize_like
from mtl_perception.networks.layers.squeeze_excitation import SqueezeExcitation
import numpy as np
import pytest
import torch

NAMES = ('semantic', 'depth', 'edges')


def features(channels, names=NAMES, seed=5):
    """Return random features of one image for each task."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(1, channels, 6, 5, generator=generator, dtype=torch.float64)
        for name in names
    }


@pytest.mark.parametrize('block', [BasicBlock(6, 8), BasicBlock(8, 8), Bottleneck(6, 8)])
def test_residual_blocks_follow_their_formula(block, randomise, reference):
    block = randomise(block.double().eval())
    x = features(block.conv1.in_channels)['depth']
    expected = reference.residual(x[0].numpy(), block)
    np.testing.assert_allclose(block(x)[0].detach().numpy(), expected, atol=1e-9)


def gate_slowly(layer, x, reference):
    """Return the gate of each channel of (C, h, w) from its mean."""
    mean = x.mean((1, 2), keepdims=True)
    hidden = np.maximum(reference.convolution(mean, layer.squeeze), 0)
    return reference.sigmoid(reference.convolution(hidden, layer.excite))


@pytest.mark.parametrize('bias', [False, True])
def test_squeeze_excitation_follows_its_formula(bias, randomise, reference):
    layer = randomise(SqueezeExcitation(32, bias=bias).double())
    assert layer.squeeze.weight.shape[:2] == (2, 32)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 2 * 32 + bias * (2 + 32)
    x = features(32)['depth']
    expected = x[0].numpy() * gate_slowly(layer, x[0].numpy(), reference)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-9)


def test_gated_distillation_follows_its_formula(randomise, reference):
    # depth and semantic receive; edges is only a source
    layer = randomise(GatedDistillation(4, ('semantic', 'depth'), NAMES).double())
    inputs = features(4)
    outputs = layer(inputs)
    assert list(outputs) == ['semantic', 'depth']
    for target, output in outputs.items():
        expected = inputs[target][0].numpy().copy()
        for source in NAMES:
            if source == target:
                continue
            both = reference.convolution(inputs[source][0].numpy(), layer.messages[source])
            first = 8 * [t for t in ('semantic', 'depth') if t != source].index(target)
            message, gate = both[first : first + 4], both[first + 4 : first + 8]
            expected += message * reference.sigmoid(gate)
        np.testing.assert_allclose(output[0].detach().numpy(), expected, atol=1e-9)


def test_receiver_gated_distillation_follows_its_formula(randomise, reference):
    layer = randomise(TargetGatedDistillation(4, ('semantic', 'depth'), NAMES).double())
    inputs = features(4)
    outputs = layer(inputs)
    assert list(outputs) == ['semantic', 'depth']
    for target, output in outputs.items():
        own = inputs[target][0].numpy()
        gate = reference.sigmoid(reference.convolution(own, layer.gates[target]))
        expected = own.copy()
        for source in NAMES:
            if source == target:
                continue
            messages = reference.convolution(inputs[source][0].numpy(), layer.messages[source])
            first = 4 * [t for t in ('semantic', 'depth') if t != source].index(target)
            expected += gate * messages[first : first + 4]
        np.testing.assert_allclose(output[0].detach().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize('layer', [GatedDistillation, TargetGatedDistillation])
def test_a_lonely_task_hears_nothing(layer):
    inputs = features(4, ('depth',))
    outputs = layer(4, ('depth',), ('depth',)).double()(inputs)
    assert torch.equal(outputs['depth'], inputs['depth'])


def test_pyramid_projection_equals_one_convolution_over_the_concatenation(randomise):
    layer = randomise(PyramidProjection((3, 5, 6), 7).double())
    levels = [torch.randn(2, width, height, height + 2, dtype=torch.float64)
              for width, height in ((3, 11), (5, 6), (6, 3))]
    joined = torch.cat([resize_like(level, levels[0]) for level in levels], 1)
    weight = torch.cat([level.weight for level in layer.levels], 1)
    expected = torch.nn.functional.conv2d(joined, weight, layer.levels[0].bias)
    torch.testing.assert_close(layer(levels), expected, rtol=0, atol=1e-9)


def test_a_fresh_pyramid_projection_starts_as_one_convolution_over_the_concatenation():
    """PyTorch draws weights and bias of a convolution within 1 / sqrt(number of inputs)."""
    layer = PyramidProjection((4, 20, 40), 4000)
    bound = float(torch.nn.Conv2d(64, 4000, 1).bias.detach().abs().max())
    for values in (layer.levels[0].bias, *(level.weight for level in layer.levels)):
        assert float(values.detach().abs().max()) == pytest.approx(bound, rel=0.01)


@pytest.mark.parametrize('softmax_over', ['tasks', 'adjacent_channels'])
def test_feature_propagation_follows_its_formula(softmax_over, randomise, reference):
    channels, count = 8, len(NAMES)
    layer = randomise(FeaturePropagation(channels, NAMES, softmax_over).double().eval())
    inputs = features(channels)
    joined = np.concatenate([inputs[name][0].numpy() for name in NAMES])
    score = np.exp(reference.chain(joined, layer.mask))
    mask = np.zeros_like(score)
    for index in range(len(score)):
        if softmax_over == 'tasks':
            # the same channel of every task competes
            group = [task * channels + index % channels for task in range(count)]
        else:
            first = index // count * count
            group = list(range(first, first + count))
        mask[index] = score[index] / sum(score[member] for member in group)
    shared = reference.residual(joined * mask, layer.shared)
    for name, output in layer(inputs).items():
        # the released gates have biases, the paper's have none
        assert (layer.gates[name].excite.bias is None) == (softmax_over == 'tasks')
        gate = gate_slowly(layer.gates[name], shared, reference)
        expected = shared * gate + inputs[name][0].numpy()
        np.testing.assert_allclose(output[0].detach().numpy(), expected, atol=1e-9)


def test_neck_projects_each_pixel(randomise, reference):
    neck = randomise(Neck((6, 10), (3, 4)).double().eval())
    inputs = [features(6)['depth'], features(10)['depth']]
    for level, x, output in zip(neck.levels, inputs, neck(inputs)):
        expected = reference.chain(x[0].numpy(), level)
        np.testing.assert_allclose(output[0].detach().numpy(), expected, atol=1e-9)


def test_resizing_uses_half_pixel_centres():
    ramp = torch.arange(4.0, dtype=torch.float64).view(1, 1, 1, 4)
    wide = resize_like(ramp, torch.empty(1, 1, 1, 8))[0, 0, 0].numpy()
    positions = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    np.testing.assert_allclose(wide, positions, atol=1e-12)


@pytest.mark.parametrize('build', [
    lambda: (GatedDistillation(3, ('a', 'b'), ('a', 'b')), 3),
    lambda: (TargetGatedDistillation(3, ('a', 'b'), ('a', 'b')), 3),
    lambda: (FeaturePropagation(4, ('a', 'b')), 4),
])
def test_gradients_agree_with_finite_differences(build, randomise):
    layer, channels = build()
    layer = randomise(layer.double().eval())
    generator = torch.Generator().manual_seed(2)
    inputs = [
        torch.randn(1, channels, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(2)
    ]
    assert torch.autograd.gradcheck(
        lambda a, b: tuple(layer({'a': a, 'b': b}).values()), tuple(inputs), atol=1e-6
    )


@pytest.mark.parametrize('layer', [
    GatedDistillation(8, NAMES, NAMES), TargetGatedDistillation(8, NAMES, NAMES),
    FeaturePropagation(8, NAMES), FeaturePropagation(8, NAMES, 'adjacent_channels'),
    MultiTaskExchange(8, NAMES, NAMES, 4),
], ids=['sender_gate', 'receiver_gate', 'propagation', 'released_propagation', 'exchange'])
def test_single_precision_stays_close_to_double(layer, randomise):
    layer = randomise(layer.eval())
    inputs = features(8)
    with torch.no_grad():
        for module in layer.modules():
            if isinstance(module, CorrelationAttention):
                module.gate.normal_()
        single = layer({name: x.float() for name, x in inputs.items()})
        double = layer.double()(inputs)
    for name, output in double.items():
        np.testing.assert_allclose(single[name].numpy(), output.numpy(), atol=1e-5)
