# SPDX-License-Identifier: Apache-2.0
"""Procedural prints: paintings, posters, labels, rugs, book spines, screens, views outside."""

from __future__ import annotations

import cv2
from mtl_perception.simulation.patterns import (
    axes,
    colour,
    flat,
    mix,
    noise,
    random_colour,
    Tile,
)
import numpy as np


def _shapes(rng: np.random.Generator, canvas: Tile, count: int) -> None:
    """Draw random discs, boxes and strokes on the canvas."""
    size = len(canvas)
    for _ in range(count):
        ink = tuple(float(value) for value in random_colour(rng, (0.0, 0.9), (0.1, 1.0)))
        a, b = (tuple(int(v) for v in rng.integers(0, size, 2)) for _ in range(2))
        kind = rng.integers(4)
        if kind == 0:
            cv2.circle(canvas, a, int(rng.integers(size // 20, size // 4)), ink, -1, cv2.LINE_AA)
        elif kind == 1:
            cv2.rectangle(canvas, a, b, ink, -1)
        elif kind == 2:
            cv2.line(canvas, a, b, ink, int(rng.integers(2, size // 12)), cv2.LINE_AA)
        else:
            extent = tuple(int(v) for v in rng.integers(size // 16, size // 3, 2))
            cv2.ellipse(canvas, a, extent, int(rng.integers(180)), 0, 360, ink, -1, cv2.LINE_AA)


def _text(rng: np.random.Generator, canvas: Tile, lines: int) -> None:
    """Write rows of made-up letters: strokes on a grid of five by seven, left half mirrored."""
    size = len(canvas)
    for _ in range(lines):
        ink = random_colour(rng, (0, 1), (0.0, 1.0))
        pixel = int(rng.integers(1, max(2, size // 48)))
        x, y = int(rng.integers(0, size // 2)), int(rng.integers(0, size - 7 * pixel))
        for _ in range(int(rng.integers(3, 10))):
            glyph = rng.random((7, 5)) < 0.55
            glyph[:, 3:] = glyph[:, 1::-1]
            mask = np.kron(glyph, np.ones((pixel, pixel), np.bool_))
            width = min(mask.shape[1], size - x)
            if width <= 0:
                break
            canvas[y : y + len(mask), x : x + width][mask[:, :width]] = ink
            x += 6 * pixel


def landscape(rng: np.random.Generator, size: int) -> Tile:
    """Return a painted landscape: sky, layered hills, a sun, brush marks."""
    _, y = axes(size)
    picture = mix(colour(rng.uniform(0.5, 0.65), 0.5, 0.8), colour(rng.random(), 0.25, 0.95), y)
    centre = tuple(int(v) for v in rng.integers(size // 8, size * 7 // 8, 2) // (1, 2))
    cv2.circle(picture, centre, size // 14, (1.0, 0.9, 0.7), -1, cv2.LINE_AA)
    hue = rng.uniform(0.2, 0.5)
    for layer in range(4):
        ridge = 0.4 + 0.14 * layer + 0.15 * (noise(rng, size, (3, 1), 4)[0] - 0.5)
        hill = (y > ridge[None]).astype(np.float32)
        picture = mix(picture, colour(hue, 0.3 + 0.1 * layer, 0.7 - 0.14 * layer), hill)
    return picture * (0.9 + 0.2 * noise(rng, size, (24, 48), 2))[..., None]


def abstract(rng: np.random.Generator, size: int) -> Tile:
    """Return an abstract painting or poster with lettering."""
    canvas = flat(size, random_colour(rng, (0.0, 0.6), (0.3, 1.0))).copy()
    _shapes(rng, canvas, int(rng.integers(3, 14)))
    if rng.random() < 0.4:
        _text(rng, canvas, int(rng.integers(1, 4)))
    return canvas


def portrait(rng: np.random.Generator, size: int) -> Tile:
    """Return a portrait: head, hair and shoulders before a ground."""
    _, y = axes(size)
    canvas = mix(random_colour(rng, (0.1, 0.5), (0.2, 0.8)), random_colour(rng), y)
    skin = colour(rng.uniform(0.04, 0.09), rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.95))
    coat = random_colour(rng)
    hair = colour(rng.uniform(0.02, 0.1), 0.5, rng.uniform(0.05, 0.6))
    middle = size // 2
    for ink, centre, extent in (
        (coat, (middle, size), (int(size * 0.36), int(size * 0.34))),
        (hair, (middle, int(size * 0.4)), (int(size * 0.19), int(size * 0.24))),
        (skin, (middle, int(size * 0.45)), (int(size * 0.14), int(size * 0.19))),
    ):
        ink_tuple = tuple(float(value) for value in ink)
        cv2.ellipse(canvas, centre, extent, 0, 0, 360, ink_tuple, -1, cv2.LINE_AA)
    return canvas * (0.9 + 0.2 * noise(rng, size, (32, 32), 2))[..., None]


def package(rng: np.random.Generator, size: int) -> Tile:
    """Return the printed side of a package: bands, shapes, lettering."""
    canvas = flat(size, random_colour(rng, (0.0, 0.9), (0.3, 1.0))).copy()
    _shapes(rng, canvas, int(rng.integers(1, 5)))
    _text(rng, canvas, int(rng.integers(2, 6)))
    return canvas


def page(rng: np.random.Generator, size: int) -> Tile:
    """Return a printed page: heading, columns of lines, sometimes a picture."""
    paper = colour(0.12, rng.uniform(0.0, 0.12), rng.uniform(0.88, 1.0))
    canvas = flat(size, paper).copy()
    margin, top = size // 10, size // 10
    ink = random_colour(rng, (0.0, 0.9), (0.05, 0.6))
    canvas[top : top + size // 14, margin : size // 2 + int(rng.integers(0, size // 3))] = ink
    top += size // 7
    if rng.random() < 0.6:
        bottom = top + size // 4
        canvas[top:bottom, margin : size - margin] = random_colour(rng)
        top = bottom + size // 20
    for y in range(top, size - margin, max(3, size // 28)):
        end = int(rng.uniform(0.75, 0.92) * size)
        canvas[y : y + max(1, size // 90), margin:end] = paper * 0.35
    return canvas


def rug(rng: np.random.Generator, size: int) -> Tile:
    """Return a rug seen as a whole: borders around a symmetric field."""
    x, y = axes(size)
    field = noise(rng, size, (int(rng.integers(3, 10)),) * 2, 2)
    field = field + field[:, ::-1] + field[::-1] + field[::-1, ::-1]
    levels = np.digitize(field, np.quantile(field, (0.3, 0.55, 0.8)))
    palette = np.stack([random_colour(rng, (0.1, 0.8), (0.2, 0.85)) for _ in range(6)])
    picture = palette[levels] if rng.random() < 0.7 else flat(size, palette[0])
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    if rng.random() < 0.75:
        for limit, ink in ((0.14, 4), (0.1, 5), (0.03, 4)):
            picture = mix(picture, palette[ink], (edge < limit).astype(np.float32))
    return picture * (0.8 + 0.3 * noise(rng, size, (128, 128), 1))[..., None]


def book_spines(rng: np.random.Generator, size: int) -> Tile:
    """Return a row of book spines with titles."""
    picture = np.full((size, size, 3), 0.05, np.float32)
    left = 0
    while left < size:
        width = int(rng.integers(size // 28, size // 9))
        top = int(rng.integers(0, size // 4))
        ink = random_colour(rng, (0.0, 0.9), (0.1, 0.95))
        picture[top:, left : left + width - 1] = ink
        band = int(rng.integers(size // 3, size - size // 8))
        title = random_colour(rng, (0, 0.4), (0.6, 1.0))
        picture[band : band + size // 14, left + 1 : left + width - 2] = title
        left += width
    return picture


def screen(rng: np.random.Generator, size: int) -> Tile:
    """Return what a television shows: a scene, or windows on a desktop."""
    if rng.random() < 0.5:
        return landscape(rng, size)
    canvas = flat(size, random_colour(rng, (0.2, 0.8), (0.1, 0.5))).copy()
    for _ in range(int(rng.integers(1, 4))):
        x, y = (int(v) for v in rng.integers(0, size // 2, 2))
        width, height = (int(v) for v in rng.integers(size // 4, size // 2, 2))
        cv2.rectangle(canvas, (x, y), (x + width, y + height), (0.9, 0.9, 0.92), -1)
        for line in range(y + size // 24, y + height - 4, size // 28):
            end = x + int(width * rng.uniform(0.3, 0.95))
            cv2.line(canvas, (x + size // 40, line), (end, line), (0.3, 0.3, 0.35), 1)
    return canvas


def outside(rng: np.random.Generator, size: int) -> Tile:
    """Return the blurred view out of a window: sky above trees, houses or a street."""
    x, y = axes(size)
    sky = mix(colour(0.58, rng.uniform(0.05, 0.5), 1.0), colour(0.58, 0.08, 1.0), y)
    canvas = sky.copy()
    horizon = rng.uniform(0.45, 0.75)
    for _ in range(int(rng.integers(2, 7))):
        left, width = rng.uniform(0, 0.9), rng.uniform(0.1, 0.4)
        top = horizon - rng.uniform(0.0, 0.35)
        body = ((x > left) & (x < left + width) & (y > top)).astype(np.float32)
        canvas = mix(canvas, random_colour(rng, (0.05, 0.3), (0.4, 0.8)), body)
    trees = horizon - 0.25 * (noise(rng, size, (5, 1), 5)[0] - 0.35)
    green = colour(rng.uniform(0.2, 0.35), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.6))
    leaves = (0.7 + 0.6 * noise(rng, size, (16, 16), 3))[..., None]
    canvas = mix(canvas, (green * leaves).astype(np.float32), (y > trees[None]).astype(np.float32))
    return cv2.GaussianBlur(np.ascontiguousarray(canvas), (0, 0), size / 128)
