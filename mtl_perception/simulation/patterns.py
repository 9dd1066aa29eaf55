# SPDX-License-Identifier: Apache-2.0
"""
Building blocks of the procedural textures: periodic noise, colours and shapes on a tile.

Every tile is (n, n, 3) float32, sRGB in [0, 1], and wraps around at its borders.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import numpy.typing as npt

Tile = npt.NDArray[np.float32]
Colour = npt.NDArray[np.float32]


def noise(
    rng: np.random.Generator, size: int, cells: tuple[int, int] = (8, 8), octaves: int = 4
) -> Tile:
    """
    Return periodic fractal noise (size, size) scaled to [0, 1].

    `cells` counts the coarsest lattice cells along x and y: unequal counts give streaks.
    Value noise on lattices of doubling frequency, enlarged by cubic interpolation.
    """
    total = np.zeros((size, size), np.float32)
    weight = 1.0
    for octave in range(octaves):
        nx, ny = (min(size, count << octave) for count in cells)
        lattice = rng.random((ny, nx), np.float32)
        # Two wrapped lattice cells on each side make the enlarged picture periodic.
        padded = np.pad(lattice, 2, mode='wrap')
        big = cv2.resize(
            padded,
            (size * (nx + 4) // nx, size * (ny + 4) // ny),
            interpolation=cv2.INTER_CUBIC if max(nx, ny) < size else cv2.INTER_NEAREST,
        )
        x, y = 2 * size // nx, 2 * size // ny
        total += weight * big[y : y + size, x : x + size]
        weight *= 0.5
    low, high = float(total.min()), float(total.max())
    return (total - low) / (high - low + 1e-6)


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Return an sRGB colour (3,) from hue (wraps), saturation and value in [0, 1]."""
    return np.array(
        colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1)),
        np.float32,
    )


def random_colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.1, 0.7),
    value: tuple[float, float] = (0.25, 0.9),
) -> Colour:
    """Return a random sRGB colour (3,) with saturation and value in the given ranges."""
    return colour(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def wood_colour(rng: np.random.Generator) -> Colour:
    """Return a colour (3,) between pale birch and dark walnut."""
    return colour(rng.uniform(0.045, 0.105), rng.uniform(0.25, 0.65), rng.uniform(0.28, 0.82))


def mix(first: Colour | Tile, second: Colour | Tile, amount: Tile) -> Tile:
    """Blend two colours (or tiles) by `amount` (n, n) in [0, 1]."""
    weight = amount[..., None]
    return np.asarray(first * (1 - weight) + second * weight, np.float32)


def axes(size: int) -> tuple[Tile, Tile]:
    """Return the tile coordinates x and y (n, n) of the pixel centres, in [0, 1)."""
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x, y = np.meshgrid(line, line)
    return x, y


def flat(size: int, base: Colour) -> Tile:
    """Return a tile of one colour."""
    return np.broadcast_to(base, (size, size, 3)).astype(np.float32)


def cells(
    rng: np.random.Generator, size: int, columns: int, rows: int, gap: float, shift: float = 0.0
) -> tuple[Tile, Tile]:
    """
    Return a brick-like layout: gap mask and one random value per brick, both (n, n).

    `gap` is the joint's half width as a fraction of the tile; every second row is moved by
    `shift` of a brick.
    """
    x, y = axes(size)
    row = np.floor(y * rows).astype(np.int64)
    moved = x * columns + (row % 2) * np.float32(shift)
    column = np.floor(moved).astype(np.int64) % columns
    across = np.abs(moved - np.round(moved)) / columns
    along = np.abs(y * rows - np.round(y * rows)) / rows
    joint = (np.minimum(across, along) < gap).astype(np.float32)
    values = rng.random((rows, columns), np.float32)[row, column]
    return joint, values
