# SPDX-License-Identifier: Apache-2.0
"""Rooms that are rendered when a frame is asked for, by the process that asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.rooms import settings_of
from mtl_perception.simulation.rooms import FIELD_OF_VIEW_DEG, world_frames
from mtl_perception.tasks import standard_tasks, Task
from mtl_perception.values import Sample


class RenderedRooms:
    """
    Frame by frame what the command `rooms` would write with the same seed, size and worlds.

    Nothing is kept: a frame costs its rendering, and that of its world, every time. Copies in
    worker processes give the same frames.

    :param seed: of the run, zero or more
    :param frames: how many
    :param size: (width, height), pixels
    :param frames_per_world: frames of one apartment before the next
    :raises DatasetError: if a number makes no sense
    """

    def __init__(
        self, seed: int, frames: int, size: tuple[int, ...], frames_per_world: int
    ) -> None:
        if seed < 0:
            raise DatasetError(f'seed: {seed} is negative; use zero or more')
        if frames < 1 or frames_per_world < 1:
            raise DatasetError(
                f'frames and frames_per_world: {frames} and {frames_per_world} should be positive'
            )
        if len(size) != 2 or min(size) < 1:
            raise DatasetError(f'size: {size} should be width and height, as in size=320,240')
        self._size = (size[0], size[1])
        self._seed, self._per_world = seed, frames_per_world
        self.settings: Mapping[str, Any] = settings_of(
            seed, frames_per_world, self._size, FIELD_OF_VIEW_DEG
        )
        self.tasks: tuple[Task, ...] = standard_tasks('rooms')
        places = (divmod(index, frames_per_world) for index in range(frames))
        self.names = tuple(f'rooms_{seed}_{world:05d}_{number:04d}' for world, number in places)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        world, number = divmod(range(len(self))[index], self._per_world)
        return next(
            world_frames(self._seed, world, self._per_world, size=self._size, skip=number)
        )
