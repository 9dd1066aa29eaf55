# SPDX-License-Identifier: Apache-2.0
"""DeMT: deformable sampling and attention against slow references, sizes, modes, learning."""

from __future__ import annotations

import math

from mtl_perception.networks import build_network, demt, NetworkError
from mtl_perception.networks.layers.deformable_mixer import (
    DeformableMixer,
    OffsetHead,
    ReleasedOffsetHead,
)
from mtl_perception.networks.layers.deformable_sampling import deformable_sample
from mtl_perception.networks.layers.task_attention import stack_tokens, TaskAttention
from mtl_perception.tasks import Task
import numpy as np
import pytest
import torch
from torch import nn

DEPTH = Task('depth', 'depth')


def sample_slowly(image, offset):
    """Read each channel at its shifted place, one pixel after the other; zeros outside."""
    channels, height, width = image.shape
    per_group = channels // (len(offset) // 2)
    result = np.zeros_like(image)
    for c, row, column in np.ndindex(image.shape):
        group = c // per_group
        y, z = row + offset[2 * group, row, column], column + offset[2 * group + 1, row, column]
        top, left = math.floor(y), math.floor(z)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            if 0 <= top + i < height and 0 <= left + j < width:
                share = abs(1 - i - (y - top)) * abs(1 - j - (z - left))
                result[c, row, column] += share * image[c, top + i, left + j]
    return result


def test_deformable_sampling_follows_its_formula():
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    offset = 3 * torch.randn(2, 4, 5, 7, dtype=torch.float64)
    sampled = deformable_sample(x, offset).numpy()
    for image in range(2):
        expected = sample_slowly(x[image].numpy(), offset[image].numpy())
        np.testing.assert_allclose(sampled[image], expected, atol=1e-9)
    single = deformable_sample(x.float(), offset.float())
    np.testing.assert_allclose(single.numpy(), sampled, atol=1e-5)


def test_deformable_sampling_equals_torchvision():
    ops = pytest.importorskip('torchvision.ops')
    x, offset = torch.randn(1, 6, 9, 8), 2 * torch.randn(1, 12, 9, 8)
    weight = torch.eye(6).view(6, 6, 1, 1)
    expected = ops.deform_conv2d(x, offset, weight)
    torch.testing.assert_close(deformable_sample(x, offset), expected, rtol=0, atol=1e-5)


def test_half_precision_features_are_sampled_at_precise_places():
    x = torch.linspace(0, 1, 160).expand(1, 4, 3, 160).contiguous()
    offset = torch.full((1, 2, 3, 160), 0.4)
    half = deformable_sample(x.bfloat16(), offset)
    assert half.dtype == torch.bfloat16
    exact = deformable_sample(x, offset)
    assert (half.float() - exact)[..., 1:-1].abs().max() < 0.01  # one step of bfloat16 near 1


def test_deformable_sampling_gradients_agree_with_finite_differences():
    x = torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    # away from whole pixels, where the bilinear weights have a kink
    fraction = 0.2 + 0.6 * torch.rand(1, 4, 3, 4, dtype=torch.float64)
    offset = (fraction + torch.randint(-1, 2, fraction.shape)).requires_grad_()
    assert torch.autograd.gradcheck(deformable_sample, (x, offset), atol=1e-6)


def test_the_mixer_follows_its_formula(randomise, reference):
    def gelu(value):
        return value * (1 + np.vectorize(math.erf)(value / np.sqrt(2))) / 2

    mixer = randomise(DeformableMixer(64).double().eval())
    x = torch.randn(1, 64, 5, 6, dtype=torch.float64)
    mixed = reference.norm(gelu(reference.convolution(x[0].numpy(), mixer.mix)), mixer.mix_norm)
    offset = reference.convolution(mixed, mixer.offsets.offset)
    moved = reference.convolution(sample_slowly(mixed, offset), mixer.deformed)
    expected = mixed + reference.norm(gelu(moved), mixer.deformed_norm)
    np.testing.assert_allclose(mixer(x)[0].detach().numpy(), expected, atol=1e-9)
    single = mixer.float()(x.float())[0].detach().numpy()
    np.testing.assert_allclose(single, expected, atol=1e-5 * np.abs(expected).max())


def test_the_released_offsets_follow_their_description(randomise, reference):
    head = randomise(ReleasedOffsetHead(8).double())
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    position = reference.convolution(x[0].numpy(), head.neighbourhood)
    for tap, (dy, dx) in enumerate((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
        for row, column in np.ndindex(4, 5):
            position[tap, row, column] += row + 1 + dy
            position[9 + tap, row, column] += column + 1 + dx
    padded = np.pad(position, ((0, 0), (1, 1), (1, 1)))
    weight, bias = head.offset.weight.detach().numpy(), head.offset.bias.detach().numpy()
    expected = np.empty((16, 4, 5))
    for out, row, column in np.ndindex(expected.shape):
        half = slice(0, 9) if out < 8 else slice(9, 18)
        window = padded[half, row : row + 3, column : column + 3]
        expected[out, row, column] = (weight[out] * window).sum() + bias[out]
    np.testing.assert_allclose(head(x)[0].detach().numpy(), expected, atol=1e-9)


def test_fresh_offsets_are_zero():
    assert not OffsetHead(64, 8)(torch.randn(1, 64, 4, 4)).any()


def attend_slowly(layer, queries, tokens):
    """Attend from (L, C) to (M, C) head by head in numpy, then Linear and LayerNorm."""
    def linear(part, x):
        return x @ part.weight.detach().numpy().T + part.bias.detach().numpy()

    query, key = linear(layer.query, queries), linear(layer.key, tokens)
    value = linear(layer.value, tokens)
    width = query.shape[1] // layer.heads
    heads = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        score = np.exp(query[:, part] @ key[:, part].T / np.sqrt(width))
        heads.append(score / score.sum(1, keepdims=True) @ value[:, part])
    mixed = linear(layer.mix, linear(layer.project, np.concatenate(heads, 1)))
    centred = mixed - mixed.mean(1, keepdims=True)
    unit = centred / np.sqrt(mixed.var(1, keepdims=True) + layer.norm.eps)
    return unit * layer.norm.weight.detach().numpy() + layer.norm.bias.detach().numpy()


def test_attention_at_each_pixel_follows_its_formula(randomise):
    layer = randomise(TaskAttention(16).double())
    maps = [torch.randn(2, 16, 2, 3, dtype=torch.float64) for _ in range(3)]
    tokens = stack_tokens(maps)
    found = layer.at_each_pixel(tokens[:, :, 1:2], tokens).detach().numpy()
    for image in range(2):
        for pixel in range(6):
            row, column = divmod(pixel, 3)
            here = np.stack([m[image, :, row, column].numpy() for m in maps])
            expected = attend_slowly(layer, here[1:2], here)
            np.testing.assert_allclose(found[image, pixel], expected, atol=1e-9)
    tokens = tokens.float()
    single = layer.float().at_each_pixel(tokens[:, :, 1:2], tokens).detach().numpy()
    np.testing.assert_allclose(single, found, atol=1e-5)


def test_attention_over_positions_follows_its_formula(randomise):
    layer = randomise(TaskAttention(16).double())
    queries = torch.randn(2, 5, 16, dtype=torch.float64)
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    found = layer.over_positions(queries, tokens).detach().numpy()
    for image in range(2):
        expected = attend_slowly(layer, queries[image].numpy(), tokens[image].numpy())
        np.testing.assert_allclose(found[image], expected, atol=1e-9)
    single = layer.float().over_positions(queries.float(), tokens.float()).detach().numpy()
    np.testing.assert_allclose(single, found, atol=1e-5)


def test_attention_gradients_agree_with_finite_differences(randomise):
    layer = randomise(TaskAttention(8, heads=2).double())
    tokens = torch.randn(1, 2, 3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda t: layer.at_each_pixel(t[:, :, :1], t), (tokens,), atol=1e-6
    )


def test_the_released_blocks_are_torch_attention_over_a_batch_of_one(randomise):
    """
    The released code feeds (batch, tokens, channels) to an attention that reads (length, batch).

    At batch size one its interaction block thus attends over one element, and its query block,
    whose longer key axis is folded, over the tokens of one pixel.
    """
    layer = randomise(TaskAttention(16).double())
    official = nn.MultiheadAttention(16, 4).double()
    official.in_proj_weight.data = torch.cat(
        [layer.query.weight, layer.key.weight, layer.value.weight])
    official.in_proj_bias.data = torch.cat([layer.query.bias, layer.key.bias, layer.value.bias])
    official.out_proj.load_state_dict(layer.project.state_dict())
    pixels, tasks = 5, 3
    tokens = torch.randn(1, pixels, tasks, 16, dtype=torch.float64)
    flat = tokens.transpose(1, 2).reshape(1, tasks * pixels, 16)  # task after task
    own, _ = official(flat, flat, flat)
    expected = layer.norm(layer.mix(own)).view(1, tasks, pixels, 16).transpose(1, 2)
    torch.testing.assert_close(layer.linear(tokens), expected)
    key = flat.view(tasks, pixels, 16)
    answer, _ = official(tokens[:, :, 0], key, key)
    expected = layer.norm(layer.mix(answer))
    torch.testing.assert_close(layer.at_each_pixel(tokens[:, :, :1], tokens)[:, :, 0], expected)


@pytest.mark.parametrize(('backbone', 'expected'), [
    ('swin_tiny', 32.070), ('hrnet_w18_small_v2', 6.748),
])
def test_size_equals_the_released_model(backbone, expected, classes):
    tasks = [classes(40), DEPTH, Task('normals', 'normals'),
             Task('edges', 'edges', edge_meaning='contours')]
    network = build_network('demt', tasks, backbone=backbone, mode='published')
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert count == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(('system', 'mode'), [
    ('demt', 'corrected'), ('demt', 'published'), ('demt_global', 'corrected'),
])
def test_every_mechanism_matters(system, mode, four_tasks, randomise, monkeypatch):
    monkeypatch.setattr(demt, 'WIDTH', 64)
    network = build_network(system, four_tasks, backbone='mobilenetv2_100', mode=mode)
    randomise(network.eval())
    image = torch.randn(1, 3, 64, 96)
    mechanisms = ['reduce', 'reduce_norm', 'mixers.depth.mix', 'mixers.depth.offsets',
                  'mixers.depth.deformed', 'interaction.value', 'interaction.project',
                  'interaction.mix', 'queries.edges.query', 'queries.edges.key',
                  'queries.edges.value', 'queries.edges.project', 'queries.edges.mix',
                  'heads.normals']
    if mode == 'published':
        mechanisms += ['mixers.depth.offsets.offset', 'mixers.depth.offsets.neighbourhood']
    else:
        mechanisms += ['interaction.query', 'interaction.key']
    intact = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        before = network(image).maps
        for mechanism in mechanisms:
            for parameter in network.get_submodule(mechanism).parameters():
                parameter.zero_()
            after = network(image).maps
            change = max((before[name] - after[name]).abs().max() for name in before)
            assert change > 1e-5, mechanism
            network.load_state_dict(intact)


@pytest.mark.parametrize(('system', 'mode'), [
    ('demt', 'corrected'), ('demt', 'published'), ('demt_global', 'corrected'),
])
def test_the_exchange_follows_its_formula(system, mode, four_tasks, randomise, monkeypatch):
    """Interaction between all tasks, then each task's query and what it asked with."""
    monkeypatch.setattr(demt, 'WIDTH', 32)
    tasks, size = four_tasks[:3], (9, 10)
    network = build_network(system, tasks, backbone='mobilenetv2_100', mode=mode)
    randomise(network.double().eval())
    mixed = {task.name: torch.randn(2, 32, *size, dtype=torch.float64) for task in tasks}
    found = network.exchange(mixed, ['depth', 'normals'])
    assert list(found) == ['depth', 'normals']
    own = network.interaction

    def alone(token):
        # what attention over a single token gives: its value
        return attend_slowly(own, token, token)

    def pooled(feature):
        # means of 8x8 blocks; the border is repeated until they are full
        rows, columns = (np.minimum(np.arange(-(-n // 8) * 8), n - 1) for n in size)
        whole = feature[:, rows[:, None], columns]
        blocks = whole.reshape(32, len(rows) // 8, 8, len(columns) // 8, 8).mean((2, 4))
        return blocks.reshape(32, -1).T

    for image in range(2):
        maps = [mixed[task.name][image].numpy() for task in tasks]
        if system == 'demt_global':
            reduced = np.concatenate([pooled(feature) for feature in maps])
            everywhere = attend_slowly(own, reduced, reduced)
        for name in ('depth', 'normals'):
            layer, result = network.queries[name], found[name][image].detach().numpy()
            for row, column in np.ndindex(size):
                here = np.stack([feature[:, row, column] for feature in maps])
                query = mixed[name][image, :, row, column].numpy()[None]
                if system == 'demt_global':
                    shared = everywhere
                elif mode == 'published':
                    shared = np.concatenate([alone(token[None]) for token in here])
                else:
                    shared = attend_slowly(own, here, here)
                expected = attend_slowly(layer, query, shared)[0] + query[0]
                np.testing.assert_allclose(result[:, row, column], expected, atol=1e-9)


def test_corrected_interaction_attends_where_the_released_one_is_linear(four_tasks, monkeypatch):
    monkeypatch.setattr(demt, 'WIDTH', 64)
    build = {mode: build_network('demt', four_tasks, backbone='mobilenetv2_100', mode=mode).eval()
             for mode in ('corrected', 'published')}
    build['published'].interaction.load_state_dict(build['corrected'].interaction.state_dict())
    build['published'].queries.load_state_dict(build['corrected'].queries.state_dict())
    mixed = {task.name: torch.randn(1, 64, 4, 4) for task in four_tasks}
    with torch.no_grad():
        maps = {mode: net.exchange(mixed, ['depth'])['depth'] for mode, net in build.items()}
    assert (maps['corrected'] - maps['published']).abs().max() > 1e-3


def test_per_pixel_attention_stays_at_its_pixel_and_the_global_one_does_not(
    four_tasks, monkeypatch
):
    monkeypatch.setattr(demt, 'WIDTH', 64)
    mixed = {task.name: torch.randn(1, 64, 16, 24) for task in four_tasks}
    moved = {name: feature.clone() for name, feature in mixed.items()}
    moved['edges'][:, :, 3, 5] += 1
    for system, everywhere in (('demt', False), ('demt_global', True)):
        network = build_network(system, four_tasks, backbone='mobilenetv2_100').eval()
        with torch.no_grad():
            before = network.exchange(mixed, ['depth'])['depth']
            change = (network.exchange(moved, ['depth'])['depth'] - before).abs().sum((0, 1))
        assert change[3, 5] > 1e-6
        change[3, 5] = 0
        assert bool((change > 1e-9).any()) == everywhere


def test_the_global_mode_has_no_released_code(four_tasks):
    with pytest.raises(NetworkError, match="'published' does not exist"):
        build_network('demt_global', four_tasks, backbone='mobilenetv2_100', mode='published')


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('system', ['demt', 'demt_global'])
def test_overfits_four_frames(system, four_tasks, overfit, monkeypatch):
    # the same network, narrower, so that it learns within seconds
    monkeypatch.setattr(demt, 'WIDTH', 64)
    scores = overfit(build_network(system, four_tasks, backbone='mobilenetv2_100'), steps=120)
    assert scores['miou'] > 0.95, scores
    assert scores['abs_rel'] < 0.05, scores
    assert scores['degrees'] < 10, scores
