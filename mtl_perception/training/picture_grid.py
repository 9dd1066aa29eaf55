# SPDX-License-Identifier: Apache-2.0
"""Truth beside prediction for a few validation frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from mtl_perception.graph import PerceptionGraph
from mtl_perception.manifest import Manifest
from mtl_perception.pictures import Picture, Tile, titled_grid, write_png
from mtl_perception.tasks import PROBABILITY_KINDS, Task
from mtl_perception.training.data import Batch
from mtl_perception.training.scoring import finished_maps
import numpy as np
import torch
from torch import nn, Tensor


def _picture(task: Task, values: Tensor, *, is_target: bool) -> Picture:
    array = values.numpy()
    if task.kind == 'normals':
        array = array.transpose(1, 2, 0)
    elif task.kind in PROBABILITY_KINDS and is_target:
        array = np.where(array == 1, 255, 0).astype(np.uint8)
    elif task.kind in PROBABILITY_KINDS:
        array = np.rint(array * 255).astype(np.uint8)
    return task.colourise(array)


@torch.no_grad()
def prediction_grid(network: nn.Module, manifest: Manifest, batch: Batch) -> Picture:
    """Return one row a frame: the image, then for every task the truth and the prediction."""
    graph = PerceptionGraph(network, manifest).eval().to(batch.image.device)
    return comparison_grid(finished_maps(graph, manifest, batch), manifest, batch)


def comparison_grid(maps: Mapping[str, Tensor], manifest: Manifest, batch: Batch) -> Picture:
    """Return one row a frame from its finished maps; see `prediction_grid`."""
    rows = []
    for index in range(len(batch.names)):
        row = [Tile(batch.names[index], batch.image[index].cpu().numpy())]
        for task in manifest.tasks:
            if task.name in batch.targets:
                target = batch.targets[task.name][index].cpu()
                row.append(Tile(f'{task.name}: truth', _picture(task, target, is_target=True)))
            predicted = maps[task.name][index].cpu()
            row.append(
                Tile(f'{task.name}: prediction', _picture(task, predicted, is_target=False))
            )
        rows.append(row)
    return titled_grid(rows, tile_height=min(240, manifest.network_size[0]))


class PictureGrid(L.Callback):
    """Writes a picture grid after every validation."""

    def __init__(self, directory: Path, batch: Batch) -> None:
        self._directory = directory
        self._batch = batch

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write `step_<number>.png`, in one process of several."""
        if not trainer.is_global_zero:
            return
        was_training = module.averaged_network.training
        batch = self._batch.to(module.device)
        picture = prediction_grid(module.averaged_network, module.manifest, batch)
        module.averaged_network.train(was_training)
        self._directory.mkdir(exist_ok=True)
        write_png(self._directory / f'step_{trainer.global_step:07d}.png', picture)
