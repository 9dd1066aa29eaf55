# SPDX-License-Identifier: Apache-2.0
"""The three parts of a step reach the right parameters, and adaptation does what it is for."""

from __future__ import annotations

import copy
from dataclasses import replace
import math
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.manifest import Manifest  # noqa: E402
from mtl_perception.networks.outputs import Outputs  # noqa: E402
from mtl_perception.training.adaptation import discriminators  # noqa: E402
from mtl_perception.training.adaptation.frames import DomainBatch  # noqa: E402
from mtl_perception.training.adaptation.module import AdaptationModule  # noqa: E402
from mtl_perception.training.data import Batch  # noqa: E402
from mtl_perception.training.errors import TrainingError  # noqa: E402
from mtl_perception.training.recipe import (  # noqa: E402
    AdaptationRecipe,
    DataRecipe,
    LossRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
    TargetRecipe,
)
from mtl_perception.training.task_recipe import TaskRecipe  # noqa: E402

SIZE = (32, 64)


class Mixture(torch.nn.Module):
    """Depth and normals of each pixel from its colour, and an auxiliary depth."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = self.all_tasks = tuple(tasks)
        self.encoder = torch.nn.Module()
        self.encoder.backbone = torch.nn.Conv2d(3, 4, 1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.heads = torch.nn.ModuleDict(
            {task.name: torch.nn.Conv2d(4, task.channels, 1) for task in self.tasks}
        )

    def forward(self, image):
        features = self.norm(self.encoder.backbone(image))
        maps = {name: head(features) for name, head in self.heads.items()}
        inner = {name: each[..., ::2, ::2] for name, each in maps.items()}
        return Outputs(maps, (inner,) if self.training else ())


def _recipe(tasks=('depth', 'normals'), weights=None, **plan):
    return Recipe(
        name='toy',
        tasks=tuple(TaskRecipe(name, name) for name in tasks),
        network=NetworkRecipe('multi_task', 'mobilenetv2_100', SIZE, 60.0),
        data=DataRecipe('nowhere'),
        optimiser=OptimiserRecipe(**{
            'steps': 100, 'batch_size': 2, 'learning_rate': 1e-2, 'name': 'adam',
            'weight_decay': 0, 'schedule': 'constant', 'gradient_clip': 0, **plan,
        }),
        loss=LossRecipe(kinds={'depth': 'log_l1'}),
        adaptation=AdaptationRecipe(
            TargetRecipe('nowhere', 'rosbag'), weights=weights or {}, learning_rate=1e-3
        ),
    )


class StandIn:
    """What a module asks of its trainer."""

    world_size, global_rank, global_step = 1, 0, 0


def _module(recipe, network=None):
    manifest = Manifest(
        name='toy', system='multi_task', backbone='mobilenetv2_100', tasks=recipe.task_list(),
        network_size=SIZE, reference_focal_px=60.0, depth_range_m=(0.2, 20.0),
    )
    module = AdaptationModule(network or Mixture(recipe.task_list()), manifest, recipe)
    # What Lightning does for these when there is one precision and one device.
    module.stand_in = StandIn()  # Lightning keeps only a weak reference
    module.trainer = module.stand_in
    module.manual_backward = lambda loss: loss.backward()
    module.log = lambda *_, **__: None
    return module.train()


def _frames(frames, shift=0):
    images = [np.clip(each.image[8:40, 8:72].astype(int) + shift, 0, 255) for each in frames]
    targets = {
        'depth': torch.stack([torch.from_numpy(f.targets['depth'][8:40, 8:72]) for f in frames]),
        'normals': torch.stack([
            torch.from_numpy(f.targets['normals'][8:40, 8:72].transpose(2, 0, 1).copy())
            for f in frames
        ]),
    }
    image = torch.from_numpy(np.stack(images).astype(np.uint8))
    return Batch(image, torch.ones(len(frames)), targets, [each.name for each in frames])


@pytest.fixture
def batch(box_frames):
    target = replace(_frames(box_frames[2:4], shift=40), targets={})
    return DomainBatch(_frames(box_frames[:2]), target)


def _gradients(module):
    return {
        name: None if each.grad is None else each.grad.clone()
        for name, each in module.named_parameters()
    }


def test_each_part_of_the_step_gives_gradients_to_its_own_parameters(batch):
    module = _module(_recipe())
    before = {name: each.detach().clone() for name, each in module.named_parameters()}
    _, source, target = module.learn_and_fool(batch)
    learned = _gradients(module.network)
    assert all(each is not None and (each != 0).any() for each in learned.values())
    assert set(_gradients(module.discriminators).values()) == {None}
    module.learn_to_tell_apart(batch, source, target)
    for name, each in _gradients(module.network).items():
        assert torch.equal(each, learned[name]), name
    told = _gradients(module.discriminators)
    assert all(each is not None and (each != 0).any() for each in told.values())
    # Nothing moves before both are done.
    assert all(torch.equal(each, before[name]) for name, each in module.named_parameters())


def test_the_networks_gradients_are_of_its_loss_and_of_the_wrong_answer(batch):
    """One sum of everything, written from the description, against the two backward passes."""
    recipe = _recipe(weights={'depth': 0.3})
    module = _module(recipe)
    network, judges = copy.deepcopy(module.network), copy.deepcopy(module.discriminators)
    torch.manual_seed(3)
    module.learn_and_fool(batch)

    torch.manual_seed(3)
    source = network(module.normalised(batch.source.image))
    supervised = module.criterion(source, batch.source.targets).total
    target = network(module.normalised(batch.target.image))
    nearest, farthest = (
        65536 / (100 * float(each) + 1)
        for each in (batch.source.targets['depth'].min(), batch.source.targets['depth'].max())
    )
    terms = []
    for scale, maps in (('final', target.maps), ('0', target.auxiliary[0])):
        for name, raw in maps.items():
            large = torch.nn.functional.interpolate(
                raw, SIZE, mode='bilinear', align_corners=True
            )
            if name == 'depth':
                inverse = 65536 / (100 * large.exp() + 1)
                seen = (inverse - farthest) / (nearest - farthest)
            else:
                seen = large / large.norm(dim=1, keepdim=True)
            logits = judges.by_key[f'{name}@{scale}'](seen)
            # -log of the probability of "source".
            terms.append({'depth': 0.3, 'normals': 0.005}[name] * (1 + logits.exp()).log().mean())
    (supervised + sum(terms) / 4).backward()
    expected = _gradients(network)
    for name, each in _gradients(module.network).items():
        torch.testing.assert_close(each, expected[name], rtol=1e-3, atol=1e-6)


def _step(module, batch, optimisers):
    network_optimiser, discriminator_optimiser = optimisers
    module.optimizers = lambda: (
        network_optimiser, SimpleNamespace(
            optimizer=discriminator_optimiser, zero_grad=discriminator_optimiser.zero_grad
        )
    )
    module.lr_schedulers = lambda: []
    return module.training_step(batch, 0)


def test_optimisers_and_rates_are_the_published_ones():
    recipe = _recipe()
    recipe = replace(recipe, adaptation=replace(recipe.adaptation, learning_rate=1e-4))
    module = _module(recipe)
    (own, other), (_, schedule) = module.configure_optimizers()
    assert type(other) is torch.optim.Adam
    assert other.defaults['betas'] == (0.9, 0.99)
    assert {id(p) for g in other.param_groups for p in g['params']} == {
        id(each) for each in module.discriminators.parameters()
    }
    assert {id(p) for g in own.param_groups for p in g['params']} == {
        id(each) for each in module.network.parameters()
    }
    for step in range(3):
        assert other.param_groups[0]['lr'] == pytest.approx(1e-4 * (1 - step / 100) ** 0.9)
        other.step()
        schedule.step()


def test_gradients_are_clipped_and_both_parts_move(batch):
    module = _module(_recipe(gradient_clip=1e-3))
    clipped: list = []
    module.clip_gradients = lambda optimiser, **options: clipped.append((optimiser, options))
    (own, other), _ = module.configure_optimizers()
    before = {name: each.detach().clone() for name, each in module.named_parameters()}
    assert not _step(module, batch, (own, other)).requires_grad
    assert clipped == [
        (own, {'gradient_clip_val': 1e-3, 'gradient_clip_algorithm': 'norm'})
    ]
    unmoved = [n for n, each in module.named_parameters() if torch.equal(each, before[n])]
    assert not unmoved


def test_a_loss_that_is_not_finite_stops_before_anything_moves(batch):
    module = _module(_recipe())
    with torch.no_grad():
        module.discriminators.by_key['depth@0'].layers[-1].bias.fill_(float('nan'))
    optimisers, _ = module.configure_optimizers()
    before = {name: each.detach().clone() for name, each in module.network.named_parameters()}
    with pytest.raises(TrainingError, match=r'fooling the discriminators is nan.*box_0.*box_3'):
        _step(module, batch, optimisers)
    for name, each in module.network.named_parameters():
        assert torch.equal(each, before[name])


class TwoWays(torch.nn.Module):
    """Log-depth as a weighted sum of red and green; the source fits whatever the shares."""

    def __init__(self, tasks):
        super().__init__()
        self.tasks = self.all_tasks = tuple(tasks)
        self.encoder = torch.nn.Module()
        self.encoder.backbone = torch.nn.Identity()
        self.shares = torch.nn.Parameter(torch.tensor([0.5, 0.5]))

    def forward(self, image):
        return Outputs({'depth': (image[:, :2] * self.shares.view(1, 2, 1, 1)).sum(1)[:, None]})


def _two_ways(frames, shift):
    """Red and green are both log-depth; the target domain's red is shifted."""
    batch = _frames(frames)
    value = 128 + 60 * batch.targets['depth'].log()
    image = torch.stack((value + shift, value, torch.zeros_like(value)), -1).clamp(0, 255)
    return replace(batch, image=image.round().to(torch.uint8))


@pytest.mark.parametrize('weight', [1e-12, 0.03])
def test_adaptation_chooses_the_cue_that_both_domains_share(
    box_frames, weight, monkeypatch
):
    """
    Red and green explain the source alike, so its labels leave their shares as they were.

    Only green holds in the target domain. Without adaptation (a weight that changes nothing)
    the discriminator tells the domains by their depth; with it, red is given up.
    """
    # Narrow ones are as clever here, and quick.
    monkeypatch.setattr(discriminators, '_WIDTHS', (16, 32, 32, 32, 1))
    torch.manual_seed(0)
    recipe = _recipe(('depth',), {'depth': weight}, learning_rate=2e-2)
    module = _module(recipe, TwoWays(recipe.task_list()))
    # Pixels as the network sees them: log-depth.
    module._mean.fill_(128)
    module._std.fill_(60)
    optimisers, _ = module.configure_optimizers()
    batches = [
        DomainBatch(
            _two_ways(box_frames[i : i + 2], 0),
            replace(_two_ways(box_frames[i : i + 2], 40), targets={}),
        )
        for i in (0, 2, 4)
    ]
    told = []
    module.log = lambda name, value, **_: told.append(float(value)) if 'disc' in name else None
    for step in range(120):
        _step(module, batches[step % 3], optimisers)
    red, green = module.network.shares.tolist()
    truth = batches[0].source.targets['depth'].log()
    with torch.no_grad():
        found = module.network(module.normalised(batches[0].target.image)).maps['depth'][:, 0]
    error = float((found - truth).abs().mean())
    uncertainty = float(np.mean(told[-60:]))
    assert red + green == pytest.approx(1, abs=0.1)
    if weight < 1e-6:
        assert red == pytest.approx(0.5, abs=0.1)
        assert error == pytest.approx(0.5 * 40 / 60, abs=0.1)
        assert uncertainty < 0.2
    else:
        assert abs(red) < 0.15
        assert error < 0.12
        # ln 2 is that of tossing a coin.
        assert uncertainty == pytest.approx(math.log(2), abs=0.15)
