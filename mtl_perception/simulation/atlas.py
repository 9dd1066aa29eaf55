# SPDX-License-Identifier: Apache-2.0
"""All textures of a world in one picture, each with its smaller copies against aliasing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
from mtl_perception.simulation.errors import SimulationError
from mtl_perception.simulation.patterns import Tile
import numpy as np
import numpy.typing as npt

ATLAS_WIDTH = 2048
_LIST_WIDTH = 1024
_LEVELS = 7
SRGB_TO_LINEAR = (np.arange(256, dtype=np.float32) / np.float32(255)) ** np.float32(2.2)


def pack_shelves(
    sizes: npt.NDArray[np.int64], width: int
) -> tuple[npt.NDArray[np.int64], int]:
    """
    Place rectangles `sizes` (n, 2: width, height) on shelves in a sheet of the given width.

    Returns the top left corners (n, 2) and the height of the sheet. Taller ones come first.

    Raises
    ------
    SimulationError
        If a rectangle is wider than the sheet.

    """
    if len(sizes) and int(sizes[:, 0].max()) > width:
        raise SimulationError(
            f'a surface needs {int(sizes[:, 0].max())} texels side by side but a sheet holds '
            f'{width}; make the surface smaller'
        )
    corners = np.zeros_like(sizes)
    x = y = shelf = 0
    for index in np.argsort(-sizes[:, 1], kind='stable'):
        across, down = int(sizes[index, 0]), int(sizes[index, 1])
        if x + across > width:
            x, y, shelf = 0, y + shelf, 0
        corners[index] = (x, y)
        x += across
        shelf = max(shelf, down)
    return corners, y + shelf


def sample_sheet(
    sheet: npt.NDArray[np.generic], x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]
) -> npt.NDArray[np.generic]:
    """Sample a sheet (h, w, 3) bilinearly at pixel coordinates x, y (n,); returns (n, 3)."""
    count = len(x)
    rows = -(-count // _LIST_WIDTH)
    # remap() wants a picture-shaped list of coordinates.
    coordinates = np.zeros((2, rows * _LIST_WIDTH), np.float32)
    coordinates[0, :count] = x
    coordinates[1, :count] = y
    mapped = cv2.remap(
        sheet,
        coordinates[0].reshape(rows, _LIST_WIDTH),
        coordinates[1].reshape(rows, _LIST_WIDTH),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return mapped.reshape(-1, sheet.shape[2])[:count]


@dataclass(frozen=True)
class TextureAtlas:
    """The packed tiles of a world and where each of their levels lies."""

    sheet: npt.NDArray[np.uint8]  # (h, ATLAS_WIDTH, 3) sRGB
    places: npt.NDArray[np.float32]  # (tiles * levels, 3): x and y of the first texel, size
    sizes: npt.NDArray[np.float32]  # (tiles,) texels along one side at level 0
    means: npt.NDArray[np.float32]  # (tiles, 3) mean linear colour

    @classmethod
    def pack(cls, tiles: list[Tile]) -> TextureAtlas:
        """Quantise the tiles, halve each repeatedly and pack all of it into one sheet."""
        pictures: list[npt.NDArray[np.uint8]] = []
        for tile in tiles:
            level = np.asarray(np.clip(tile, 0, 1) * 255 + 0.5, np.uint8)
            for _ in range(_LEVELS):
                pictures.append(level)
                half = max(1, len(level) // 2)
                level = cv2.resize(level, (half, half), interpolation=cv2.INTER_AREA)
        # One wrapped texel around each picture lets bilinear sampling cross its border.
        extents = np.array([(len(p) + 2, len(p) + 2) for p in pictures], np.int64)
        corners, height = pack_shelves(extents, ATLAS_WIDTH)
        sheet = np.zeros((height, ATLAS_WIDTH, 3), np.uint8)
        for picture, (x, y) in zip(pictures, corners):
            end = len(picture) + 2
            sheet[y : y + end, x : x + end] = np.pad(picture, ((1, 1), (1, 1), (0, 0)), 'wrap')
        places = np.concatenate([corners + 1, extents[:, :1] - 2], axis=1).astype(np.float32)
        means = np.stack([
            SRGB_TO_LINEAR[pictures[index * _LEVELS + 3]].reshape(-1, 3).mean(0)
            for index in range(len(tiles))
        ])
        sizes = np.array([len(tile) for tile in tiles], np.float32)
        return cls(sheet, places, sizes, means.astype(np.float32))

    def sample(
        self,
        tile: npt.NDArray[np.integer],
        u: npt.NDArray[np.float32],
        v: npt.NDArray[np.float32],
        footprint: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.float32]:
        """
        Return the linear colours (n, 3) of tiles (n,) at tile coordinates u, v (n,), wrapping.

        `footprint` (n,) is the width of a camera pixel in tile units; it chooses the level.
        """
        texels = np.maximum(footprint * self.sizes.take(tile), np.float32(1e-3))
        level = np.clip(np.rint(np.log2(texels)), 0, _LEVELS - 1).astype(np.intp)
        place = self.places.take(tile * _LEVELS + level, axis=0)
        half = np.float32(0.5)
        x = place[:, 0] + (u - np.floor(u)) * place[:, 2] - half
        y = place[:, 1] + (v - np.floor(v)) * place[:, 2] - half
        return np.asarray(cv2.LUT(sample_sheet(self.sheet, x, y), SRGB_TO_LINEAR), np.float32)
