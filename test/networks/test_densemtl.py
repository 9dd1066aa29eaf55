# SPDX-License-Identifier: Apache-2.0
"""DenseMTL: its exchange against slow references, sizes, modes, order, learning."""

from __future__ import annotations

import os
import subprocess
import sys

from mtl_perception.networks import build_network, densemtl
from mtl_perception.networks.layers.aspp import ASPP
from mtl_perception.networks.layers.cross_task_attention import (
    CorrelationAttention,
    MultiTaskExchange,
    PairExchange,
)
from mtl_perception.tasks import Task
import numpy as np
import pytest
import torch

NAMES = ('semantic', 'depth', 'normals')
NARROW = (8, 12, 12, 16, 16)


def correlate_slowly(layer, target, source, reference):
    """Ask, from each coarse pixel of the target, all pooled positions of the source."""
    _, height, width = target.shape
    scale = layer.scale
    rows, columns = -(-height // scale), -(-width // scale)
    asked = np.empty((target.shape[0], rows, columns))
    pooled = np.empty((source.shape[0], rows, columns))
    for row, column in np.ndindex(rows, columns):
        asked[:, row, column] = target[:, row * scale, column * scale]
        block = source[:, row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
        pooled[:, row, column] = block.max((1, 2))
    query = reference.chain(asked, layer.query)
    key, value = reference.chain(pooled, layer.key), reference.chain(pooled, layer.value)
    found = np.empty_like(target)
    for row, column in np.ndindex(height, width):
        score = np.einsum('c,chw->hw', query[:, row // scale, column // scale], key)
        weight = np.exp(score / np.sqrt(len(query)))
        answer = (value * weight).sum((1, 2)) / weight.sum()
        found[:, row, column] = answer * layer.gate.detach().numpy()[:, 0, 0]
    return found


def direct_slowly(pair, target, source, reference):
    """Return the directed feature of one ordered pair."""
    extracted = np.maximum(reference.convolution(source, pair.extract), 0)
    both = reference.convolution(extracted, pair.attend_self)
    half = len(both) // 2
    own = both[half:] * reference.sigmoid(both[:half])
    cross = correlate_slowly(pair.attend_cross, target, extracted, reference)
    return reference.chain(np.concatenate([own, cross]), pair.project)


@pytest.mark.parametrize('size', [(8, 8), (7, 10)])
def test_correlation_attention_follows_its_formula(size, randomise, reference):
    layer = randomise(CorrelationAttention(6, 4).double().eval())
    with torch.no_grad():
        layer.gate.normal_()
    target, source = torch.randn(2, 1, 6, *size, dtype=torch.float64)
    expected = correlate_slowly(layer, target[0].numpy(), source[0].numpy(), reference)
    np.testing.assert_allclose(layer(target, source)[0].detach().numpy(), expected, atol=1e-9)
    single = layer.float()(target.float(), source.float())[0].detach().numpy()
    np.testing.assert_allclose(single, expected, atol=1e-5)


def test_the_cross_task_path_is_silent_at_first():
    layer = CorrelationAttention(6, 4).eval()
    assert not layer(torch.randn(1, 6, 8, 8), torch.randn(1, 6, 8, 8)).any()


def test_the_directed_feature_follows_its_formula(randomise, reference):
    pair = randomise(PairExchange(6, 4).double().eval())
    with torch.no_grad():
        pair.attend_cross.gate.normal_()
    target, source = torch.randn(2, 1, 6, 8, 7, dtype=torch.float64)
    expected = direct_slowly(pair, target[0].numpy(), source[0].numpy(), reference)
    np.testing.assert_allclose(pair(target, source)[0].detach().numpy(), expected, atol=1e-9)
    single = pair.float()(target.float(), source.float())[0].detach().numpy()
    np.testing.assert_allclose(single, expected, atol=1e-5)


def test_the_exchange_follows_its_formula(randomise, reference):
    # normals is only a source
    exchange = randomise(MultiTaskExchange(6, NAMES[:2], NAMES, 4).double().eval())
    with torch.no_grad():
        for module in exchange.modules():
            if isinstance(module, CorrelationAttention):
                module.gate.normal_()
    features = {name: torch.randn(1, 6, 8, 4, dtype=torch.float64) for name in NAMES}
    outputs = exchange(features)
    assert list(outputs) == ['semantic', 'depth']
    for target, output in outputs.items():
        own = features[target][0].numpy()
        fused = np.zeros_like(own)
        for source, pair in exchange.pairs[target].items():
            directed = direct_slowly(pair, own, features[source][0].numpy(), reference)
            fused += reference.convolution(directed, exchange.fuse[target][source])
        assert list(exchange.pairs[target]) == [name for name in NAMES if name != target]
        expected = own + reference.chain(fused, exchange.activate[target])
        np.testing.assert_allclose(output[0].detach().numpy(), expected, atol=1e-9)


def test_exchange_gradients_agree_with_finite_differences(randomise):
    pair = randomise(PairExchange(4, 2).double().eval())
    with torch.no_grad():
        pair.attend_cross.gate.normal_()
    inputs = [torch.randn(1, 4, 4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(pair, inputs, atol=1e-6)


@pytest.mark.parametrize('pooled_norm', [True, False])
def test_aspp_follows_its_formula(pooled_norm, randomise, reference):
    layer = randomise(ASPP(4, 6, (1, 2), pooled_norm).double().eval())
    x = torch.randn(1, 4, 7, 5, dtype=torch.float64)
    value = x[0].numpy()
    mean = value.mean((1, 2), keepdims=True)
    whole = np.broadcast_to(reference.chain(mean, layer.pooled), (6, 7, 5))
    branches = [reference.chain(value, layer.point)]
    branches += [reference.chain(value, branch) for branch in layer.dilated]
    joined = np.concatenate([*branches, whole])
    expected = reference.chain(joined, layer.project[:3])
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-9)


def test_the_decoder_follows_its_plan(randomise, reference, monkeypatch):
    """ASPP, then at every level: reflect, convolve, ELU, repeat pixels, join the skip, again."""
    monkeypatch.setattr(densemtl, 'WIDTHS', (3, 4, 4, 5, 5))
    channels, strides = (2, 3, 4, 6), (2, 4, 8, 8)  # the last level dilated, not strided
    decoder = randomise(densemtl.Decoder(channels, strides, True).double().eval())
    sizes = ((13, 10), (7, 5), (4, 3), (4, 3))
    pyramid = [torch.randn(1, c, *size, dtype=torch.float64) for c, size in zip(channels, sizes)]

    def reflect(x, unit):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode='reflect')
        y = reference.convolution(padded, unit[0])[:, 1:-1, 1:-1]
        return np.where(y > 0, y, np.expm1(np.minimum(y, 0)))

    x = decoder.before[0](pyramid[3])[0].detach().numpy()
    for level, (index, doubles) in enumerate(((2, False), (1, True), (0, True))):
        if level:
            x = reflect(x, decoder.before[level])
        if doubles:
            height, width = sizes[index]
            x = x.repeat(2, 1).repeat(2, 2)[:, :height, :width]
        x = reflect(np.concatenate([x, pyramid[index][0].numpy()]), decoder.after[level])
    found = decoder(pyramid, (13, 10))[0].detach().numpy()
    np.testing.assert_allclose(found, x, atol=1e-9)


def test_size_equals_the_released_model(classes):
    """Compare with counts of the released DenseMTL code on ResNet-101."""
    tasks = [classes(40), Task('depth', 'depth'), Task('normals', 'normals'),
             Task('edges', 'edges', edge_meaning='contours')]
    for count, expected in ((2, 87.40), (3, 111.01), (4, 135.39)):
        network = build_network('densemtl', tasks[:count], backbone='resnet101', mode='published')
        millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        assert millions == pytest.approx(expected, rel=5e-3)


def test_one_exchange_has_the_published_size():
    """386304 weights per ordered pair and 256 per task, counted in the released code."""
    for count, expected in ((2, 773120), (3, 2318592), (4, 4636672)):
        names = ('semantic', 'depth', 'normals', 'edges')[:count]
        exchange = MultiTaskExchange(128, names, names, 4)
        assert sum(parameter.numel() for parameter in exchange.parameters()) == expected


@pytest.fixture
def narrow(monkeypatch):
    """Make the decoders narrow, so that a test takes seconds."""
    monkeypatch.setattr(densemtl, 'WIDTHS', NARROW)
    monkeypatch.setattr(densemtl, 'NECK_WITH_STEM', NARROW)


@pytest.mark.parametrize(('backbone', 'size'), [
    ('resnet18', (64, 96)), ('mobilenetv2_100', (75, 101)), ('mit_b0', (75, 101)),
])
def test_maps_have_the_size_of_the_image(backbone, size, narrow, four_tasks):
    network = build_network('densemtl', four_tasks, backbone=backbone).train()
    outputs = network(torch.randn(2, 3, *size))
    half = (-(-size[0] // 2), -(-size[1] // 2))
    for task in four_tasks:
        assert outputs.maps[task.name].shape == (2, task.channels, *size)
        assert outputs.auxiliary[0][task.name].shape == (2, task.channels, *half)


@pytest.mark.parametrize('mode', ['corrected', 'published'])
def test_every_mechanism_matters(mode, narrow, four_tasks, randomise):
    network = build_network('densemtl', four_tasks[:3], backbone='resnet18', mode=mode)
    randomise(network.eval())
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, CorrelationAttention):
                module.gate.normal_()
    image = torch.randn(1, 3, 64, 96)
    pair = 'exchange.pairs.depth.semantic'
    mechanisms = [
        'decoders.depth.before.0.dilated.1', 'decoders.depth.before.0.pooled',
        'decoders.depth.before.0.point', 'decoders.depth.before.0.project',
        'decoders.semantic.after.3', f'{pair}.extract', f'{pair}.attend_self',
        f'{pair}.attend_cross.query', f'{pair}.attend_cross.key',
        f'{pair}.attend_cross.value', f'{pair}.attend_cross', f'{pair}.project',
        'exchange.fuse.normals', 'exchange.activate.normals', 'refine_half.depth',
        'refine_full.depth',
    ]
    intact = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        before = network(image).maps
        for mechanism in mechanisms:
            for parameter in network.get_submodule(mechanism).parameters():
                parameter.zero_()
            after = network(image).maps
            change = max((before[name] - after[name]).abs().max() for name in before)
            assert change > 1e-6, mechanism
            network.load_state_dict(intact)


def test_one_image_is_a_batch_to_train_on(narrow, four_tasks):
    image = torch.randn(1, 3, 64, 64)
    network = build_network('densemtl', four_tasks[:2], backbone='resnet18').train()
    assert network(image).maps['depth'].isfinite().all()
    released = build_network('densemtl', four_tasks[:2], backbone='resnet18', mode='published')
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        released.train()(image)


HASH_PROBE = """
import torch
from mtl_perception.networks import build_network, densemtl, SYSTEMS
from mtl_perception.tasks import standard_tasks
densemtl.WIDTHS = densemtl.NECK_WITH_STEM = (8, 12, 12, 16, 16)
for system in SYSTEMS:
    torch.manual_seed(0)
    tasks = standard_tasks('rooms')[: 1 if system == 'single_task' else 4]
    network = build_network(system, tasks, backbone='mobilenetv2_100').eval()
    with torch.no_grad():
        maps = network(torch.ones(1, 3, 64, 64)).maps
    print(system, list(network.state_dict())[-1], [float(m.double().sum()) for m in maps.values()])
"""


@pytest.mark.slow
def test_the_hash_seed_changes_no_system():
    def run(seed):
        environment = {**os.environ, 'PYTHONHASHSEED': seed, 'OMP_NUM_THREADS': '1'}
        return subprocess.run([sys.executable, '-c', HASH_PROBE], env=environment, text=True,
                              check=True, capture_output=True).stdout

    first = run('1')
    assert first.count('\n') >= 8
    assert run('2') == first


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_overfits_four_frames(four_tasks, overfit, monkeypatch):
    for name in ('WIDTHS', 'NECK_WITH_STEM'):
        monkeypatch.setattr(densemtl, name, (16, 24, 24, 32, 32))
    network = build_network('densemtl', four_tasks, backbone='mobilenetv2_100')
    scores = overfit(network, steps=70, rate=6e-3)
    assert scores['miou'] > 0.95, scores
    assert scores['abs_rel'] < 0.05, scores
    assert scores['degrees'] < 10, scores
