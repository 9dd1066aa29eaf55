# SPDX-License-Identifier: Apache-2.0
"""Batches of two domains: labelled source frames and bare target frames, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtl_perception.datasets.dataset import Dataset as LabelledFrames
from mtl_perception.training.data import Batch, collate, TrainingFrames
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.loading import StepSampler, training_loader
from mtl_perception.training.reading import Frames
from mtl_perception.training.recipe import expand, Recipe
from mtl_perception.training.source import check_tasks, open_split
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

# Keeps the draws and variations of target frames apart from those of source frames.
_SEED_SHIFT = 7919


@dataclass
class DomainBatch:
    """B labelled frames of the source domain and B frames of the target domain."""

    source: Batch
    target: Batch  # without targets

    @property
    def names(self) -> list[str]:
        """The names of all frames."""
        return [*self.source.names, *self.target.names]

    @property
    def damaged(self) -> tuple[str, ...]:
        """What was said of frames that could not be read."""
        return (*self.source.damaged, *self.target.damaged)

    def to(self, device: torch.device) -> DomainBatch:
        """Return the batch on another device."""
        return DomainBatch(self.source.to(device), self.target.to(device))

    def pin_memory(self) -> DomainBatch:
        """Return the batch in page-locked memory."""
        return DomainBatch(self.source.pin_memory(), self.target.pin_memory())


Key = tuple[tuple[int, int], tuple[int, int]]


class DomainFrames(Dataset[Any]):
    """Pairs of a varied source frame and a varied target frame without its targets."""

    def __init__(self, source: TrainingFrames, target_frames: Frames, recipe: Recipe) -> None:
        assert recipe.adaptation is not None
        self._source = source
        early = recipe.augmentation
        own = replace(
            recipe,
            # Both domains are small at the same time, or size would give the domain away.
            augmentation=replace(
                recipe.adaptation.target.augmentation,
                early_size=early.early_size,
                early_share=early.early_share,
            ),
            loop=replace(recipe.loop, seed=recipe.loop.seed + _SEED_SHIFT),
        )
        self._target = TrainingFrames(target_frames, (), own)

    def __getitem__(self, key: Key) -> tuple[Any, Any]:
        return self._source[key[0]], self._target[key[1]]


class DomainSampler(Sampler[Any]):
    """Batches of pairs of keys, one batch a step; the shorter domain starts again more often."""

    def __init__(
        self, source: StepSampler, target_count: int, recipe: Recipe, first_step: int = 0
    ) -> None:
        plan = recipe.optimiser
        if target_count < 1:
            msg = 'there are no frames of the target domain to train on'
            raise TrainingError(msg)
        self._source = source
        self._target = StepSampler(
            target_count, plan.batch_size, plan.steps, recipe.loop.seed + _SEED_SHIFT, first_step
        )

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[list[Key]]:
        for source, target in zip(self._source, self._target):
            yield list(zip(source, target))


def collate_domains(items: Sequence[tuple[Any, Any]]) -> DomainBatch:
    """Stack pairs of frames."""
    source, target = zip(*items)
    return DomainBatch(collate(source), collate(target))


def domain_loader(
    source: TrainingFrames,
    sampler: StepSampler,
    target_frames: Frames | None,
    recipe: Recipe,
    *,
    first_step: int,
    pin: bool,
) -> DataLoader[Any]:
    """
    Return the loader of batches of both domains.

    Raises
    ------
    TrainingError
        If there is no frame of the target domain.

    """
    if target_frames is None:
        msg = 'the recipe adapts to a target domain; give its frames'
        raise TrainingError(msg)
    return training_loader(
        DomainFrames(source, target_frames, recipe),
        DomainSampler(sampler, len(target_frames), recipe, first_step),
        recipe.data.workers,
        pin=pin,
        collate_fn=collate_domains,
    )


def open_target(
    recipe: Recipe, root: Path | None = None
) -> tuple[LabelledFrames, LabelledFrames | None]:
    """
    Open the frames of the target domain: those to train on, and those to score on if any.

    Those to train on are opened without tasks: their labels need not exist.

    :param root: folder instead of the recipe's

    Raises
    ------
    DatasetError
        If the folder is wrong or incomplete.
    TrainingError
        If the frames to score on have no task of the recipe, or mean other classes by it.

    """
    assert recipe.adaptation is not None
    part = recipe.adaptation.target
    root = root or expand(part.root, 'adaptation.target.root')
    # Rooms have no such option: their frames are rendered with all targets.
    bare = {} if part.kind == 'rooms' else {'tasks': ()}
    train = open_split(part.kind, root, part.train, {**part.options, **bare})
    if part.validation is None:
        return train, None
    validation = open_split(part.kind, root, part.validation, part.options)
    names = {task.name for task in validation.tasks}
    shared = tuple(task for task in recipe.task_list() if task.name in names)
    if not shared:
        msg = (
            f'the {part.kind} data of the target domain have no task of the recipe to score; '
            'leave adaptation.target.validation out to score on the source domain'
        )
        raise TrainingError(msg)
    check_tasks(validation.tasks, shared, part.kind)
    return train, validation


def describe_target(recipe: Recipe) -> dict[str, Any]:
    """Return what a bundle should say of the target domain."""
    assert recipe.adaptation is not None
    part = recipe.adaptation.target
    return {
        'source': part.kind,
        'train': part.train,
        'validation': part.validation,
        **({'options': dict(part.options)} if part.options else {}),
    }
