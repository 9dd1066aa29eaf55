# SPDX-License-Identifier: Apache-2.0
"""Small things on tables and shelves: packages, books, bottles, bowls, mugs, vases, cartons."""

from __future__ import annotations

from collections.abc import Callable

from mtl_perception.simulation import prints
from mtl_perception.simulation.shapes import box, cylinder, turned
from mtl_perception.simulation.workshop import Workshop
import numpy as np


def _package(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    width, depth = rng.uniform(0.05, 0.2), rng.uniform(0.04, 0.12)
    height = min(tallest, rng.uniform(0.08, 0.3))
    box(shop.builder, (-width / 2, -depth / 2, 0), (width / 2, depth / 2, height),
        shop.package(), fit='lrfbt', sides='lrfbt')
    return 0.5 * float(width * width + depth * depth) ** 0.5


def _carton(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    width, depth = rng.uniform(0.15, 0.3), rng.uniform(0.12, 0.22)
    height = min(tallest, rng.uniform(0.1, 0.28))
    box(shop.builder, (-width / 2, -depth / 2, 0), (width / 2, depth / 2, height),
        shop.carton(), fit='lrfbt', sides='lrfbt')
    return 0.5 * float(width * width + depth * depth) ** 0.5


def _books(shop: Workshop, tallest: float) -> float:
    rng, level = shop.rng, 0.0
    for _ in range(int(rng.integers(1, 6))):
        thick = rng.uniform(0.012, 0.045)
        if level + thick > tallest:
            break
        width, depth = rng.uniform(0.13, 0.2), rng.uniform(0.1, 0.15)
        with shop.builder.at(0, 0, level, rng.uniform(-0.3, 0.3)):
            box(shop.builder, (-width / 2, -depth / 2, 0), (width / 2, depth / 2, thick),
                shop.ceramic(), sides='lrfbt')
        level += thick
    return 0.13


def _bottle(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    radius, height = rng.uniform(0.025, 0.045), min(tallest, rng.uniform(0.16, 0.33))
    neck = radius * rng.uniform(0.3, 0.5)
    turned(shop.builder, (0, 0, 0),
           [(0, height), (neck, height), (neck, height * 0.75), (radius, height * 0.6),
            (radius, 0)], shop.ceramic(), segments=14)
    if rng.random() < 0.6:
        band = radius + 0.001
        turned(shop.builder, (0, 0, 0), [(band, height * 0.5), (band, height * 0.15)],
               shop.package(), segments=14)
    return radius


def _mug(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    radius, height = rng.uniform(0.03, 0.05), min(tallest, rng.uniform(0.07, 0.13))
    inner = radius - 0.005
    turned(shop.builder, (0, 0, 0),
           [(0, 0.01), (inner, 0.01), (inner, height), (radius, height), (radius, 0)],
           shop.ceramic(), segments=16)
    if rng.random() < 0.6:
        box(shop.builder, (radius - 0.002, -0.006, height * 0.25),
            (radius + 0.025, 0.006, height * 0.75), shop.ceramic())
    return radius + 0.02


def _bowl(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    radius = rng.uniform(0.06, 0.16)
    height = min(tallest, radius * rng.uniform(0.3, 0.7))
    profile = [(0.0, 0.012), (radius * 0.55, 0.015), (radius * 0.9, height * 0.6),
               (radius * 0.97, height), (radius, height), (radius * 0.6, 0.0)]
    turned(shop.builder, (0, 0, 0), profile, shop.ceramic(), segments=20)
    for _ in range(int(rng.integers(0, 5))):
        fruit = rng.uniform(0.03, 0.042)
        x, y = rng.uniform(-0.4, 0.4, 2) * radius
        ball(shop, (x, y, 0.02), fruit)
    return radius


def ball(shop: Workshop, base: tuple[float, float, float], radius: float) -> None:
    """Add a ball that lies on `base`."""
    profile = [(radius * s, radius * (1 + c)) for s, c in (
        (0.0, 1.0), (0.5, 0.866), (0.866, 0.5), (1.0, 0.0), (0.866, -0.5), (0.5, -0.866),
        (0.0, -1.0))]
    turned(shop.builder, base, profile, shop.ceramic(), segments=12, smooth=True)


def _vase(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    height, radius = min(tallest, rng.uniform(0.12, 0.4)), rng.uniform(0.04, 0.09)
    shape = [(s * radius, z * height) for s, z in zip(
        rng.uniform(0.35, 1.0, 6), (1.0, 0.85, 0.65, 0.4, 0.15, 0.0))]
    turned(shop.builder, (0, 0, 0), shape, shop.ceramic(), segments=18, smooth=True)
    return radius


def _can(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    radius, height = rng.uniform(0.03, 0.07), min(tallest, rng.uniform(0.08, 0.2))
    material = shop.package() if rng.random() < 0.5 else shop.metal()
    cylinder(shop.builder, (0, 0, 0), radius, height, material, segments=16)
    return radius


def _plate(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    radius = rng.uniform(0.08, 0.15)
    cylinder(shop.builder, (0, 0, 0), radius * 0.6, min(tallest, 0.018), shop.ceramic(),
             segments=24, top_radius=radius)
    return radius


def _appliance(shop: Workshop, tallest: float) -> float:
    rng = shop.rng
    width, depth = rng.uniform(0.16, 0.3), rng.uniform(0.16, 0.24)
    height = min(tallest, rng.uniform(0.18, 0.38))
    body = shop.metal()
    box(shop.builder, (-width / 2, -depth / 2, 0), (width / 2, depth / 2, height), body)
    box(shop.builder, (-width * 0.4, depth / 2, height * 0.2),
        (width * 0.2, depth / 2 + 0.006, height * 0.85), shop.black, sides='lrftd')
    cylinder(shop.builder, (width * 0.33, depth / 2 + 0.004, height * 0.55), 0.02, 0.03,
             shop.chrome, segments=10)
    return 0.5 * float(width * width + depth * depth) ** 0.5


def _papers(shop: Workshop, tallest: float) -> float:
    """Sheets and magazines, fanned out."""
    rng, level = shop.rng, 0.0
    for _ in range(int(rng.integers(1, 6))):
        thick = rng.uniform(0.001, 0.008)
        page = shop.choose('page', lambda: shop.picture(prints.page), 6)
        material = page if rng.random() < 0.6 else shop.package()
        x, y, turn = (float(value) for value in rng.normal(0, (0.04, 0.04, 0.5)))
        with shop.builder.at(x, y, level, turn):
            box(shop.builder, (-0.105, -0.148, 0), (0.105, 0.148, thick), material,
                sides='lrfbt', fit='t')
        level += thick + 0.0005
    return 0.19


def _leaning(shop: Workshop, tallest: float) -> float:
    """Lean a picture frame, calendar, tablet or open book back."""
    rng = shop.rng
    width, height = rng.uniform(0.12, 0.26), min(tallest * 0.95, rng.uniform(0.14, 0.34))
    face = shop.choose('page', lambda: shop.picture(prints.page), 6)
    if rng.random() < 0.6:
        face = shop.painting() if rng.random() < 0.3 else shop.package()
    with shop.builder.at(0, 0.0, 0, rng.normal(0, 0.3), rng.uniform(0.12, 0.4)):
        box(shop.builder, (-width / 2, -0.008, 0), (width / 2, 0.008, height),
            shop.ceramic(), front=face, fit='f', sides='lrfbt')
    return width * 0.6


# What it is, how often, and the most room it takes around its middle (m).
_THINGS: tuple[tuple[Callable[[Workshop, float], float], float, float], ...] = (
    (_package, 0.17, 0.12), (_books, 0.1, 0.14), (_bottle, 0.12, 0.05), (_mug, 0.11, 0.08),
    (_bowl, 0.07, 0.16), (_vase, 0.06, 0.09), (_can, 0.1, 0.07), (_plate, 0.05, 0.15),
    (_appliance, 0.03, 0.2), (_carton, 0.03, 0.19), (_papers, 0.09, 0.2), (_leaning, 0.07, 0.16),
)


def scatter(
    shop: Workshop,
    low: tuple[float, float],
    high: tuple[float, float],
    level: float,
    count: int,
    *,
    tallest: float = 0.45,
) -> None:
    """Put up to `count` things on the area low..high (x, y) at height `level`, none touching."""
    rng = shop.rng
    taken: list[tuple[float, float, float]] = []
    weights = [weight for _, weight, _ in _THINGS]
    for _ in range(count):
        make, _, reach = _THINGS[int(rng.choice(len(_THINGS), p=weights))]
        if high[0] - low[0] < 2 * reach or high[1] - low[1] < 2 * reach:
            make, reach = ((_mug, 0.08), (_bottle, 0.05), (_can, 0.07))[int(rng.integers(3))]
        for _ in range(12):
            x, y = rng.uniform(low[0], high[0]), rng.uniform(low[1], high[1])
            room = min(x - low[0], high[0] - x, y - low[1], high[1] - y)
            clear = all((x - a) ** 2 + (y - b) ** 2 > (r + reach) ** 2 for a, b, r in taken)
            if room > 0.7 * reach and clear:
                shop.builder.begin('box')
                turn = rng.normal(0, 0.25) + (np.pi if rng.random() < 0.3 else 0.0)
                with shop.builder.at(x, y, level, turn):
                    taken.append((x, y, make(shop, tallest)))
                break
