# SPDX-License-Identifier: Apache-2.0
"""Rooms by split: a folder of rendered rooms for each, or frames that are rendered on demand."""

from __future__ import annotations

from pathlib import Path

from mtl_perception.datasets.dataset import Dataset
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.file_dataset import check_split
from mtl_perception.datasets.rooms import RoomsDataset

RENDER = Path('render')
_FOLDERS = {'train': 'train', 'val': 'validation', 'all': '.'}
# Runs with different seeds share no world.
_VALIDATION_SEED = 900_000


def open_rooms(
    path: Path,
    split: str,
    *,
    frames: int | None = None,
    seed: int | None = None,
    size: tuple[int, ...] | None = None,
    frames_per_world: int | None = None,
) -> Dataset:
    """
    Open <path>/train, <path>/validation (split val), or a single folder of rooms (split all).

    The path `render` stands for no folder: frames are rendered when they are asked for. Split
    val has a tenth of `frames`, of the seed 900000 higher.

    :param frames: how many to render
    :param seed: default 0
    :param size: (width, height) in pixels, default 320, 240
    :param frames_per_world: frames of one apartment before the next, default 24

    Raises
    ------
    DatasetError
        If that folder holds no rendered rooms, or an option is given for a folder, or is missing
        or makes no sense for rendering.

    """
    check_split(split, tuple(_FOLDERS))
    options = {
        'frames': frames, 'seed': seed, 'size': size, 'frames_per_world': frames_per_world
    }
    given = [name for name, value in options.items() if value is not None]
    if path != RENDER:
        if given:
            msg = f'{path}: {", ".join(given)} is for rooms:render?frames=..., not for a folder'
            raise DatasetError(msg)
        return RoomsDataset(path / _FOLDERS[split])
    if frames is None:
        msg = 'rooms:render needs the number of frames, as in rooms:render?frames=2000'
        raise DatasetError(msg)
    # The renderer comes with it.
    from mtl_perception.datasets.rooms_rendered import RenderedRooms

    held_out = split == 'val'
    return RenderedRooms(
        (seed or 0) + (_VALIDATION_SEED if held_out else 0),
        -(-frames // 10) if held_out else frames,
        size or (320, 240),
        24 if frames_per_world is None else frames_per_world,
    )
