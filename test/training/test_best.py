# SPDX-License-Identifier: Apache-2.0
"""The best validation is found by a rule that no task's scale can bend."""

from __future__ import annotations

from dataclasses import replace
import math

import lightning as L
from mtl_perception.tasks import standard_tasks
from mtl_perception.training import best as best_module
from mtl_perception.training.best import BEST_CHECKPOINT, merit
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import (
    DataRecipe,
    LoopRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
)
from mtl_perception.training.run import fit
from mtl_perception.training.task_recipe import TaskRecipe
import pytest
import torch

TASKS = standard_tasks('rooms')
SCORES = {
    'semantic.miou': 0.4, 'depth.abs_rel': 0.2, 'normals.mean_deg': 20.0,
    'edges.f_best_tolerance': 0.5, 'depth.rmse': 9.0,
}


def test_merit_is_the_mean_log_of_headlines_with_their_signs():
    expected = (math.log(0.4) - math.log(0.2) - math.log(20) + math.log(0.5)) / 4
    assert merit(SCORES, TASKS) == pytest.approx(expected)
    # A tenth better counts the same in every task.
    gains = [
        merit({**SCORES, name: factor * SCORES[name]}, TASKS) - expected
        for name, factor in (
            ('semantic.miou', 1.1), ('depth.abs_rel', 1 / 1.1), ('normals.mean_deg', 1 / 1.1),
        )
    ]
    assert gains == pytest.approx([math.log(1.1) / 4] * 3)
    assert merit(SCORES, TASKS, 'depth') == pytest.approx(-math.log(0.2))
    assert merit({**SCORES, 'depth.abs_rel': math.nan}, TASKS, 'depth') is None
    assert math.isfinite(merit({**SCORES, 'semantic.miou': 0.0}, TASKS))


RECIPE = Recipe(
    name='tiny',
    tasks=(TaskRecipe('depth', 'depth'),),
    network=NetworkRecipe('single_task', 'mobilenetv2_100', (48, 64), 60.0, neck=(8, 8, 8, 8)),
    data=DataRecipe('nowhere', workers=0),
    optimiser=OptimiserRecipe(steps=6, batch_size=2, learning_rate=1e-3),
    loop=LoopRecipe(
        checkpoint_every_steps=1, validate_every_steps=1, threads=1, picture_rows=1,
        best_by='depth', bundle_from='best',
    ),
)


class _Stop(L.Callback):
    def __init__(self, at):
        self._at = at

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self._at:
            raise KeyboardInterrupt


def _given_merits(monkeypatch, values):
    """Let the validation after step n be worth values[n - 1]; return the weights of each step."""
    given, weights = iter(values), {}
    real = best_module.BestCheckpoint.on_validation_end

    def validation_end(self, trainer, module):
        state = module.averaged_network.state_dict()
        weights[trainer.global_step] = {key: each.clone() for key, each in state.items()}
        real(self, trainer, module)

    monkeypatch.setattr(best_module, 'merit', lambda *_: next(given))
    monkeypatch.setattr(best_module.BestCheckpoint, 'on_validation_end', validation_end)
    return weights


def test_the_best_weights_are_kept_across_a_resume_and_bundled(
    box_frames, tmp_path, monkeypatch
):
    weights = _given_merits(monkeypatch, [1.0, 5.0, 2.0, 3.0, 4.0, 4.5])
    # Stopped after the validation of step 2: last.ckpt was written before it.
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(RECIPE, box_frames[:2], box_frames[:1], tmp_path, callbacks=(_Stop(2),))
    fitted = fit(RECIPE, box_frames[:2], box_frames[:1], tmp_path, resume=True)
    kept = torch.load(tmp_path / BEST_CHECKPOINT, weights_only=True)
    assert kept['global_step'] == 2
    assert fitted.steps == 2
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 6
    for name, value in fitted.network.state_dict().items():
        assert torch.equal(value, weights[2][name]), name
    assert any(
        not torch.equal(value, weights[6][name])
        for name, value in fitted.network.state_dict().items()
    )


def test_an_unknown_task_to_judge_by_is_refused():
    with pytest.raises(TrainingError, match=r"loop\.best_by: 'colour' is not one of depth"):
        replace(RECIPE, loop=replace(RECIPE.loop, best_by='colour'))
    with pytest.raises(TrainingError, match=r"bundle_from: 'first'"):
        replace(RECIPE.loop, bundle_from='first')
