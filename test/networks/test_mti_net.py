# SPDX-License-Identifier: Apache-2.0
"""MTI-Net: published size, its mechanisms, its modes, and that it learns."""

from __future__ import annotations

import re

from mtl_perception.networks import build_network
from mtl_perception.tasks import Task
import pytest
import torch

DEPTH, NORMALS = Task('depth', 'depth'), Task('normals', 'normals')
EDGES = Task('edges', 'edges', edge_meaning='contours')
MECHANISMS = [
    'encoder.neck.levels.0', 'encoder.neck.levels.3', 'initial.0', 'initial.3',
    'propagation.0', 'propagation.2', 'propagation.1.mask', 'propagation.1.shared',
    'propagation.1.gates',
    'distillation.0', 'distillation.3', 'distillation.1.messages.depth', 'heads.normals',
]


def small_net(tasks, mode='corrected', auxiliary=()):
    """Return a narrow MTI-Net on MobileNetV2."""
    return build_network('mti_net', tasks, backbone='mobilenetv2_100', mode=mode,
                         auxiliary=auxiliary, neck=(4, 6, 8, 16))


def millions(network):
    """Count parameters."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def test_size_equals_the_released_model(classes, pascal):
    """Compare with counts of the released code (MTI-Net repository, HRNet-18)."""
    nyud = [classes(40), DEPTH]
    for tasks, auxiliary, expected in [
        (nyud, [], 8.578), (nyud, [EDGES, NORMALS], 14.838), (pascal, [], 24.494),
    ]:
        network = build_network('mti_net', tasks, auxiliary=auxiliary, mode='published',
                                backbone='hrnet_w18_small_v2')
        assert millions(network) == pytest.approx(expected, abs=6e-4)


def test_corrected_and_published_share_weights_but_not_the_softmax(four_tasks, randomise):
    corrected = randomise(small_net(four_tasks).eval())
    published = small_net(four_tasks, 'published').eval()
    left_out = published.load_state_dict(corrected.state_dict(), strict=False)
    assert left_out.unexpected_keys == []
    # only the biases of the gates, which published mode has besides
    assert all(re.fullmatch(r'propagation\.\d\.gates\.\w+\.(squeeze|excite)\.bias', name)
               for name in left_out.missing_keys)
    assert len(left_out.missing_keys) == 3 * 4 * 2
    with torch.no_grad():
        for name in left_out.missing_keys:
            published.get_parameter(name).zero_()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        left, right = corrected(image).maps, published(image).maps
    assert all((left[name] - right[name]).abs().max() > 1e-4 for name in left)


@pytest.mark.parametrize('mode', ['corrected', 'published'])
@pytest.mark.parametrize('mechanism', MECHANISMS)
def test_every_mechanism_matters(mechanism, mode, four_tasks, randomise):
    network = randomise(small_net(four_tasks, mode).eval())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = network(image).maps
        for parameter in network.get_submodule(mechanism).parameters():
            parameter.zero_()
        after = network(image).maps
    assert max((before[name] - after[name]).abs().max() for name in before) > 1e-4


def test_auxiliary_tasks_are_supervised_inside_and_inform_the_main_task(classes, randomise):
    network = randomise(small_net([classes(5)], auxiliary=[DEPTH]))
    image = torch.randn(2, 3, 64, 64)
    outputs = network.train()(image)
    assert list(outputs.maps) == ['semantic']
    sizes = [tuple(scale['depth'].shape) for scale in outputs.auxiliary]
    assert sizes == [(2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4), (2, 1, 2, 2)]
    assert all(list(scale) == ['semantic', 'depth'] for scale in outputs.auxiliary)
    network.eval()
    with torch.no_grad():
        assert network(image).auxiliary == ()
        before = network(image).maps['semantic']
        for level in network.initial:
            for parameter in level.features['depth'].parameters():
                parameter.zero_()
        assert (network(image).maps['semantic'] - before).abs().max() > 1e-4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_overfits_four_frames(four_tasks, overfit):
    network = build_network('mti_net', four_tasks, backbone='mobilenetv2_100',
                            neck=(16, 24, 32, 48))
    scores = overfit(network, steps=80)
    assert scores['miou'] > 0.95, scores
    assert scores['abs_rel'] < 0.05, scores
    assert scores['degrees'] < 10, scores
