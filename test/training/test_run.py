# SPDX-License-Identifier: Apache-2.0
"""A run learns, survives being stopped at any step, and ends in a bundle that works."""

from __future__ import annotations

import csv
from dataclasses import replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import lightning as L
from mtl_perception.bundle import verify_bundle
from mtl_perception.training.callbacks import AtomicCheckpoints
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.module import learning_rate_factor
from mtl_perception.training.recipe import (
    AugmentationRecipe,
    DataRecipe,
    LoopRecipe,
    LossRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
)
from mtl_perception.training.run import fit, make_network, train
from mtl_perception.training.run_directory import prepare_directory
from mtl_perception.training.task_recipe import TaskRecipe
import numpy as np
import pytest
import torch

TINY = Recipe(
    name='tiny',
    tasks='rooms',
    network=NetworkRecipe('mti_net', 'mobilenetv2_100', (64, 96), 80.0, neck=(8, 8, 8, 8)),
    data=DataRecipe('nowhere', workers=0),
    optimiser=OptimiserRecipe(
        steps=6, batch_size=2, learning_rate=2e-3, warmup_steps=2, average_decay=0.5
    ),
    augmentation=AugmentationRecipe(flip=0.5, zoom=(0.9, 1.3), photometric=0.5),
    loss=LossRecipe(kinds={'depth': 'log_l1'}, auxiliary_at='prediction'),
    loop=LoopRecipe(
        checkpoint_every_steps=2, validate_every_steps=4, threads=1, picture_rows=2
    ),
)


class Losses(L.Callback):
    """Notes every step's loss, and stops the run where asked."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.values: dict[int, float] = {}
        self._stop_at = stop_at

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.values[trainer.global_step] = float(outputs['loss'])
        if trainer.global_step == self._stop_at:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_overfits_four_frames_far_beyond_the_trivial_predictors(box_frames, tmp_path):
    recipe = replace(
        TINY,
        augmentation=AugmentationRecipe(flip=0.0),
        optimiser=replace(
            TINY.optimiser, steps=90, batch_size=4, learning_rate=4e-3, average_decay=0.8
        ),
        loop=replace(TINY.loop, checkpoint_every_steps=90, validate_every_steps=90),
    )
    frames = box_frames[:4]
    manifest = train(recipe, frames, frames, tmp_path)
    ours, mean = manifest.scores['this network'], manifest.scores['per-pixel training mean']
    assert ours['semantic.miou'] > 0.9 > mean['semantic.miou']
    assert ours['depth.abs_rel'] < 0.06 < mean['depth.abs_rel']
    assert ours['normals.mean_deg'] < 8 < mean['normals.mean_deg']
    assert ours['edges.f_best_tolerance'] > 0.9 > mean['edges.f_best_tolerance']
    assert manifest.provenance['steps'] == 90
    assert manifest.provenance['recipe']['network']['system'] == 'mti_net'
    assert json.loads((tmp_path / 'scores.json').read_text()) == manifest.to_json()['scores']
    assert verify_bundle(tmp_path / 'bundle').keys() == {'semantic', 'depth', 'normals', 'edges'}


@pytest.fixture(scope='module')
def uninterrupted(box_frames, tmp_path_factory):
    out, losses = tmp_path_factory.mktemp('whole'), Losses()
    fitted = fit(TINY, box_frames, box_frames[:3], out, callbacks=(losses,))
    return out, losses.values, fitted


@pytest.mark.parametrize(('stop_at', 'resumed_at'), [(3, 2), (5, 4)])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(
    box_frames, tmp_path, uninterrupted, stop_at, resumed_at
):
    _, expected, whole = uninterrupted
    recipe = replace(TINY, data=DataRecipe('nowhere', workers=stop_at // 5))
    first, second = Losses(stop_at), Losses()
    # Lightning turns the interrupt into an exit.
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(recipe, box_frames, box_frames[:3], tmp_path, callbacks=(first,))
    fitted = fit(recipe, box_frames, box_frames[:3], tmp_path, resume=True, callbacks=(second,))
    assert sorted(expected) == [1, 2, 3, 4, 5, 6]
    assert sorted(second.values) == list(range(resumed_at + 1, 7))
    assert first.values == pytest.approx({s: expected[s] for s in first.values}, rel=1e-6)
    assert second.values == pytest.approx({s: expected[s] for s in second.values}, rel=1e-6)
    ours, theirs = fitted.network.state_dict(), whole.network.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)


def test_every_step_sees_other_frames(box_frames, tmp_path):
    class Seen(L.Callback):
        def __init__(self):
            self.images = []

        def on_train_batch_start(self, trainer, module, batch, index):
            self.images.extend(batch.image)

    seen = Seen()
    recipe = replace(TINY, data=DataRecipe('nowhere', workers=1))
    fit(recipe, box_frames, box_frames[:1], tmp_path, callbacks=(seen,))
    assert len(seen.images) == 12
    assert len({image.numpy().tobytes() for image in seen.images}) == 12


def test_the_run_leaves_recipe_log_and_pictures(uninterrupted):
    out, losses, fitted = uninterrupted
    assert fitted.steps == 6
    assert json.loads((out / 'recipe.json').read_text())['optimiser']['steps'] == 6
    with (out / 'log' / 'from_step_0000000' / 'metrics.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    logged = {int(row['step']) + 1: float(row['loss']) for row in rows if row['loss']}
    assert logged == pytest.approx({step: losses[step] for step in logged}, rel=1e-5)
    assert {2, 4, 6} <= set(logged)
    assert any(row.get('validation/depth.abs_rel') for row in rows)
    assert (out / 'pictures' / 'step_0000004.png').stat().st_size > 1000


def test_tensorboard_shows_what_the_csv_holds(uninterrupted):
    accumulators = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    out, losses, _ = uninterrupted
    events = accumulators.EventAccumulator(str(out / 'tensorboard' / 'from_step_0000000'))
    events.Reload()
    shown = {event.step + 1: event.value for event in events.Scalars('loss')}
    assert {2, 4, 6} <= set(shown)
    assert shown == pytest.approx({step: losses[step] for step in shown}, rel=1e-5)
    assert 'validation/depth.abs_rel' in events.Tags()['scalars']


def test_the_checkpoint_is_plain_data_and_the_average_is_kept(uninterrupted):
    out, _, fitted = uninterrupted
    checkpoint = torch.load(out / 'last.ckpt', weights_only=True)
    assert checkpoint['global_step'] == 6
    state = fitted.network.state_dict()
    name = next(key for key in state if key.startswith('heads.depth'))
    average = checkpoint['state_dict'][f'average.module.{name}']
    assert torch.equal(state[name], average)
    assert not torch.equal(checkpoint['state_dict'][f'network.{name}'], average)


def test_out_and_resume_must_fit(box_frames, tmp_path, uninterrupted):
    out, _, _ = uninterrupted
    with pytest.raises(TrainingError, match=r'holds a training run already.*--resume'):
        fit(TINY, box_frames, box_frames, out)
    with pytest.raises(TrainingError, match=r'holds no last\.ckpt'):
        fit(TINY, box_frames, box_frames, tmp_path, resume=True)
    # A recipe that an older version wrote lacks the fields that came later.
    recipe = json.loads((out / 'recipe.json').read_text())
    del recipe['network']['initial'], recipe['optimiser']['epoch_steps'], recipe['loop']['seed']
    old = tmp_path / 'old'
    old.mkdir()
    (old / 'recipe.json').write_text(json.dumps(recipe))
    (old / 'last.ckpt').touch()
    assert prepare_directory(TINY, old, resume=True) == old / 'last.ckpt'
    other = replace(TINY, loss=LossRecipe())
    with pytest.raises(TrainingError, match='another recipe: loss was'):
        fit(other, box_frames, box_frames, out, resume=True)


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'loop': replace(TINY.loop, seed=7)}, r'loop\.seed was 0, is 7'),
        ({'data': replace(TINY.data, kind='nyud')}, r'data\.kind was rooms, is nyud'),
        ({'data': replace(TINY.data, train='other')}, r'data\.train was train, is other'),
        ({'data': replace(TINY.data, options={'a': 1})}, r"data\.options was {}, is {'a': 1}"),
    ],
)
def test_other_frames_or_another_seed_are_no_resumption(tmp_path, changed, message):
    prepare_directory(TINY, tmp_path, resume=False)
    (tmp_path / 'last.ckpt').touch()
    # How it is carried out, and where the data lie, may change.
    moved = replace(
        TINY, data=replace(TINY.data, root='elsewhere', workers=3, corrupt='skip'),
        loop=replace(TINY.loop, threads=2, precision='bfloat16'),
    )
    assert prepare_directory(moved, tmp_path, resume=True) == tmp_path / 'last.ckpt'
    with pytest.raises(TrainingError, match=f'another recipe: {message}'):
        prepare_directory(replace(TINY, **changed), tmp_path, resume=True)


@pytest.mark.parametrize(
    ('size', 'given', 'expected'),
    [((448, 576), None, 1.0), ((480, 640), None, 0.5), ((480, 640), 1.0, 1.0),
     ((64, 96), 0.5, 0.5)],
)
def test_labels_are_as_large_as_the_recipe_says(size, given, expected):
    network = replace(TINY.network, size=size, label_scale=given)
    with torch.device('meta'):
        _, manifest = make_network(replace(TINY, network=network))
    assert manifest.label_size == (size[0] * expected, size[1] * expected)


def test_a_loss_that_is_not_finite_stops_with_the_frames_named(box_frames, tmp_path):
    class Poison(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_step == 2:
                with torch.no_grad():
                    next(module.network.parameters()).fill_(float('nan'))

    with pytest.raises(TrainingError, match=r'loss is nan at step 2 .*frames: box_\d, box_\d'):
        fit(TINY, box_frames, box_frames, tmp_path, callbacks=(Poison(),))
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 2


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / 'last.ckpt'
    plugin = AtomicCheckpoints()
    plugin.save_checkpoint({'step': 1}, path)

    def full_disk(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full_disk)
    with pytest.raises(OSError, match='No space'):
        plugin.save_checkpoint({'step': 2}, path)
    assert plugin.load_checkpoint(path) == {'step': 1}
    assert [each.name for each in tmp_path.iterdir()] == ['last.ckpt']


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    path = tmp_path / 'last.ckpt'
    torch.save({'global_step': Path('x')}, path)
    with pytest.raises(Exception, match=r'weights_only|Weights only'):
        AtomicCheckpoints().load_checkpoint(path)


def test_learning_rate_rises_and_falls_as_the_formula_says():
    recipe = OptimiserRecipe(steps=110, batch_size=1, learning_rate=1.0, warmup_steps=10)
    factors = [learning_rate_factor(step, recipe) for step in range(111)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(
        factors[10:], 0.5 + 0.5 * np.cos(np.pi * np.arange(101) / 100), atol=1e-12
    )


_KILLED = """
import importlib.util, sys
from pathlib import Path
folder = Path(sys.argv[1])
def load(name):
    spec = importlib.util.spec_from_file_location(name, folder / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
scenes, here = load('conftest'), load('test_run')
frames = [scenes.make_box_frame(seed) for seed in range(8)]
class Announce(here.L.Callback):
    def on_train_batch_end(self, trainer, *_):
        print('STEP', trainer.global_step, flush=True)
here.fit(here.TINY, frames, frames[:3], Path(sys.argv[2]), callbacks=(Announce(),))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_is_resumed_to_the_same_end(box_frames, tmp_path, uninterrupted):
    _, expected, _ = uninterrupted
    arguments = [sys.executable, '-c', _KILLED, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('STEP 3'):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    losses = Losses()
    fitted = fit(TINY, box_frames, box_frames[:3], tmp_path, resume=True, callbacks=(losses,))
    first = min(losses.values)
    assert first in (3, 5)  # the kill may come just before or after a checkpoint
    for step, value in losses.values.items():
        assert value == pytest.approx(expected[step], rel=1e-6)
    assert fitted.steps == 6


def test_auxiliary_tasks_and_learned_balancing_take_part_in_a_run(box_frames, tmp_path):
    recipe = replace(
        TINY,
        tasks=(TaskRecipe('depth', 'depth'),),
        auxiliary=(
            TaskRecipe('normals', 'normals'),
            TaskRecipe('edges', 'edges', edge_meaning='label_borders'),
        ),
        loss=LossRecipe(balancing='uncertainty', auxiliary_at='prediction'),
        optimiser=replace(TINY.optimiser, name='adam', schedule='poly', steps=2, warmup_steps=0),
    )
    fitted = fit(recipe, box_frames, box_frames[:2], tmp_path)
    assert [task.name for task in fitted.manifest.tasks] == ['depth']
    assert [task.name for task in fitted.manifest.auxiliary] == ['normals', 'edges']
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    learned = {
        name.rpartition('.')[2]: float(value)
        for name, value in state.items()
        if 'log_variances' in name
    }
    # Each has seen its target: Adam's first steps are as long as the learning rate.
    assert set(learned) == {'depth', 'normals', 'edges'}
    assert all(abs(value) > 1e-3 for value in learned.values())
