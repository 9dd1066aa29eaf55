# SPDX-License-Identifier: Apache-2.0
"""Rendered rooms by split: one folder of rooms for each."""

from __future__ import annotations

from pathlib import Path

from mtl_perception.datasets.file_dataset import check_split
from mtl_perception.datasets.rooms import RoomsDataset

_FOLDERS = {'train': 'train', 'val': 'validation', 'all': '.'}


def open_rooms(path: Path, split: str) -> RoomsDataset:
    """
    Open <path>/train, <path>/validation (split val), or a single folder of rooms (split all).

    Raises
    ------
    DatasetError
        If that folder holds no rendered rooms.

    """
    check_split(split, tuple(_FOLDERS))
    return RoomsDataset(path / _FOLDERS[split])
