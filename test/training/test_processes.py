# SPDX-License-Identifier: Apache-2.0
"""Two processes that share each batch learn what one learns, and score what one scores."""

from __future__ import annotations

import csv
from dataclasses import replace
import importlib.util
import multiprocessing
import os
from pathlib import Path
import runpy
import socket

import pytest

torch = pytest.importorskip('torch')
import lightning as L  # noqa: E402
from lightning.pytorch.strategies import ddp  # noqa: E402
from mtl_perception.training.errors import TrainingError  # noqa: E402
from mtl_perception.training.recipe import (  # noqa: E402
    AugmentationRecipe,
    DataRecipe,
    LoopRecipe,
    LossRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
)
from mtl_perception.training.run import fit, train  # noqa: E402
from mtl_perception.training.task_recipe import TaskRecipe  # noqa: E402
from mtl_perception.training.trainer import Machines  # noqa: E402
from torch import nn  # noqa: E402

# GPUs multiply with 10 bits of fraction; the order of sums differs.
TENSOR_CORES = 5e-3
RECIPE = Recipe(
    name='shared',
    tasks=(
        TaskRecipe('semantic', 'semantic', label_set='rooms'),
        TaskRecipe('depth', 'depth'),
        TaskRecipe('normals', 'normals'),
        TaskRecipe('edges', 'edges', edge_meaning='label_borders'),
    ),
    network=NetworkRecipe('multi_task', 'mobilenetv2_100', (48, 64), 60.0, neck=(8, 8, 8, 8)),
    data=DataRecipe('nowhere', workers=0),
    optimiser=OptimiserRecipe(
        steps=4, batch_size=4, learning_rate=1e-3, name='sgd', average_decay=0.5
    ),
    augmentation=AugmentationRecipe(flip=0.5),
    # Edges at a fixed weight: the other counts the edges of a process' own frames.
    loss=LossRecipe(kinds={'depth': 'log_l1', 'edges': 'balanced_0.8'}),
    loop=LoopRecipe(
        checkpoint_every_steps=1, validate_every_steps=4, threads=1, picture_rows=1
    ),
)


class FrozenStatistics(L.Callback):
    """Batch norm as it is when it is not learned: every process would count its own share."""

    def on_train_batch_start(self, trainer, module, batch, index):
        for part in module.network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()


def box_frames(count):
    path = Path(__file__).with_name('conftest.py')
    spec = importlib.util.spec_from_file_location('box_world', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [module.make_box_frame(seed, 64, 48) for seed in range(count)]


def run(out, device='cpu', *, frozen=True):
    frames = box_frames(9)
    callbacks = (FrozenStatistics(),) if frozen else ()
    # Five to validate: the processes' shares differ.
    return fit(RECIPE, frames, frames[:5], out, device=device, callbacks=callbacks)


if __name__ == 'process':
    # One of two, told so as torchrun tells it: `environment`, `device` and `out` come along.
    os.environ.update(environment)  # type: ignore[name-defined]  # noqa: F821
    where = device  # type: ignore[name-defined]  # noqa: F821
    if where == 'cuda':
        # NCCL refuses two processes on one GPU.
        ddp._get_default_process_group_backend_for_device = lambda _: 'gloo'
    machines = Machines.given(where, None, None)
    run(Path(out), machines, frozen=where == 'cpu')  # type: ignore[name-defined]  # noqa: F821


def logged(out):
    with (out / 'log' / 'from_step_0000000' / 'metrics.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    losses = {
        (int(row['step']), name): float(row[name])
        for row in rows for name in row if name.startswith('loss') and row[name]
    }
    scores = {
        name: float(row[name])
        for row in rows for name in row if name.startswith('validation/') and row[name]
    }
    return losses, scores


def start_two(out, device='cpu'):
    """Start two processes as torchrun does: on one machine, or for a GPU as if on two."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mtl_perception.training.run'])
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        place = {'LOCAL_RANK': str(rank), 'GROUP_RANK': '0', 'LOCAL_WORLD_SIZE': '2'}
        if device == 'cuda':
            place = {'LOCAL_RANK': '0', 'GROUP_RANK': str(rank), 'LOCAL_WORLD_SIZE': '1'}
        environment = {
            'RANK': str(rank), 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': str(port), 'TORCHELASTIC_RUN_ID': 'test', **place,
        }
        values = {'environment': environment, 'out': str(out), 'device': device}
        processes.append(
            context.Process(target=runpy.run_path, args=(__file__, values, 'process'))
        )
    for process in processes:
        process.start()
    return processes


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_have_the_losses_and_scores_of_one(tmp_path):
    processes = start_two(tmp_path / 'two')
    alone = run(tmp_path / 'one')
    for process in processes:
        process.join()
        assert process.exitcode == 0
    losses, scores = logged(tmp_path / 'two')
    expected_losses, expected_scores = logged(tmp_path / 'one')
    assert {step for step, _ in losses} == {0, 1, 2, 3}
    tasks = {task.name for task in RECIPE.task_list()}
    assert {name for _, name in losses} == {'loss', *(f'loss/{name}' for name in tasks)}
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert {
        'validation/semantic.miou', 'validation/depth.abs_rel', 'validation/normals.mean_deg',
        'validation/edges.f_best_tolerance',
    } <= set(scores)
    assert scores.keys() == expected_scores.keys()
    for name, expected in expected_scores.items():
        # A class or a step of 1/255 may tip over: one pixel of 15360.
        counted = name.startswith(('validation/semantic', 'validation/edges'))
        assert scores[name] == pytest.approx(expected, rel=1e-3 if counted else 1e-5), name
    state = torch.load(tmp_path / 'two' / 'last.ckpt', weights_only=True)['state_dict']
    for name, value in alone.network.state_dict().items():
        torch.testing.assert_close(
            state[f'average.module.{name}'], value, rtol=1e-4, atol=1e-6, msg=name
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_batch_norm_counts_the_frames_of_both_processes_on_a_gpu(tmp_path):
    """Here it learns its statistics: alone, each process would have those of its two frames."""
    processes = start_two(tmp_path / 'two', 'cuda')
    run(tmp_path / 'one', 'cuda', frozen=False)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    losses, scores = logged(tmp_path / 'two')
    expected_losses, expected_scores = logged(tmp_path / 'one')
    assert losses == pytest.approx(expected_losses, rel=TENSOR_CORES)
    assert scores['validation/depth.abs_rel'] == pytest.approx(
        expected_scores['validation/depth.abs_rel'], rel=2 * TENSOR_CORES
    )


def test_what_torchrun_says_is_believed_unless_told_otherwise(monkeypatch):
    for name in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
    assert Machines.given('cpu', None, None).processes == 1
    assert Machines.given('cpu', 4, 2).processes == 8
    monkeypatch.setenv('WORLD_SIZE', '8')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '4')
    assert Machines.given('cpu', None, None) == Machines('cpu', 4, 2)
    assert Machines.given('cpu', 1, 1).processes == 1


def test_half_precision_without_a_gpu_is_refused_before_anything_is_written(tmp_path):
    recipe = replace(RECIPE, loop=replace(RECIPE.loop, precision='float16'))
    frames = box_frames(1)
    with pytest.raises(TrainingError, match=r'float16 needs a GPU.*bfloat16 or float32'):
        train(recipe, frames, frames, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_compiled_run_keeps_its_names_and_losses(tmp_path, monkeypatch):
    """The compiler stands in for itself: what it is given is used, the state does not show it."""
    compiled = []

    class Compiled(nn.Module):
        def __init__(self, network):
            super().__init__()
            self._orig_mod = network

        def forward(self, image):
            compiled.append(image.shape)
            return self._orig_mod(image)

    monkeypatch.setattr(torch, 'compile', Compiled)
    recipe = replace(
        RECIPE, optimiser=replace(RECIPE.optimiser, steps=1),
        loop=replace(RECIPE.loop, compile=True, validate_every_steps=1),
    )
    frames = box_frames(4)
    fitted = fit(recipe, frames, frames[:1], tmp_path)
    assert compiled == [(4, 3, 48, 64)]
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    assert not any('_orig_mod' in name for name in state)
    assert {f'network.{name}' for name in fitted.network.state_dict()} <= set(state)
