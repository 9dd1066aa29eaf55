# SPDX-License-Identifier: Apache-2.0
"""Runs on two domains: from the recipes of the package and tiny trees to a bundle."""

from __future__ import annotations

import csv
from dataclasses import replace
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

import lightning as L  # noqa: E402
from mtl_perception.bundle import verify_bundle  # noqa: E402
from mtl_perception.datasets import synthia  # noqa: E402
from mtl_perception.training.adaptation import discriminators  # noqa: E402
from mtl_perception.training.adaptation.frames import (  # noqa: E402
    collate_domains,
    DomainFrames,
    DomainSampler,
    open_target,
)
from mtl_perception.training.command import main  # noqa: E402
from mtl_perception.training.data import TrainingFrames  # noqa: E402
from mtl_perception.training.dry_run import dry_run  # noqa: E402
from mtl_perception.training.errors import TrainingError  # noqa: E402
from mtl_perception.training.loading import StepSampler  # noqa: E402
from mtl_perception.training.recipe import load_recipe  # noqa: E402
from mtl_perception.training.run import fit, train  # noqa: E402
from mtl_perception.training.source import open_frames  # noqa: E402

CONFIG = Path(__file__).parents[3] / 'config' / 'train'
RECIPES = ('densemtl_uda_synthia_cityscapes', 'densemtl_uda_vkitti2_cityscapes')


def _tiny(name):
    """The recipe of the package on a small network and frames, for three steps."""
    recipe = load_recipe(CONFIG / f'{name}.yaml')
    return replace(
        recipe,
        network=replace(
            recipe.network, system='pad_net', backbone='mobilenetv2_100', neck=(8, 8, 8, 8),
            pretrained=None, size=(64, 128),
        ),
        data=replace(recipe.data, workers=0),
        optimiser=replace(
            recipe.optimiser, steps=3, batch_size=2, average_decay=0.5, gradient_clip=10.0
        ),
        loop=replace(
            recipe.loop, checkpoint_every_steps=1, validate_every_steps=3, threads=1,
            validation_frames=1, picture_rows=1,
        ),
    )


def _write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), values[..., ::-1] if values.ndim == 3 else values)


@pytest.fixture(scope='module')
def synthia_root(tmp_path_factory):
    """Three frames in the official layout, a hundredth of the official size."""
    root, generator = tmp_path_factory.mktemp('synthia'), np.random.default_rng(0)
    for number in range(3):
        name = f'{number:07d}.png'
        _write(root / 'RGB' / name, generator.integers(0, 256, (76, 128, 3), dtype=np.uint8))
        labels = np.where(np.arange(76)[:, None] < 38, 1, 3)  # sky over road
        _write(root / 'GT' / 'LABELS' / name, np.broadcast_to(labels, (76, 128)).astype(np.uint16))
        depth = np.linspace(6000, 500, 76)[:, None]  # centimetres
        _write(root / 'Depth' / name, np.broadcast_to(depth, (76, 128)).astype(np.uint16))
    with pytest.MonkeyPatch.context() as patch:
        # Narrow ones learn as well, in a tenth of the time.
        patch.setattr(discriminators, '_WIDTHS', (8, 16, 16, 16, 1))
        patch.setattr(synthia, '_SPLITS', {'all': range(3), 'val': range(1)})
        yield root


@pytest.fixture(scope='module')
def cityscapes(tmp_path_factory):
    """Two frames to train on that are bare images, and one to validate with labels."""
    root, generator = tmp_path_factory.mktemp('cityscapes'), np.random.default_rng(1)
    for split, count in (('train', 2), ('val', 1)):
        for number in range(count):
            stem = f'town_{number:06d}_000019'
            image = generator.integers(0, 256, (128, 256, 3), dtype=np.uint8)
            _write(root / 'leftImg8bit' / split / 'town' / f'{stem}_leftImg8bit.png', image)
    labels = np.full((128, 256), 7, np.uint8)
    labels[:64] = 23
    stem = 'town_000000_000019'
    _write(root / 'gtFine' / 'val' / 'town' / f'{stem}_gtFine_labelIds.png', labels)
    disparity = np.full((128, 256), 256 * 20 + 1, np.uint16)
    _write(root / 'disparity' / 'val' / 'town' / f'{stem}_disparity.png', disparity)
    camera = {
        'extrinsic': {'baseline': 0.2},
        'intrinsic': {'fx': 2262.0, 'fy': 2262.0, 'u0': 1096.0, 'v0': 513.0},
    }
    path = root / 'camera' / 'val' / 'town' / f'{stem}_camera.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(camera))
    return root


class Seen(L.Callback):
    """Notes every step's losses, and stops the run where asked."""

    def __init__(self, stop_at=None):
        self.values = {}
        self._stop_at = stop_at

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        metrics = trainer.callback_metrics
        self.values[trainer.global_step] = [
            float(outputs['loss']), float(metrics['loss/fooling']),
            float(metrics['discriminators/source']), float(metrics['discriminators/target']),
        ]
        if trainer.global_step == self._stop_at:
            raise KeyboardInterrupt


def _open(recipe, synthia_root, cityscapes):
    train_frames, _ = open_frames(recipe, synthia_root)
    target, validation = open_target(recipe, cityscapes)
    return train_frames, validation, target


@pytest.fixture(scope='module')
def whole(synthia_root, cityscapes, tmp_path_factory):
    recipe, out, seen = _tiny(RECIPES[0]), tmp_path_factory.mktemp('whole'), Seen()
    frames, validation, target = _open(recipe, synthia_root, cityscapes)
    fitted = fit(recipe, frames, validation, out, target_frames=target, callbacks=(seen,))
    return out, seen.values, fitted


def test_a_stopped_run_goes_on_with_the_same_curve_to_a_bundle(
    whole, synthia_root, cityscapes, tmp_path
):
    _, expected, uninterrupted = whole
    assert sorted(expected) == [1, 2, 3]
    recipe = _tiny(RECIPES[0])
    frames, validation, target = _open(recipe, synthia_root, cityscapes)
    # Lightning turns the interrupt into an exit.
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(recipe, frames, validation, tmp_path, target_frames=target, callbacks=(Seen(2),))
    manifest = train(
        recipe, frames, validation, tmp_path, resume=True, target_frames=target
    )
    checkpoint = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    assert checkpoint['global_step'] == 3 == manifest.provenance['steps']
    theirs = torch.load(whole[0] / 'last.ckpt', weights_only=True)
    # The network, its average, the discriminators, and what both optimisers remember.
    assert len(checkpoint['optimizer_states']) == len(checkpoint['lr_schedulers']) == 2
    assert any(name.startswith('discriminators.') for name in theirs['state_dict'])
    for name, value in theirs['state_dict'].items():
        torch.testing.assert_close(checkpoint['state_dict'][name], value, rtol=1e-4, atol=1e-6)
    state = uninterrupted.network.state_dict()
    assert {name.partition('.')[0] for name in state}.isdisjoint({'discriminators'})
    assert verify_bundle(tmp_path / 'bundle').keys() >= {'semantic', 'depth'}
    assert manifest.scores['this network']['semantic.miou'] is not None


def test_the_losses_of_every_step_are_logged_and_both_parts_learn(whole):
    out, losses, _ = whole
    with (out / 'log' / 'from_step_0000000' / 'metrics.csv').open() as stream:
        rows = [row for row in csv.DictReader(stream) if row['loss']]
    names = ('loss', 'loss/fooling', 'discriminators/source', 'discriminators/target')
    logged = [[float(row[name]) for name in names] for row in rows]
    assert len(logged) == 3
    for found, expected in zip(logged, losses.values()):
        assert found == pytest.approx(expected, rel=1e-5)
    assert len({tuple(each) for each in logged}) == 3


def test_labels_of_the_target_domain_are_never_opened(cityscapes):
    # There are none for the split to train on; the recipe still opens it.
    assert not (cityscapes / 'gtFine' / 'train').exists()
    target, validation = open_target(_tiny(RECIPES[0]), cityscapes)
    assert (len(target), target.tasks) == (2, ())
    assert target[0].targets == {}
    assert set(validation[0].targets) == {'semantic', 'depth'}


def test_pairs_are_drawn_apart_and_carry_no_labels_of_the_target(box_frames):
    recipe = load_recipe(CONFIG / 'rooms_kitchen_adaptation.yaml')
    recipe = replace(
        recipe,
        network=replace(recipe.network, size=(64, 96)),
        augmentation=replace(recipe.augmentation, early_size=(32, 64)),
        optimiser=replace(recipe.optimiser, steps=4, batch_size=2),
    )
    # Labels that no task could have: reading them would fail.
    spoilt = [
        replace(each, targets={**each.targets, 'semantic': np.full((72, 96), 200, np.uint8)})
        for each in box_frames[:3]
    ]
    pairs = DomainFrames(
        TrainingFrames(box_frames, recipe.task_list(), recipe), spoilt, recipe
    )
    source = StepSampler(8, 2, 4, recipe.loop.seed)
    keys = list(DomainSampler(source, 3, recipe))
    assert [[pair[0] for pair in batch] for batch in keys] == list(source)
    drawn = [pair[1][1] for batch in keys for pair in batch]
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    later = StepSampler(8, 2, 4, recipe.loop.seed, 2)
    assert list(DomainSampler(later, 3, recipe, 2)) == keys[2:]
    first, last = (collate_domains([pairs[key] for key in keys[n]]) for n in (0, 3))
    assert first.target.targets == {}
    assert set(first.source.targets) == {'semantic', 'depth', 'normals', 'edges'}
    # Both domains are small in the first half of the steps, and only then.
    for batch, size in ((first, (32, 64)), (last, (64, 96))):
        assert batch.source.image.shape == batch.target.image.shape == (2, *size, 3)


@pytest.mark.parametrize('name', RECIPES)
def test_the_published_settings(name):
    recipe = load_recipe(CONFIG / f'{name}.yaml')
    plan, part = recipe.optimiser, recipe.adaptation
    assert (plan.steps, plan.batch_size, plan.betas) == (90000, 2, (0.9, 0.98))
    assert plan.learning_rate * plan.backbone_factor == pytest.approx(1.5e-5)
    assert (plan.learning_rate, plan.schedule, plan.gradient_clip) == (2.5e-4, 'constant', 0)
    assert (part.learning_rate, part.betas, part.power) == (1e-4, (0.9, 0.99), 0.9)
    assert part.weights == {'semantic': 0.005, 'depth': 0.005}
    assert recipe.loss.weights == {'semantic': 50, 'depth': 1}
    assert recipe.task_list()[0].channels == (16 if 'synthia' in name else 8)
    built, missing = dry_run(recipe, Path('nowhere'), Path('elsewhere'))
    text = '\n'.join(built)
    assert '4 discriminators (semantic@final, depth@final, semantic@0, depth@0)' in text
    assert [line.partition(':')[0] for line in missing] == ['data', 'adaptation.target']
    assert 'Cityscapes at elsewhere: there is no such folder' in missing[1]


@pytest.mark.parametrize('name', RECIPES)
def test_enlarged_source_frames_fill_the_network_without_a_border(name):
    from mtl_perception.training.augmentation import augment
    from mtl_perception.values import Sample

    recipe = load_recipe(CONFIG / f'{name}.yaml')
    height, width = (760, 1280) if 'synthia' in name else (375, 1242)
    white = Sample(np.full((height, width, 3), 255, np.uint8), {}, None, 'white')
    for seed in range(3):
        found = augment(
            white, (), recipe.network.size, recipe.augmentation, np.random.default_rng(seed),
            (0, 0, 0),
        )
        assert (found.image == 255).all()


def test_the_command_needs_a_section_for_a_target(capsys, tmp_path):
    arguments = ['--config', str(CONFIG / 'rooms_small.yaml'), '--target', str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*arguments, '--dry-run'])
    assert 'has no section adaptation' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'weights': {'stairs': 1.0}}, r"adaptation\.weights: 'stairs' is not one of semantic"),
        ({'weights': {'depth': -1.0}}, r'weights\.depth: -1\.0 should not be negative'),
        ({'learning_rate': 0.0}, r'learning_rate: 0\.0 should be positive'),
    ],
)
def test_mistakes_in_the_section_are_named(change, message):
    recipe = load_recipe(CONFIG / f'{RECIPES[0]}.yaml')
    with pytest.raises(TrainingError, match=message):
        replace(recipe, adaptation=replace(recipe.adaptation, **change))


def test_a_single_task_twin_adapts_its_task_alone():
    twin = load_recipe(CONFIG / f'{RECIPES[0]}.yaml').single_task_twin('depth')
    assert twin.adaptation.weights == {'depth': 0.005}


def test_a_recipe_that_adapts_needs_target_frames(box_frames, tmp_path):
    with pytest.raises(TrainingError, match='adapts to a target domain'):
        fit(_tiny(RECIPES[0]), box_frames, box_frames[:1], tmp_path)
