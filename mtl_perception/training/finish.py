# SPDX-License-Identifier: Apache-2.0
"""The end of a run: the scores beside those of what does not look, pictures, the bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtl_perception.bundle import save_bundle
from mtl_perception.files import write_json
from mtl_perception.graph import PerceptionGraph
from mtl_perception.manifest import Manifest
from mtl_perception.pictures import write_png
from mtl_perception.training.data import Batch, collate, ValidationFrames
from mtl_perception.training.loading import validation_loader
from mtl_perception.training.picture_grid import prediction_grid
from mtl_perception.training.scoring import describe, finished_maps, rounded, score, TrainingMean
import numpy as np
from rich.console import Console
import torch
from torch import nn

SCORES_FILE = 'scores.json'
BUNDLE_DIRECTORY = 'bundle'
# Enough frames for a stable mean; each costs a few milliseconds.
_MEAN_FRAMES = 400


def spread_batch(frames: ValidationFrames, count: int) -> Batch:
    """Return a batch of `count` frames spread evenly over all."""
    last = len(frames) - 1
    places = sorted({int(place) for place in np.linspace(0, last, min(count, last + 1))})
    return collate([frames[place] for place in places])


def finish(
    network: nn.Module,
    manifest: Manifest,
    train_frames: ValidationFrames,
    held_out: ValidationFrames,
    out: Path,
    device: torch.device,
) -> Manifest:
    """
    Score `network` on all held-out frames and write scores.json, a picture and bundle/.

    :param network: on `device`; the bundle is made of it on the CPU
    :param train_frames: for the predictors that answer with a mean, whatever they see
    :param device: where to score
    :returns: the manifest of the bundle
    """
    console = Console()
    tasks = manifest.tasks
    mean = TrainingMean(tasks, manifest.network_size)
    for batch in validation_loader(train_frames, 8, _MEAN_FRAMES):
        mean.update(batch)
    graph = PerceptionGraph(network, manifest).eval().to(device)
    loader = validation_loader(held_out, 8)
    predictors = {
        'this network': lambda batch: finished_maps(graph, manifest, batch),
        'per-pixel training mean': mean.predictor('pixel'),
        'per-row training mean': mean.predictor('row'),
        'constant': mean.predictor('frame'),
    }
    scores = {}
    for name, predict in predictors.items():
        scores[name] = rounded(score(predict, loader, tasks, device=device))
        console.print(f'{name}: {describe(scores[name], tasks)}', highlight=False, soft_wrap=True)
    (out / 'pictures').mkdir(exist_ok=True)
    write_json(out / SCORES_FILE, scores)
    chosen = spread_batch(held_out, 8)
    picture = prediction_grid(network, manifest, chosen.to(device))
    write_png(out / 'pictures' / 'final.png', picture)
    manifest = save_bundle(
        network.cpu(),
        replace(manifest, scores=scores),
        out / BUNDLE_DIRECTORY,
        chosen.image[0].numpy(),
    )
    console.print(f'bundle written to {out / BUNDLE_DIRECTORY}', highlight=False, soft_wrap=True)
    return manifest
