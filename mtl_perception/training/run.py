# SPDX-License-Identifier: Apache-2.0
"""A whole training run: from a recipe and labelled frames to a bundle with its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
import json
import logging
import os
from pathlib import Path
import time
from typing import Any
import warnings

import lightning as L
from lightning.pytorch.loggers import CSVLogger
import mtl_perception
from mtl_perception.files import atomic_write
from mtl_perception.manifest import Manifest
from mtl_perception.networks.build import build_network
from mtl_perception.networks.network import Network
from mtl_perception.training.callbacks import (
    AtomicCheckpoints,
    LAST_CHECKPOINT,
    LastCheckpoint,
    RunProgress,
    WeightAveraging,
)
from mtl_perception.training.data import (
    Frames,
    StepSampler,
    training_loader,
    TrainingFrames,
    validation_loader,
    ValidationFrames,
)
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.finish import finish, spread_batch
from mtl_perception.training.module import MultiTaskModule
from mtl_perception.training.picture_grid import PictureGrid
from mtl_perception.training.recipe import expand, IMAGENET, Recipe
from rich.console import Console
import torch
from torch import nn

RECIPE_FILE = 'recipe.json'


def _plain(recipe: Recipe) -> Any:
    return json.loads(json.dumps(recipe.to_json()))


def prepare_directory(recipe: Recipe, out: Path, *, resume: bool) -> Path | None:
    """
    Make the output directory and return the checkpoint to continue from, if any.

    Raises
    ------
    TrainingError
        If a run lies there and `resume` is not asked for, if there is none to resume, or if it
        was made with another recipe (how it is carried out may differ, what is learned not).

    """
    checkpoint = out / LAST_CHECKPOINT
    if not resume:
        if checkpoint.exists():
            msg = f'{out} holds a training run already; add --resume, or give another --out'
            raise TrainingError(msg)
        try:
            out.mkdir(parents=True, exist_ok=True)
            atomic_write(out / RECIPE_FILE, json.dumps(_plain(recipe), indent=2) + '\n')
        except OSError as error:
            msg = f'{out} cannot be written: {error.strerror}; give another --out'
            raise TrainingError(msg) from error
        return None
    if not checkpoint.exists():
        msg = f'{out} holds no {LAST_CHECKPOINT} to resume from; start without --resume'
        raise TrainingError(msg)
    before = json.loads((out / RECIPE_FILE).read_text(encoding='utf-8'))
    now = _plain(recipe)
    for section in ('tasks', 'auxiliary', 'network', 'optimiser', 'augmentation', 'loss'):
        if before.get(section) != now[section]:
            msg = (
                f'{out} was trained with another recipe: {section} was {before.get(section)}, is '
                f'{now[section]}; use the same recipe, or give another --out'
            )
            raise TrainingError(msg)
    return checkpoint


def make_network(recipe: Recipe) -> tuple[Network, Manifest]:
    """Build the network of a recipe, its backbone initialised, and the manifest it will have."""
    torch.manual_seed(recipe.loop.seed)
    part = recipe.network
    pretrained: bool | Path | None = None
    if part.pretrained == IMAGENET:
        pretrained = True
    elif part.pretrained is not None:
        pretrained = expand(part.pretrained, 'network.pretrained')
    tasks = recipe.task_list()
    network = build_network(
        part.system,
        tasks,
        backbone=part.backbone,
        auxiliary=recipe.auxiliary_list(),
        mode=part.mode,
        neck=part.neck,
        pretrained=pretrained,
    )
    manifest = Manifest(
        name=recipe.name,
        system=part.system,
        backbone=part.backbone,
        mode=part.mode,
        neck=tuple(network.encoder.neck_widths),
        tasks=tasks,
        auxiliary=network.auxiliary_tasks,
        network_size=part.size,
        label_scale=1.0 if min(part.size) < 480 else 0.5,
        reference_focal_px=part.reference_focal_px,
        depth_range_m=part.depth_range_m,
        description=recipe.description,
        limitations=recipe.limitations,
    )
    return network, manifest


def _trainer(
    recipe: Recipe, out: Path, callbacks: list[L.Callback], device: str, first_step: int
) -> L.Trainer:
    loop = recipe.loop
    return L.Trainer(
        accelerator=device,
        devices=1,
        precision='bf16-mixed' if loop.precision == 'bfloat16' else '32-true',
        max_steps=recipe.optimiser.steps,
        # The run is one epoch, so that a checkpoint at any step says where to resume.
        max_epochs=1,
        val_check_interval=min(loop.validate_every_steps, recipe.optimiser.steps),
        gradient_clip_val=recipe.optimiser.gradient_clip or None,
        # A resumed run starts its own file; the rows before stay where they are.
        logger=CSVLogger(out, name='log', version=f'from_step_{first_step:07d}'),
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


@dataclass(frozen=True)
class Fitted:
    """What a run learned."""

    network: nn.Module  # the averaged weights where the recipe averages
    manifest: Manifest  # without scores and provenance
    train_frames: ValidationFrames  # as they are, not varied
    held_out: ValidationFrames
    steps: int
    seconds: float  # since this process began or resumed the run


def fit(
    recipe: Recipe,
    train_frames: Frames,
    validation_frames: Frames,
    out: Path,
    *,
    resume: bool = False,
    device: str = 'cpu',
    callbacks: tuple[L.Callback, ...] = (),
) -> Fitted:
    """
    Train; `out` receives recipe.json, last.ckpt, log/ (CSV) and pictures/.

    :param resume: continue the run that lies in `out`
    :param device: 'cpu', 'cuda' or 'auto'

    Raises
    ------
    TrainingError
        If `out` does not fit `resume`, there are no frames, or the loss is not finite.

    """
    console = Console()
    # Its advice on loggers, GPUs and workers is not for the user of a recipe.
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    checkpoint = prepare_directory(recipe, out, resume=resume)
    loop, optimiser = recipe.loop, recipe.optimiser
    torch.set_num_threads(loop.threads or os.cpu_count() or 1)
    network, manifest = make_network(recipe)
    module = MultiTaskModule(network, manifest, recipe)
    dataset = TrainingFrames(train_frames, network.all_tasks, recipe)
    held_out = ValidationFrames(validation_frames, manifest.tasks, recipe.network)
    if not len(held_out):
        msg = 'there are no frames to validate on'
        raise TrainingError(msg)
    first_step = 0
    if checkpoint is not None:
        first_step = int(torch.load(checkpoint, weights_only=True)['global_step'])
    sampler = StepSampler(
        len(train_frames), optimiser.batch_size, optimiser.steps, loop.seed, first_step
    )
    trainer = _trainer(
        recipe,
        out,
        [
            WeightAveraging(),
            RunProgress(console),
            PictureGrid(out / 'pictures', spread_batch(held_out, loop.picture_rows)),
            LastCheckpoint(out, loop.checkpoint_every_steps),
            *callbacks,
        ],
        device,
        first_step,
    )
    console.print(
        f'{recipe.name}: {len(train_frames)} frames to train on, {len(held_out)} to validate, '
        f'{optimiser.steps} steps of {optimiser.batch_size}', highlight=False, soft_wrap=True,
    )
    began = time.monotonic()
    on_gpu = trainer.strategy.root_device.type == 'cuda'
    with warnings.catch_warnings():
        # Lightning advises more workers; the cores are the network's.
        warnings.filterwarnings('ignore', message='.*does not have many workers.*')
        warnings.filterwarnings('ignore', message='.*exists and is not empty.*')
        warnings.filterwarnings('ignore', message='.*isinstance.treespec, LeafSpec.*')
        trainer.fit(
            module,
            training_loader(dataset, sampler, recipe.data.workers, pin=on_gpu),
            validation_loader(held_out, optimiser.batch_size, loop.validation_frames),
            ckpt_path=checkpoint,
        )
    return Fitted(
        network=module.best_network.cpu(),
        manifest=manifest,
        train_frames=dataset.unaugmented(),
        held_out=held_out,
        steps=trainer.global_step,
        seconds=time.monotonic() - began,
    )


def train(
    recipe: Recipe,
    train_frames: Frames,
    validation_frames: Frames,
    out: Path,
    *,
    resume: bool = False,
    device: str = 'cpu',
    provenance: Mapping[str, Any] | None = None,
) -> Manifest:
    """
    Train (`fit`), then score and write scores.json and bundle/ into `out`.

    :param provenance: what the manifest should say of the data
    :returns: the manifest of the bundle

    Raises
    ------
    TrainingError
        As `fit`.

    """
    fitted = fit(recipe, train_frames, validation_frames, out, resume=resume, device=device)
    facts = {
        **(provenance or {}),
        'frames': {'train': len(fitted.train_frames), 'validation': len(fitted.held_out)},
        'steps': fitted.steps,
        'seconds': round(fitted.seconds),
        'date': datetime.now(timezone.utc).date().isoformat(),
        'versions': {
            'mtl_perception': mtl_perception.__version__,
            'torch': torch.__version__,
            'lightning': L.__version__,
        },
        'recipe': _plain(recipe),
    }
    manifest = replace(fitted.manifest, provenance=facts)
    return finish(fitted.network, manifest, fitted.train_frames, fitted.held_out, out)
