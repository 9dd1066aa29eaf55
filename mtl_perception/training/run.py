# SPDX-License-Identifier: Apache-2.0
"""A whole training run: from a recipe and labelled frames to a bundle with its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
import logging
import os
from pathlib import Path
import time
from typing import Any
import warnings

import lightning as L
import mtl_perception
from mtl_perception.manifest import default_label_scale, load_manifest, Manifest
from mtl_perception.networks.build import build_network
from mtl_perception.networks.network import Network
from mtl_perception.training.adaptation.frames import domain_loader
from mtl_perception.training.adaptation.module import AdaptationModule
from mtl_perception.training.best import BEST_CHECKPOINT, BestCheckpoint
from mtl_perception.training.callbacks import LastCheckpoint, RunProgress, WeightAveraging
from mtl_perception.training.damage import DamagedFrames
from mtl_perception.training.data import TrainingFrames, ValidationFrames
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.failures import told_plainly
from mtl_perception.training.finish import finish, spread_batch
from mtl_perception.training.initial import initial_directory, start_from_bundle
from mtl_perception.training.loading import (
    Shard,
    StepSampler,
    training_loader,
    validation_loader,
)
from mtl_perception.training.module import MultiTaskModule
from mtl_perception.training.picture_grid import PictureGrid
from mtl_perception.training.reading import Frames
from mtl_perception.training.recipe import BEST, expand, IMAGENET, Recipe, SKIP
from mtl_perception.training.report import write_report
from mtl_perception.training.run_directory import plain_recipe, prepare_directory
from mtl_perception.training.trainer import (
    check_device,
    is_first_process,
    Machines,
    make_trainer,
)
from rich.console import Console
import torch
from torch import nn


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
    if part.initial is not None:
        initial = initial_directory(part.initial)
        matched = start_from_bundle(network, initial)
        Console().print(f'starting from {initial}: {matched}', highlight=False, soft_wrap=True)
    manifest = Manifest(
        name=recipe.name,
        system=part.system,
        backbone=part.backbone,
        mode=part.mode,
        neck=tuple(network.encoder.neck_widths),
        tasks=tasks,
        auxiliary=network.auxiliary_tasks,
        network_size=part.size,
        label_scale=part.label_scale or default_label_scale(part.size),
        reference_focal_px=part.reference_focal_px,
        depth_range_m=part.depth_range_m,
        mean=part.mean,
        std=part.std,
        description=recipe.description,
        limitations=recipe.limitations,
    )
    return network, manifest


@dataclass(frozen=True)
class Fitted:
    """What a run learned."""

    network: nn.Module  # the averaged weights where the recipe averages, on `device`
    manifest: Manifest  # without scores and provenance
    train_frames: ValidationFrames  # as they are, not varied
    held_out: ValidationFrames
    steps: int  # of these weights
    seconds: float  # since this process began or resumed the run
    device: torch.device  # where it was trained
    damaged: tuple[str, ...] = ()  # what was said of frames that were skipped


def fit(
    recipe: Recipe,
    train_frames: Frames,
    validation_frames: Frames,
    out: Path,
    *,
    resume: bool = False,
    device: str | Machines = 'cpu',
    callbacks: tuple[L.Callback, ...] = (),
    target_frames: Frames | None = None,
) -> Fitted:
    """
    Train; `out` receives recipe.json, last.ckpt, best.ckpt, pictures/, log/ (CSV), tensorboard/.

    :param resume: continue the run that lies in `out`
    :param device: 'cpu', 'cuda' or 'auto', or `Machines` where several processes share each batch
    :param target_frames: of the domain to adapt to, whose targets are not read; goes with
        `recipe.adaptation`

    Raises
    ------
    TrainingError
        If `out` does not fit `resume`, there are no frames, the loss is not finite, or nothing
        more can be written.
    DatasetError
        If a frame cannot be read and the recipe does not skip it.

    """
    console = Console(quiet=not is_first_process())
    machines = device if isinstance(device, Machines) else Machines(device)
    check_device(recipe, machines.on_gpu)
    # Its advice on loggers, GPUs and workers is not for the user of a recipe.
    logging.getLogger('lightning.pytorch').setLevel(logging.WARNING)
    checkpoint = prepare_directory(recipe, out, resume=resume)
    loop, optimiser = recipe.loop, recipe.optimiser
    torch.set_num_threads(loop.threads or os.cpu_count() or 1)
    network, manifest = make_network(recipe)
    dataset = TrainingFrames(train_frames, network.all_tasks, recipe)
    held_out = ValidationFrames(
        validation_frames, manifest.tasks, recipe.network, skips=recipe.data.corrupt == SKIP
    )
    if not len(held_out):
        msg = 'there are no frames to validate on'
        raise TrainingError(msg)
    first_step = 0
    if checkpoint is not None:
        first_step = int(torch.load(checkpoint, weights_only=True)['global_step'])
    best, damage = BestCheckpoint(out, loop.best_by), DamagedFrames(Console())
    trainer = make_trainer(
        recipe,
        out,
        [
            WeightAveraging(),
            RunProgress(console),
            PictureGrid(out / 'pictures', spread_batch(held_out, loop.picture_rows)),
            LastCheckpoint(out, loop.checkpoint_every_steps),
            best,
            damage,
            *callbacks,
        ],
        machines,
        first_step,
    )
    shard = Shard(trainer.global_rank, trainer.world_size)
    sampler = StepSampler(
        len(train_frames), optimiser.batch_size, optimiser.steps, loop.seed, first_step, shard
    )
    on_gpu = machines.on_gpu
    module: MultiTaskModule
    if recipe.adaptation is None:
        module = MultiTaskModule(network, manifest, recipe)
        loader = training_loader(dataset, sampler, recipe.data.workers, pin=on_gpu)
    else:
        module = AdaptationModule(network, manifest, recipe)
        loader = domain_loader(
            dataset, sampler, target_frames, recipe, first_step=first_step, pin=on_gpu
        )
    console.print(
        f'{recipe.name}: {len(train_frames)} frames to train on, {len(held_out)} to validate, '
        f'{optimiser.steps} steps of {optimiser.batch_size}', highlight=False, soft_wrap=True,
    )
    began = time.monotonic()
    with told_plainly(out), warnings.catch_warnings():
        # Lightning advises more workers; the cores are the network's.
        warnings.filterwarnings('ignore', message='.*does not have many workers.*')
        warnings.filterwarnings('ignore', message='.*exists and is not empty.*')
        warnings.filterwarnings('ignore', message='.*isinstance.treespec, LeafSpec.*')
        # Scores are the same in all processes, and so is what is unused.
        warnings.filterwarnings('ignore', message='.*sync_dist=True.*')
        warnings.filterwarnings('ignore', message='.*find_unused_parameters=True was spec.*')
        trainer.fit(
            module,
            loader,
            validation_loader(held_out, optimiser.batch_size, loop.validation_frames, shard),
            ckpt_path=checkpoint,
        )
        damage.leave_together()
    steps = trainer.global_step
    if loop.bundle_from == BEST and best.step is not None:
        kept = torch.load(out / BEST_CHECKPOINT, map_location='cpu', weights_only=True)
        module.load_state_dict(kept['state_dict'])
        steps = best.step
        text = f'taking the weights of step {steps}, the best validation'
        console.print(text, highlight=False, soft_wrap=True)
    # Lightning has taken the module off it.
    where = trainer.strategy.root_device
    return Fitted(
        network=module.averaged_network.to(where),
        manifest=manifest,
        train_frames=dataset.unaugmented(),
        held_out=held_out,
        steps=steps,
        seconds=time.monotonic() - began,
        device=where,
        damaged=tuple(damage.messages),
    )


def _origin(recipe: Recipe) -> dict[str, Any]:
    if recipe.network.initial is None:
        return {}
    before = load_manifest(initial_directory(recipe.network.initial))
    return {'started_from': {'name': before.name, 'provenance': before.provenance}}


def train(
    recipe: Recipe,
    train_frames: Frames,
    validation_frames: Frames,
    out: Path,
    *,
    resume: bool = False,
    device: str | Machines = 'cpu',
    provenance: Mapping[str, Any] | None = None,
    target_frames: Frames | None = None,
) -> Manifest:
    """
    Train (`fit`), then score and write scores.json, bundle/ and report.html into `out`.

    Of several processes only the first does so; the others return once the training is over.

    :param provenance: what the manifest should say of the data
    :param target_frames: as `fit`
    :returns: the manifest of the bundle

    Raises
    ------
    TrainingError
        As `fit`.

    """
    fitted = fit(
        recipe, train_frames, validation_frames, out, resume=resume, device=device,
        target_frames=target_frames,
    )
    facts = {
        **(provenance or {}),
        'frames': {
            'train': len(fitted.train_frames),
            'validation': len(fitted.held_out),
            **({'skipped': len(fitted.damaged)} if fitted.damaged else {}),
        },
        'steps': fitted.steps,
        **_origin(recipe),
        'seconds': round(fitted.seconds),
        'date': datetime.now(timezone.utc).date().isoformat(),
        'versions': {
            'mtl_perception': mtl_perception.__version__,
            'torch': torch.__version__,
            'lightning': L.__version__,
        },
        'recipe': plain_recipe(recipe),
    }
    manifest = replace(fitted.manifest, provenance=facts)
    if not is_first_process():
        return manifest
    with told_plainly(out):
        manifest = finish(
            fitted.network, manifest, fitted.train_frames, fitted.held_out, out, fitted.device
        )
        report = write_report(manifest, out)
    Console().print(f'report written to {report}', highlight=False, soft_wrap=True)
    return manifest
