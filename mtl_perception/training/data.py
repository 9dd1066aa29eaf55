# SPDX-License-Identifier: Apache-2.0
"""Labelled frames as tensors: datasets, the order they are drawn in, and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mtl_perception.tasks import LABELLED_KINDS, Task
from mtl_perception.training.augmentation import augment
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.focal import depth_scale, reference_depth, reference_normals
from mtl_perception.training.geometry_augmentation import fitted, with_camera
from mtl_perception.training.recipe import NetworkRecipe, Recipe
from mtl_perception.values import Sample, UNLABELLED
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler


class Frames(Protocol):
    """What a dataset of the datasets room offers: a length, and a `Sample` by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass
class Batch:
    """B frames at network size."""

    image: Tensor  # uint8 (B, H, W, 3) RGB
    depth_scale: Tensor  # float32 (B,), f / f_ref
    targets: dict[str, Tensor]  # (B, H, W); normals (B, 3, H, W)
    names: list[str]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(
            self.image.to(device, non_blocking=True),
            self.depth_scale.to(device, non_blocking=True),
            {name: each.to(device, non_blocking=True) for name, each in self.targets.items()},
            self.names,
        )

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from where a GPU copies faster."""
        return Batch(
            self.image.pin_memory(),
            self.depth_scale.pin_memory(),
            {name: each.pin_memory() for name, each in self.targets.items()},
            self.names,
        )


def _checked_labels(sample: Sample, task: Task, values: Any) -> Any:
    classes = task.channels
    wrong = (values >= classes) & (values != UNLABELLED)
    if wrong.any():
        msg = (
            f'{sample.name}: target {task.name!r} holds label {int(values[wrong][0])}, but its '
            f'label set has {classes} classes; map the labels, or use 255 for unlabelled'
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
        early_steps = round(recipe.augmentation.early_share * recipe.optimiser.steps)
        self._early_draws = early_steps * recipe.optimiser.batch_size

    def unaugmented(self) -> ValidationFrames:
        """Return the same frames as they are, fitted, with metric targets."""
        return ValidationFrames(self._frames, self._tasks, self._network)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, ...]:
        draw, index = key
        generator = np.random.default_rng((self._seed, draw))
        size, focal = self._network.size, self._network.reference_focal_px
        sample = with_camera(self._frames[index], size, focal)
        if draw < self._early_draws:
            size = self._augmentation.early_size or size
        sample = augment(sample, self._tasks, size, self._augmentation, generator)
        assert sample.camera is not None
        return _item(sample, self._tasks, depth_scale(sample.camera, focal), reference=True)


class ValidationFrames(Dataset[Any]):
    """Frames as the live node fits them, with targets in metric units."""

    def __init__(
        self, frames: Frames, tasks: tuple[Task, ...], network: NetworkRecipe
    ) -> None:
        self._frames = frames
        self._tasks = tasks
        self._network = network

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        size, focal = self._network.size, self._network.reference_focal_px
        sample = fitted(with_camera(self._frames[index], size, focal), self._tasks, size)
        assert sample.camera is not None
        return _item(sample, self._tasks, depth_scale(sample.camera, focal), reference=False)


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
    images, scales, targets, names = zip(*items)
    stacked = {}
    for name in dict.fromkeys(key for each in targets for key in each):
        model = next(each[name] for each in targets if name in each)
        empty = float('nan') if model.is_floating_point() else UNLABELLED
        stacked[name] = torch.stack(
            [each.get(name, torch.full_like(model, empty)) for each in targets]
        )
    return Batch(
        torch.stack(images), torch.tensor(scales, dtype=torch.float32), stacked, list(names)
    )


class StepSampler(Sampler[Any]):
    """
    Batches of (draw, index) keys, one batch a step.

    The run is one endless sequence of shuffled passes over the frames; a resumed run starts in
    it at `first_step` and draws what it would have drawn.
    """

    def __init__(
        self, frames: int, batch_size: int, steps: int, seed: int, first_step: int = 0
    ) -> None:
        if frames < 1:
            msg = 'there are no frames to train on'
            raise TrainingError(msg)
        self._frames = frames
        self._batch_size = batch_size
        self._steps = steps
        self._seed = seed
        self._first_step = first_step

    def __len__(self) -> int:
        # Of the whole run: Lightning counts the steps before `first_step` as done.
        return self._steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        current, order = -1, np.empty(0, np.intp)
        for step in range(self._first_step, self._steps):
            batch = []
            for draw in range(step * self._batch_size, (step + 1) * self._batch_size):
                # Each pass over the frames has its own order.
                number, place = divmod(draw, self._frames)
                if number != current:
                    generator = np.random.default_rng((self._seed, 1, number))
                    current, order = number, generator.permutation(self._frames)
                batch.append((draw, int(order[place])))
            yield batch


class _RunLoader(DataLoader[Any]):
    """A loader whose sampler knows where the run resumes; this tells Lightning so."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the checkpoint's step says it all."""
        return {}

    def load_state_dict(self, _: dict[str, Any]) -> None:
        """Accept what `state_dict` gave."""


def _start_worker(_: int) -> None:
    # One thread a worker: the cores belong to the network.
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def training_loader(
    dataset: TrainingFrames, sampler: StepSampler, workers: int, *, pin: bool
) -> DataLoader[Any]:
    """Return the loader of augmented batches."""
    return _RunLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        pin_memory=pin,
    )


def validation_loader(
    dataset: ValidationFrames, batch_size: int, limit: int | None = None
) -> DataLoader[Any]:
    """Return the loader of fitted frames; `limit` takes that many spread over all."""
    count = len(dataset)
    chosen: Any = range(count)
    if limit is not None and limit < count:
        chosen = [int(index) for index in np.linspace(0, count - 1, limit).round()]
    return DataLoader(
        torch.utils.data.Subset(dataset, list(chosen)), batch_size=batch_size, collate_fn=collate
    )
