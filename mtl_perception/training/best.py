# SPDX-License-Identifier: Apache-2.0
"""Which validation was the best so far, and the checkpoint that goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import math
from pathlib import Path
from typing import Any

import lightning as L
from mtl_perception.metrics.task_metric import HEADLINES
from mtl_perception.tasks import Task
import torch

BEST_CHECKPOINT = 'best.ckpt'
# A score of nothing (no pixel of any class right) still has a logarithm.
_FLOOR = 1e-6


def merit(
    scores: Mapping[str, float], tasks: Iterable[Task], best_by: str | None = None
) -> float | None:
    """
    Return one number for a validation, the higher the better; None if nothing was annotated.

    It is the mean over tasks of the logarithm of the headline score, negative where lower is
    better: a tenth less depth error counts as much as a tenth more mIoU, whatever their sizes,
    and no task decides because its first score was small.

    :param scores: by 'task.metric'
    :param best_by: a task that alone counts
    """
    logarithms = []
    for task in tasks:
        if best_by not in (None, task.name):
            continue
        key, higher_is_better = HEADLINES[task.kind]
        value = scores.get(f'{task.name}.{key}', math.nan)
        if math.isfinite(value):
            logarithm = math.log(max(value, _FLOOR))
            logarithms.append(logarithm if higher_is_better else -logarithm)
    return sum(logarithms) / len(logarithms) if logarithms else None


def validation_scores(trainer: L.Trainer) -> dict[str, float]:
    """Return what the last validation logged, by 'task.metric'."""
    return {
        name.removeprefix('validation/'): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith('validation/')
    }


class BestCheckpoint(L.Callback):
    """Keeps the state at the best validation as `best.ckpt`, its merit and step inside."""

    def __init__(self, directory: Path, best_by: str | None) -> None:
        self._path = directory / BEST_CHECKPOINT
        self._best_by = best_by
        self.value: float | None = None
        self.step: int | None = None

    def on_fit_start(self, trainer: L.Trainer, module: Any) -> None:
        """Ask the file that lies there: it may be newer than the checkpoint that is resumed."""
        if trainer.ckpt_path is None or not self._path.exists():
            return
        kept = torch.load(self._path, map_location='cpu', weights_only=True)
        self.load_state_dict(kept['callbacks'][self.state_key])

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Save if no validation was better."""
        value = merit(validation_scores(trainer), module.manifest.tasks, self._best_by)
        if value is not None and (self.value is None or value > self.value):
            self.value, self.step = value, trainer.global_step
            trainer.save_checkpoint(self._path)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint should remember."""
        return {'value': self.value, 'step': self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember again."""
        self.value, self.step = state['value'], state['step']
