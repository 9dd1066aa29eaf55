# SPDX-License-Identifier: Apache-2.0
"""The Lightning trainer that carries out a recipe: where it runs, how precisely, what it logs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from mtl_perception.training.callbacks import AtomicCheckpoints
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import Recipe
import torch

LOG_DIRECTORY = 'log'
TENSORBOARD_DIRECTORY = 'tensorboard'
_PRECISIONS = {'float32': '32-true', 'bfloat16': 'bf16-mixed', 'float16': '16-mixed'}


@dataclass(frozen=True)
class Machines:
    """Where to train: the kind of device, and the processes that share each batch."""

    device: str = 'auto'  # 'cpu', 'cuda' or 'auto'
    devices: int = 1  # processes on each machine, one a device
    nodes: int = 1  # machines

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == 'cuda' or (self.device == 'auto' and torch.cuda.is_available())

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return self.devices * self.nodes

    @classmethod
    def given(cls, device: str, devices: int | None, nodes: int | None) -> Machines:
        """Return what is asked for; what is not (None), as torchrun says, or one."""
        here = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
        everywhere = int(os.environ.get('WORLD_SIZE', here))
        return cls(device, devices or here, nodes or max(1, everywhere // here))


def is_first_process() -> bool:
    """Return whether this is the process that speaks: torchrun's, SLURM's or Lightning's first."""
    for name in ('RANK', 'SLURM_PROCID', 'LOCAL_RANK'):
        if name in os.environ:
            return int(os.environ[name]) == 0
    return True


def check_device(recipe: Recipe, on_gpu: bool) -> None:
    """
    Compare the precision of a recipe with the device it shall run on.

    Raises
    ------
    TrainingError
        If the device cannot train in that precision.

    """
    if recipe.loop.precision == 'float16' and not on_gpu:
        msg = (
            'loop.precision: float16 needs a GPU (its losses are scaled there); on a CPU use '
            'bfloat16 or float32'
        )
        raise TrainingError(msg)


def _loggers(out: Path, first_step: int) -> list[Any]:
    # A resumed run starts its own file; the rows before stay where they are.
    version = f'from_step_{first_step:07d}'
    loggers: list[Any] = [CSVLogger(out, name=LOG_DIRECTORY, version=version)]
    if find_spec('tensorboard') is not None:
        loggers.append(TensorBoardLogger(out, name=TENSORBOARD_DIRECTORY, version=version))
    return loggers


def _clip(recipe: Recipe) -> float | None:
    # Adaptation has two optimisers and clips by itself.
    return recipe.optimiser.gradient_clip or None if recipe.adaptation is None else None


def make_trainer(
    recipe: Recipe, out: Path, callbacks: list[L.Callback], machines: Machines, first_step: int
) -> L.Trainer:
    """
    Return the trainer of a recipe.

    Raises
    ------
    TrainingError
        As `check_device`.

    """
    check_device(recipe, machines.on_gpu)
    loop = recipe.loop
    strategy: Any = 'auto'
    if machines.processes > 1:
        # A head may have nothing to learn from a batch. Buffers go round before validation: the
        # shares of the validation frames differ in length, so no forward pass may wait.
        strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    return L.Trainer(
        accelerator=machines.device,
        devices=machines.devices,
        num_nodes=machines.nodes,
        strategy=strategy,
        sync_batchnorm=machines.on_gpu and machines.processes > 1,
        precision=_PRECISIONS[loop.precision],
        max_steps=recipe.optimiser.steps,
        # The run is one epoch, so that a checkpoint at any step says where to resume.
        max_epochs=1,
        val_check_interval=min(loop.validate_every_steps, recipe.optimiser.steps),
        gradient_clip_val=_clip(recipe),
        logger=_loggers(out, first_step),
        log_every_n_steps=min(10, loop.checkpoint_every_steps),
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=out,
        use_distributed_sampler=False,
    )
