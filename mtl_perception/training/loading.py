# SPDX-License-Identifier: Apache-2.0
"""The order in which frames are drawn, and the loaders that draw them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mtl_perception.training.data import collate, ValidationFrames
from mtl_perception.training.errors import TrainingError
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


@dataclass(frozen=True)
class Shard:
    """Which of the processes that train together this one is."""

    index: int = 0
    count: int = 1


WHOLE = Shard()


class StepSampler(Sampler[Any]):
    """
    Batches of (draw, index) keys, one batch a step.

    The run is one endless sequence of shuffled passes over the frames; a resumed run starts in
    it at `first_step` and draws what it would have drawn. Processes that train together share
    each batch: what one step sees does not depend on their number.
    """

    def __init__(
        self,
        frames: int,
        batch_size: int,
        steps: int,
        seed: int,
        first_step: int = 0,
        shard: Shard = WHOLE,
    ) -> None:
        if frames < 1:
            msg = 'there are no frames to train on'
            raise TrainingError(msg)
        if batch_size % shard.count:
            msg = (
                f'optimiser.batch_size is {batch_size}, which {shard.count} processes cannot '
                'share equally; it counts the frames of all of them: make it a multiple'
            )
            raise TrainingError(msg)
        self._frames = frames
        self._batch_size = batch_size
        self._steps = steps
        self._seed = seed
        self._first_step = first_step
        self._shard = shard

    def __len__(self) -> int:
        # Of the whole run: Lightning counts the steps before `first_step` as done.
        return self._steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        current, order = -1, np.empty(0, np.intp)
        for step in range(self._first_step, self._steps):
            batch = []
            share = self._batch_size // self._shard.count
            first = step * self._batch_size + self._shard.index * share
            for draw in range(first, first + share):
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
    dataset: Dataset[Any],
    sampler: Sampler[Any],
    workers: int,
    *,
    pin: bool,
    collate_fn: Callable[[Any], Any] = collate,
) -> DataLoader[Any]:
    """Return the loader of augmented batches."""
    return _RunLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate_fn,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        pin_memory=pin,
    )


def validation_loader(
    dataset: ValidationFrames,
    batch_size: int,
    limit: int | None = None,
    shard: Shard = WHOLE,
) -> DataLoader[Any]:
    """Return the loader of fitted frames; `limit` takes that many spread over all."""
    count = len(dataset)
    chosen = list(range(count))
    if limit is not None and limit < count:
        chosen = [int(index) for index in np.linspace(0, count - 1, limit).round()]
    mine = chosen[shard.index :: shard.count]
    return DataLoader(
        torch.utils.data.Subset(dataset, mine), batch_size=batch_size, collate_fn=collate
    )
