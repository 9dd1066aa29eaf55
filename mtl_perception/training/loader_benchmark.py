# SPDX-License-Identifier: Apache-2.0
"""Does training wait for its data: steps on one batch in memory against steps with a loader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import os
from pathlib import Path
import time
from typing import Any

import cv2
from mtl_perception.files import atomic_write
from mtl_perception.training.data import Batch, TrainingFrames
from mtl_perception.training.loading import StepSampler, training_loader
from mtl_perception.training.module import MultiTaskModule
from mtl_perception.training.reading import Frames
from mtl_perception.training.recipe import Recipe
from mtl_perception.training.run import make_network
from mtl_perception.training.task_recipe import TaskRecipe
import numpy as np
import torch

# Steps of a turn that are not counted: at the start of one, batches of the turn before are still
# being made or lie ready.
SETTLING = 3
_NYUD_SIZE = (640, 480)  # width, height
NYUD_TASKS = (
    TaskRecipe('semantic', 'semantic', label_set='nyu40'),
    TaskRecipe('depth', 'depth'),
    TaskRecipe('normals', 'normals'),
    TaskRecipe('edges', 'edges', edge_meaning='label_borders'),
)


@dataclass(frozen=True)
class LoaderTimes:
    """Milliseconds of single steps, taken in turns."""

    data: str
    frames: int
    memory_ms: tuple[float, ...]  # on one batch that stays in memory
    loader_ms: tuple[float, ...]  # with the next batch of the loader

    @property
    def ratio(self) -> float:
        """The speed with the loader over that on one batch in memory."""
        return sum(self.memory_ms) / sum(self.loader_ms)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            'data': self.data,
            'frames': self.frames,
            'steps': len(self.loader_ms),
            'speed_ratio': self.ratio,
            'memory_ms': {'median': float(np.median(self.memory_ms))},
            'loader_ms': {'median': float(np.median(self.loader_ms))},
        }


class _Steps:
    """The training steps of a recipe, without what a run does beside them."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        network, manifest = make_network(recipe)
        self.module = MultiTaskModule(network, manifest, recipe).to(device).train()
        self._optimiser = self.module.configure_optimizers()['optimizer']
        self._half = recipe.loop.precision == 'bfloat16'
        self._device = device

    def step(self, batch: Batch) -> None:
        """Learn from a batch, and wait until it is done."""
        batch = batch.to(self._device)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._half):
            outputs = self.module.network(self.module.normalised(batch.image))
            loss = self.module.criterion(outputs, batch.targets).total
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        # Reading a number waits for the device.
        float(loss.detach())


def measure(
    recipe: Recipe,
    frames: Frames,
    turns: int,
    steps: int,
    device: str = 'cpu',
    done: Callable[[], object] = lambda: None,
) -> LoaderTimes:
    """
    Time `turns` times `steps` steps on one batch and as many with the recipe's loader, in turns.

    :param recipe: network, augmentation, batch size, precision and workers are its own; frames
        are at full size from the first step
    :param done: called after every step
    """
    torch.set_num_threads(recipe.loop.threads or os.cpu_count() or 1)
    recipe = replace(recipe, augmentation=replace(recipe.augmentation, early_share=0.0))
    training = _Steps(recipe, device)
    dataset = TrainingFrames(frames, training.module.network.all_tasks, recipe)
    drawn = 1 + turns * (SETTLING + steps)
    sampler = StepSampler(len(frames), recipe.optimiser.batch_size, drawn, recipe.loop.seed)
    batches = iter(training_loader(dataset, sampler, recipe.data.workers, pin=device == 'cuda'))
    kept: Batch = next(batches)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for source, values in zip((lambda: kept, lambda: next(batches)), times):
            for number in range(SETTLING + steps):
                began = time.perf_counter()
                training.step(source())
                if number >= SETTLING:
                    values.append(1e3 * (time.perf_counter() - began))
                done()
    return LoaderTimes(recipe.data.kind, len(frames), tuple(times[0]), tuple(times[1]))


def write_nyud_like(frames: Frames, count: int, root: Path) -> None:
    """
    Write frames in the layout of NYUD_MT, as large as its own: what the loader reads is alike.

    :param frames: with the four standard tasks; classes become the numbers of others
    :param count: how many of them, at most
    """
    names = [f'{number:04d}' for number in range(min(count, len(frames)))]
    for folder in ('gt_sets', 'images', 'segmentation', 'depth', 'normals', 'edge'):
        (root / folder).mkdir(parents=True)
    for split in ('train', 'val'):
        atomic_write(root / 'gt_sets' / f'{split}.txt', '\n'.join(names) + '\n')
    for number, name in enumerate(names):
        sample = frames[number]
        image = cv2.cvtColor(cv2.resize(sample.image, _NYUD_SIZE), cv2.COLOR_RGB2BGR)
        target = {
            task: cv2.resize(values, _NYUD_SIZE, interpolation=cv2.INTER_NEAREST)
            for task, values in sample.targets.items()
        }
        cv2.imwrite(str(root / 'images' / f'{name}.jpg'), image)
        # 0 is void there, and so becomes 255.
        labels = target['semantic'].astype(np.uint8) + np.uint8(1)
        cv2.imwrite(str(root / 'segmentation' / f'{name}.png'), labels)
        np.save(root / 'depth' / f'{name}.npy', target['depth'].astype(np.float32))
        # Right, up, backward.
        normals = target['normals'] * np.array([1, -1, -1], np.float32)
        np.save(root / 'normals' / f'{name}.npy', normals.astype(np.float32))
        np.save(root / 'edge' / f'{name}.npy', (target['edges'] == 1).astype(np.float32))
