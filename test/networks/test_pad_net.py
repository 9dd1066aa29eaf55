# SPDX-License-Identifier: Apache-2.0
"""PAD-Net: published size, its mechanisms, its modes, and that it learns."""

from __future__ import annotations

from mtl_perception.networks import build_network, pad_net
from mtl_perception.networks.layers.gated_distillation import (
    GatedDistillation,
    TargetGatedDistillation,
)
from mtl_perception.tasks import Task
import pytest
import torch

DEPTH = Task('depth', 'depth')


def test_size_equals_the_released_model(classes, pascal):
    """Compare with counts of the released code (MTI-Net repository, HRNet-18)."""
    for tasks, expected in [([classes(40), DEPTH], 7.019), (pascal, 29.305)]:
        network = build_network('pad_net', tasks, mode='published', backbone='hrnet_w18_small_v2')
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        assert count == pytest.approx(expected, rel=5e-3)


def test_the_gate_is_the_receivers_or_as_released_the_senders(four_tasks):
    gates = {mode: build_network('pad_net', four_tasks, backbone='mobilenetv2_100', mode=mode)
             for mode in ('corrected', 'published')}
    assert isinstance(gates['corrected'].distillation, TargetGatedDistillation)
    assert isinstance(gates['published'].distillation, GatedDistillation)


@pytest.mark.parametrize('mode', ['corrected', 'published'])
def test_every_mechanism_matters(mode, four_tasks, randomise, monkeypatch):
    monkeypatch.setattr(pad_net, 'WIDTH', 32)
    network = randomise(
        build_network('pad_net', four_tasks, backbone='mobilenetv2_100', mode=mode).eval()
    )
    image = torch.randn(1, 3, 64, 64)
    mechanisms = ['fuse', 'initial.depth', 'distillation', 'distillation.messages.edges',
                  'refine.normals', 'predict.semantic']
    mechanisms += ['distillation.gates.depth'] if mode == 'corrected' else []
    intact = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        before = network(image).maps
        for mechanism in mechanisms:
            for parameter in network.get_submodule(mechanism).parameters():
                parameter.zero_()
            after = network(image).maps
            change = max((before[name] - after[name]).abs().max() for name in before)
            assert change > 1e-4, mechanism
            network.load_state_dict(intact)


def test_initial_predictions_are_supervised_while_training(classes):
    network = build_network('pad_net', [classes(5)], auxiliary=[DEPTH], backbone='mobilenetv2_100')
    outputs = network.train()(torch.randn(2, 3, 64, 64))
    assert list(outputs.maps) == ['semantic']
    assert [tuple(raw.shape) for raw in outputs.auxiliary[0].values()] == [
        (2, 5, 16, 16), (2, 1, 16, 16)
    ]
    assert network.eval()(torch.randn(1, 3, 64, 64)).auxiliary == ()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_overfits_four_frames(four_tasks, overfit, monkeypatch):
    # the same network, narrower, so that it learns within seconds
    monkeypatch.setattr(pad_net, 'WIDTH', 48)
    network = build_network('pad_net', four_tasks, backbone='mobilenetv2_100')
    scores = overfit(network, steps=60)
    assert scores['miou'] > 0.95, scores
    assert scores['abs_rel'] < 0.05, scores
    assert scores['degrees'] < 10, scores
