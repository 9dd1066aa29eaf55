# SPDX-License-Identifier: Apache-2.0
"""Labelled frames as tensors, alone and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtl_perception.datasets.errors import DatasetError, LabelRangeError
from mtl_perception.manifest import padding_colour
from mtl_perception.tasks import LABELLED_KINDS, Task
from mtl_perception.training.augmentation import augment
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.focal import depth_scale, reference_depth, reference_normals
from mtl_perception.training.geometry_augmentation import fitted, with_camera
from mtl_perception.training.reading import Frames, next_readable
from mtl_perception.training.recipe import NetworkRecipe, Recipe, SKIP
from mtl_perception.values import Sample, UNLABELLED
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


@dataclass
class Batch:
    """B frames at network size."""

    image: Tensor  # uint8 (B, H, W, 3) RGB
    depth_scale: Tensor  # float32 (B,), f / f_ref
    targets: dict[str, Tensor]  # (B, H, W); normals (B, 3, H, W)
    names: list[str]
    damaged: tuple[str, ...] = ()  # what was said of frames that could not be read

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on another device."""
        return Batch(
            self.image.to(device, non_blocking=True),
            self.depth_scale.to(device, non_blocking=True),
            {name: each.to(device, non_blocking=True) for name, each in self.targets.items()},
            self.names,
            self.damaged,
        )

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from where a GPU copies faster."""
        return Batch(
            self.image.pin_memory(),
            self.depth_scale.pin_memory(),
            {name: each.pin_memory() for name, each in self.targets.items()},
            self.names,
            self.damaged,
        )


def _checked_labels(sample: Sample, task: Task, values: Any) -> Any:
    classes = task.channels
    wrong = (values >= classes) & (values != UNLABELLED)
    if wrong.any():
        msg = (
            f'{sample.name}: target {task.name!r} holds label {int(values[wrong][0])} in '
            f'{int(wrong.sum())} pixels, but its label set '
            f'{task.label_set.name if task.label_set else ""!r} has {classes} classes; map the '
            'labels, or use 255 for unlabelled'
        )
        raise TrainingError(msg)
    return values


def _to_tensor(sample: Sample, task: Task, scale: float) -> Tensor:
    values = sample.targets[task.name]
    if task.kind in LABELLED_KINDS:
        values = _checked_labels(sample, task, values)
    elif task.kind == 'depth':
        values = reference_depth(values, scale)
    elif task.kind == 'normals':
        values = reference_normals(values, scale).transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(values))


class TrainingFrames(Dataset[Any]):
    """
    Augmented frames with targets as the reference focal length sees them.

    A key is (draw, index): the number of the draw since the run began seeds the augmentation,
    so a frame comes out the same in any worker and after a resumed run. The first draws are
    smaller where the recipe says so: surfaces look smaller there, and by the focal correction
    farther away, so what is learned of them holds at full size.
    """

    def __init__(self, frames: Frames, tasks: tuple[Task, ...], recipe: Recipe) -> None:
        self._frames = frames
        self._tasks = tasks
        self._network = recipe.network
        self._augmentation = recipe.augmentation
        self._seed = recipe.loop.seed
        self._skips = recipe.data.corrupt == SKIP
        early_steps = round(recipe.augmentation.early_share * recipe.optimiser.steps)
        self._early_draws = early_steps * recipe.optimiser.batch_size

    def unaugmented(self) -> ValidationFrames:
        """Return the same frames as they are, fitted, with metric targets."""
        return ValidationFrames(self._frames, self._tasks, self._network, skips=self._skips)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, ...]:
        draw, index = key
        generator = np.random.default_rng((self._seed, draw))
        size, focal = self._network.size, self._network.reference_focal_px
        if self._skips:
            frame, damaged = next_readable(self._frames, index)
        else:
            frame, damaged = self._frames[index], ()
        sample = with_camera(frame, size, focal)
        if draw < self._early_draws:
            size = self._augmentation.early_size or size
        sample = augment(
            sample, self._tasks, size, self._augmentation, generator,
            padding_colour(self._network.mean),
        )
        assert sample.camera is not None
        scale = depth_scale(sample.camera, focal)
        return (*_item(sample, self._tasks, scale, reference=True), damaged)


class ValidationFrames(Dataset[Any]):
    """
    Frames as the live node fits them, with targets in metric units.

    With `skips`, one that cannot be read is black and nowhere annotated: it scores nothing. One
    whose labels are out of range is never skipped.
    """

    def __init__(
        self,
        frames: Frames,
        tasks: tuple[Task, ...],
        network: NetworkRecipe,
        *,
        skips: bool = False,
    ) -> None:
        self._frames = frames
        self._tasks = tasks
        self._network = network
        self._skips = skips

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        size, focal = self._network.size, self._network.reference_focal_px
        try:
            frame = self._frames[index]
        except DatasetError as error:
            if not self._skips or isinstance(error, LabelRangeError):
                raise
            black = torch.zeros((*size, 3), dtype=torch.uint8)
            return black, 1.0, {}, 'damaged', (str(error),)
        sample = fitted(
            with_camera(frame, size, focal), self._tasks, size, padding_colour(self._network.mean)
        )
        assert sample.camera is not None
        scale = depth_scale(sample.camera, focal)
        return (*_item(sample, self._tasks, scale, reference=False), ())


def _item(
    sample: Sample, tasks: tuple[Task, ...], scale: float, *, reference: bool
) -> tuple[Any, ...]:
    image = torch.from_numpy(np.ascontiguousarray(sample.image))
    targets = {
        task.name: _to_tensor(sample, task, scale if reference else 1.0)
        for task in tasks
        if task.name in sample.targets
    }
    return image, scale, targets, sample.name


def collate(items: Sequence[tuple[Any, ...]]) -> Batch:
    """Stack frames; where some lack a task that others have, theirs is filled as invalid."""
    images, scales, targets, names, damaged = zip(*items)
    stacked = {}
    for name in dict.fromkeys(key for each in targets for key in each):
        model = next(each[name] for each in targets if name in each)
        empty = float('nan') if model.is_floating_point() else UNLABELLED
        stacked[name] = torch.stack(
            [each.get(name, torch.full_like(model, empty)) for each in targets]
        )
    return Batch(
        torch.stack(images),
        torch.tensor(scales, dtype=torch.float32),
        stacked,
        list(names),
        tuple(message for each in damaged for message in each),
    )
