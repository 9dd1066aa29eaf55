# SPDX-License-Identifier: Apache-2.0
"""Procedural surface textures: paint, wood, tiles, stone, cloth, carpet, metal, leaves."""

from __future__ import annotations

from mtl_perception.simulation.patterns import (
    axes,
    cells,
    Colour,
    colour,
    flat,
    mix,
    noise,
    random_colour,
    Tile,
)
import numpy as np


def paint(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return painted plaster: one colour, faint roller marks and blotches."""
    blotches = noise(rng, size, (3, 3), 3) - 0.5
    grain = noise(rng, size, (64, 64), 2) - 0.5
    return flat(size, base) * (1 + 0.05 * blotches + 0.05 * grain)[..., None]


def plaster(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return rough plaster or popcorn ceiling: lit from one side."""
    height = noise(rng, size, (24, 24), 3)
    slope = np.roll(height, 1, 0) - height + np.roll(height, 1, 1) - height
    return flat(size, base) * (1 + rng.uniform(0.4, 1.5) * slope)[..., None]


def wallpaper(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return wallpaper: stripes, dots, lozenges or a mirrored ornament on a ground colour."""
    x, y = axes(size)
    count = int(rng.integers(2, 9))
    second = np.clip(base * rng.uniform(0.65, 1.2) + rng.uniform(-0.1, 0.1, 3), 0, 1)
    kind = rng.integers(5)
    if kind == 0:
        amount = ((x * count) % 1 < rng.uniform(0.2, 0.8)).astype(np.float32)
    elif kind == 1:
        dx, dy = (x * count) % 1 - 0.5, (y * count) % 1 - 0.5
        amount = (dx * dx + dy * dy < rng.uniform(0.02, 0.12)).astype(np.float32)
    elif kind == 2:
        wave = np.cos(2 * np.pi * count * (x + y)) * np.cos(2 * np.pi * count * (x - y))
        amount = (wave > rng.uniform(-0.2, 0.5)).astype(np.float32)
    elif kind == 3:
        quarter = noise(rng, size, (4, 4), 3)
        ornament = quarter + quarter[:, ::-1]
        amount = (ornament > np.median(ornament)).astype(np.float32)
    else:
        fine = (x * count * 3) % 1
        amount = 0.5 * (fine < 0.15) + 0.5 * ((x * count) % 1 < 0.3)
    return mix(base, second.astype(np.float32), amount.astype(np.float32)) * (
        0.97 + 0.06 * noise(rng, size, (64, 64), 1)
    )[..., None]


def wood(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return wood with its grain along x."""
    rings = noise(rng, size, (2, 10), 3)
    bands = 0.5 + 0.5 * np.sin(rings * rng.uniform(8, 30))
    fibre = noise(rng, size, (6, 128), 2)
    amount = np.clip(rng.uniform(0.2, 0.5) * bands + 0.6 * fibre - 0.15, 0, 1)
    dark = base * rng.uniform(0.6, 0.9)
    return mix(base, dark.astype(np.float32), amount)


def planks(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return floor boards along x, each with its own tone and grain offset."""
    rows = int(rng.integers(4, 10))
    joint, tone = cells(rng, size, int(rng.integers(1, 4)), rows, 0.0022, rng.uniform(0.2, 0.8))
    grain = wood(rng, size, base)
    shift = (tone * size).astype(np.int64)
    y, x = np.indices((size, size))
    grain = grain[y, (x + shift) % size]
    tone_span = rng.uniform(0.1, 0.45)
    boards = grain * (1 - tone_span / 2 + tone_span * tone)[..., None]
    return mix(boards.astype(np.float32), (base * 0.35).astype(np.float32), joint * 0.8)


def tiles(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return ceramic tiles with grout: square, checkered, running bond or mosaic."""
    kind = rng.integers(4)
    columns, rows, shift = ((4, 4, 0.0), (4, 4, 0.0), (4, 8, 0.5), (12, 12, 0.0))[kind]
    joint, tone = cells(rng, size, columns, rows, rng.uniform(0.002, 0.006), shift)
    body = flat(size, base) * (1 + rng.uniform(0.02, 0.25) * (tone - 0.5))[..., None]
    if kind == 1:
        x, y = axes(size)
        odd = (np.floor(x * columns) + np.floor(y * rows)) % 2
        other = np.clip(base * rng.uniform(0.2, 0.7), 0, 1).astype(np.float32)
        body = mix(body.astype(np.float32), other, odd.astype(np.float32))
    veins = noise(rng, size, (6, 6), 5)
    body = body * (1 + rng.uniform(0, 0.25) * (veins - 0.5))[..., None]
    grout = np.full(3, rng.uniform(0.3, 0.9), np.float32)
    return mix(body.astype(np.float32), grout, joint)


def brick(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return a brick wall."""
    joint, tone = cells(rng, size, 4, 12, 0.006, 0.5)
    rough = noise(rng, size, (32, 32), 3)
    body = flat(size, base) * (0.7 + 0.4 * tone + 0.4 * (rough - 0.5))[..., None]
    return mix(body.astype(np.float32), np.full(3, rng.uniform(0.5, 0.85), np.float32), joint)


def stone(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return polished stone: veined marble or speckled granite."""
    if rng.random() < 0.5:
        vein = 1 - np.abs(2 * noise(rng, size, (3, 3), 5) - 1)
        amount = np.clip((vein - 0.8) * 5, 0, 1) * rng.uniform(0.3, 0.9)
        return mix(base, (1 - base).astype(np.float32) * 0.6, amount.astype(np.float32))
    grain = noise(rng, size, (96, 96), 2)
    return flat(size, base) * (0.65 + 0.7 * grain)[..., None]


def cloth(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return woven cloth: plain, striped, checked or with printed blots."""
    x, y = axes(size)
    threads = 2 * np.pi * int(rng.integers(16, 30))
    weave = 0.5 + 0.25 * np.sin(threads * x) + 0.25 * np.sin(threads * y)
    body = flat(size, base)
    second = random_colour(rng)
    kind = rng.integers(6)
    count = int(rng.integers(2, 10))
    if kind == 3:
        body = mix(base, second, ((x * count) % 1 < rng.uniform(0.2, 0.6)).astype(np.float32))
    elif kind == 4:
        band = 0.5 * ((x * count) % 1 < 0.4) + 0.5 * ((y * count) % 1 < 0.4)
        body = mix(base, second, band.astype(np.float32))
    elif kind == 5:
        blots = noise(rng, size, (8, 8), 2)
        body = mix(base, second, (blots > rng.uniform(0.5, 0.7)).astype(np.float32))
    wear = noise(rng, size, (4, 4), 4)
    lint = noise(rng, size, (48, 48), 1)
    return body * (0.86 + 0.12 * weave + 0.1 * wear + 0.08 * lint)[..., None]


def carpet(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return carpet pile: plain, mottled, finely striped, or laid in turned squares."""
    pile = noise(rng, size, (64, 64), 2)
    kind = rng.integers(4)
    amount = 0.15 * noise(rng, size, (4, 4), 3)
    if kind == 1:
        amount = 0.5 * noise(rng, size, (16, 16), 3)
    elif kind >= 2:
        stripes = np.repeat(noise(rng, size, (1, 64), 2)[:, :1], size, axis=1)
        if kind == 3:
            half = size // 2
            stripes[:half, :half] = stripes[:half, :half].T
            stripes[half:, half:] = stripes[half:, half:].T
        amount = rng.uniform(0.3, 0.9) * stripes
    return flat(size, base) * (0.6 + 0.4 * pile + amount)[..., None]


def ceiling_panels(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return a suspended ceiling: speckled panels in a grid of rails."""
    joint, tone = cells(rng, size, 2, 2, 0.008)
    specks = (noise(rng, size, (64, 64), 2) < 0.3).astype(np.float32)
    body = flat(size, base) * (0.97 + 0.04 * tone - 0.18 * specks)[..., None]
    return mix(body.astype(np.float32), (base * 0.82).astype(np.float32), joint)


def linoleum(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return linoleum or terrazzo: chips of several tones."""
    chips = noise(rng, size, (48, 48), 2)
    marble = noise(rng, size, (5, 5), 5)
    strength = rng.uniform(0.05, 0.5)
    return flat(size, base) * (1 + strength * (chips - 0.5) + 0.15 * (marble - 0.5))[..., None]


def metal(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return brushed metal, brushed along x."""
    brushed = noise(rng, size, (2, 128), 2)
    return flat(size, base) * (0.9 + 0.2 * brushed)[..., None]


def leather(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return leather: fine creases and broad wear."""
    crease = np.abs(2 * noise(rng, size, (24, 24), 3) - 1)
    return flat(size, base) * (0.8 + 0.25 * crease + 0.1 * noise(rng, size, (3, 3), 2))[..., None]


def leaf(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return a leaf's green with a midrib along y."""
    x, y = axes(size)
    rib = np.exp(-(((x - 0.5) / 0.03) ** 2))
    side = 0.5 + 0.5 * np.sin(2 * np.pi * (8 * y + 6 * np.abs(x - 0.5)))
    return flat(size, base) * (0.8 + 0.3 * rib + 0.12 * side)[..., None]


def cardboard(rng: np.random.Generator, size: int, base: Colour) -> Tile:
    """Return a carton's side: flutes, tape and a printed mark."""
    x, y = axes(size)
    body = flat(size, base) * (0.94 + 0.06 * np.sin(2 * np.pi * 48 * x))[..., None]
    tape = (np.abs(x - 0.5) < 0.06).astype(np.float32) * 0.5
    body = mix(body.astype(np.float32), colour(0.11, 0.3, 0.85), tape)
    x0, y0 = rng.uniform(0.55, 0.65), rng.uniform(0.1, 0.6)
    mark = ((x > x0) & (x < x0 + 0.25) & (y > y0) & (y < y0 + 0.15)).astype(np.float32)
    return mix(body, random_colour(rng), mark)
