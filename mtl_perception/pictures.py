# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: titled grids of maps, legends and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from mtl_perception.files import atomic_write
from mtl_perception.tasks import LabelSet
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # (H, W, 3) RGB

_TITLE_HEIGHT = 24
_GAP = 4
_PAPER = 255
_INK = (30, 30, 30)


@dataclass(frozen=True)
class Tile:
    """One picture of a grid with the words above it."""

    title: str
    picture: Picture


def _write_words(canvas: Picture, words: str, x: int, y: int, width: int) -> None:
    """Draw one line of text that fits in `width`, its baseline at y."""
    scale = 0.5
    (length, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale *= min(1.0, width / max(length, 1))
    cv2.putText(
        canvas, words, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA
    )


def titled_grid(rows: Sequence[Sequence[Tile]], *, tile_height: int = 240) -> Picture:
    """
    Lay tiles out in rows, each picture scaled to `tile_height`, its title above it.

    Rows may differ in length and pictures in aspect; the paper between them is white.
    """
    strips = []
    for row in rows:
        cells = []
        for tile in row:
            height, width = tile.picture.shape[:2]
            size = (max(1, round(width * tile_height / height)), tile_height)
            shrinks = tile_height < height
            picture = cv2.resize(
                tile.picture, size,
                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST,
            )
            cell = np.full(
                (tile_height + _TITLE_HEIGHT + _GAP, size[0] + _GAP, 3), _PAPER, np.uint8
            )
            cell[_TITLE_HEIGHT : _TITLE_HEIGHT + tile_height, : size[0]] = picture
            _write_words(cell, tile.title, 2, _TITLE_HEIGHT - 7, size[0] - 4)
            cells.append(cell)
        strips.append(np.concatenate(cells, axis=1))
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate(
        [
            np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=_PAPER)
            for strip in strips
        ]
    )


def legend(label_set: LabelSet, *, width: int, columns: int = 6) -> Picture:
    """Draw every class of a label set as a coloured square with its name."""
    line = 22
    rows = -(-len(label_set) // columns)
    canvas = np.full((rows * line + _GAP, width, 3), _PAPER, np.uint8)
    step = width // columns
    for index, (name, colour) in enumerate(zip(label_set.names, label_set.colours)):
        x, y = (index % columns) * step, (index // columns) * line + _GAP
        canvas[y : y + line - 6, x + 2 : x + 2 + line - 6] = colour
        _write_words(canvas, name, x + line, y + line - 9, step - line - 4)
    return canvas


def encode_png(picture: npt.NDArray[Any]) -> bytes:
    """Return a picture (H, W, 3) RGB or (H, W) grey as PNG bytes."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    fine, buffer = cv2.imencode('.png', picture)
    if not fine:
        msg = f'OpenCV cannot encode a picture of shape {picture.shape} as PNG'
        raise ValueError(msg)
    return bytes(buffer)


def write_png(path: Path, picture: npt.NDArray[Any]) -> None:
    """Write a picture (H, W, 3) RGB or (H, W) grey atomically."""
    atomic_write(path, encode_png(picture))
