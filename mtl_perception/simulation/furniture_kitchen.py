# SPDX-License-Identifier: Apache-2.0
"""A fitted kitchen: a run of base and wall units with worktop, sink, hob, oven, refrigerator."""

from __future__ import annotations

from dataclasses import dataclass

from mtl_perception.simulation import textures
from mtl_perception.simulation.clutter import scatter
from mtl_perception.simulation.furniture_cases import fronts
from mtl_perception.simulation.patterns import colour, random_colour
from mtl_perception.simulation.shapes import box, cylinder, rod
from mtl_perception.simulation.workshop import Workshop

BASE_DEPTH, BASE_HEIGHT = 0.6, 0.9


@dataclass(frozen=True)
class KitchenStyle:
    """What the units of one kitchen share."""

    front: int
    wall_front: int
    body: int
    worktop: int
    splash: int
    handle: int


def draw_style(shop: Workshop) -> KitchenStyle:
    """Draw the fronts, worktop and splashback of a kitchen."""
    rng = shop.rng
    front = shop.board()
    pale = random_colour(rng, (0.0, 0.4), (0.4, 0.95))
    splash = (
        shop.surface(textures.tiles, pale, scale=rng.uniform(0.5, 1.0), gloss=0.05, size=256)
        if rng.random() < 0.7 else shop.stone()
    )
    return KitchenStyle(
        front, front if rng.random() < 0.7 else shop.board(),
        front if rng.random() < 0.5 else shop.white,
        shop.wood() if rng.random() < 0.35 else shop.stone(), splash, shop.metal(),
    )


def refrigerator(shop: Workshop) -> tuple[float, float, float]:
    """Add a refrigerator with its freezer door."""
    rng, add = shop.rng, shop.builder
    add.begin('cabinet')
    width, depth, height = rng.uniform(0.6, 0.75), rng.uniform(0.6, 0.7), rng.uniform(1.5, 1.9)
    skin = (shop.white, shop.chrome, shop.black, shop.lacquer())[int(rng.integers(4))]
    half, split = width / 2, height * rng.choice((0.35, 0.68))
    box(add, (-half, 0, 0.03), (half, depth - 0.05, height), skin, grain='z')
    for z0, z1 in ((0.05, split - 0.005), (split + 0.005, height)):
        box(add, (-half, depth - 0.045, z0), (half, depth, z1), skin, grain='z')
        z = z1 - 0.32 if z0 < 0.1 and split > 1 else max(z0 + 0.05, z1 - 0.4)
        box(add, (-half + 0.04, depth, z), (-half + 0.06, depth + 0.035, min(z1, z + 0.3)),
            shop.chrome, sides='lrftd')
    for _ in range(int(rng.integers(0, 5))):
        add.begin('box')
        x, z = rng.uniform(-half + 0.1, half - 0.1), rng.uniform(split, height - 0.1)
        side = rng.uniform(0.03, 0.08)
        box(add, (x, depth + 0.001, z), (x + side, depth + 0.003, z + side), shop.package(),
            sides='lrftd', fit='f')
    return width, depth + 0.04, height


def _oven(shop: Workshop, x: float, low: float, front: float) -> None:
    add = shop.builder
    box(add, (x, front - 0.018, low), (x + 0.6, front + 0.004, low + 0.6), shop.metal(),
        sides='lrftd')
    box(add, (x + 0.06, front + 0.004, low + 0.08), (x + 0.54, front + 0.008, low + 0.42),
        shop.black, sides='lrftd')
    rod(add, (x + 0.06, front + 0.045, low + 0.46), (x + 0.54, front + 0.045, low + 0.46), 0.01,
        shop.chrome, 8)
    for knob in range(5):
        box(add, (x + 0.08 + 0.1 * knob, front, low + 0.52),
            (x + 0.12 + 0.1 * knob, front + 0.025, low + 0.56), shop.black, sides='lrftd')


def _sink(shop: Workshop, x: float) -> None:
    add = shop.builder
    top = BASE_HEIGHT + 0.003
    box(add, (x, 0.09, BASE_HEIGHT), (x + 0.62, 0.53, top), shop.chrome, sides='lrfbt')
    box(add, (x + 0.04, 0.14, top), (x + 0.42, 0.49, top + 0.0005), shop.black, sides='t')
    pipe = shop.chrome
    rod(add, (x + 0.23, 0.09, top), (x + 0.23, 0.09, top + 0.26), 0.014, pipe, 10)
    rod(add, (x + 0.23, 0.09, top + 0.26), (x + 0.23, 0.27, top + 0.24), 0.012, pipe, 10)
    box(add, (x + 0.255, 0.08, top + 0.05), (x + 0.31, 0.1, top + 0.07), pipe)


def _hob(shop: Workshop, x: float) -> None:
    add, z = shop.builder, BASE_HEIGHT
    box(add, (x, 0.06, z), (x + 0.58, 0.54, z + 0.006), shop.black, sides='lrfbt')
    for dx, dy, radius in ((0.15, 0.18, 0.075), (0.43, 0.18, 0.09), (0.15, 0.42, 0.09),
                           (0.43, 0.42, 0.075)):
        cylinder(add, (x + dx, dy, z + 0.006), radius, 0.004, shop.metal(), segments=20)
    if shop.rng.random() < 0.6:
        add.begin('box')
        radius = shop.rng.uniform(0.08, 0.13)
        cylinder(add, (x + 0.43, 0.42, z + 0.011), radius, radius * 1.1, shop.metal(), segments=22)
        rod(add, (x + 0.43, 0.42 + radius, z + radius), (x + 0.43, 0.6 + radius, z + radius),
            0.012, shop.black)


def units(shop: Workshop, style: KitchenStyle, width: float, things: int) -> None:
    """Add base units with worktop, sink, hob and oven, `width` metres wide from x = 0."""
    rng, add = shop.rng, shop.builder
    add.begin('cabinet')
    box(add, (0, 0, 0), (width, BASE_DEPTH - 0.1, 0.1), shop.black, sides='lrf')
    box(add, (0, 0, 0.1), (width, BASE_DEPTH - 0.02, BASE_HEIGHT - 0.04), style.body)
    box(add, (-0.005, 0, BASE_HEIGHT - 0.04), (width + 0.005, BASE_DEPTH + 0.02, BASE_HEIGHT),
        style.worktop)
    count = max(1, round(width / 0.6))
    each = width / count
    special = [int(value) for value in rng.permutation(count)]
    hob = special[0] if each > 0.58 else -1
    sink = special[1] if count > 2 else -1
    for index in range(count):
        x = index * each
        if index == hob:
            _oven(shop, x, 0.18, BASE_DEPTH - 0.002)
            continue
        rows = (1, 1, 3, 4)[int(rng.integers(4))]
        fronts(shop, (x, 0.1), (x + each, BASE_HEIGHT - 0.045), BASE_DEPTH - 0.02, 1, rows,
               style.front, style.handle)
    free: list[tuple[float, float]] = []
    for index in range(count):
        if index == hob:
            _hob(shop, index * each)
            add.begin('cabinet')
        elif index == sink and (index + 1) * each + 0.05 < width:
            _sink(shop, index * each)
        else:
            free.append((index * each, (index + 1) * each))
    for x0, x1 in free:
        share = max(1, round(things / max(1, len(free))))
        scatter(shop, (x0 + 0.02, 0.06), (x1 - 0.02, BASE_DEPTH - 0.06), BASE_HEIGHT, share)


def wall_units(shop: Workshop, style: KitchenStyle, width: float, height: float) -> None:
    """Add wall units `width` metres wide from x = 0, their lower edge at z = 0."""
    add, depth = shop.builder, 0.33
    add.begin('cabinet')
    box(add, (0, 0, 0), (width, depth - 0.02, height), style.body)
    fronts(shop, (0, 0), (width, height), depth - 0.02, max(1, round(width / 0.5)), 1,
           style.wall_front, style.handle)


def hood(shop: Workshop, x: float, ceiling: float) -> None:
    """Add an extractor hood over a hob at x, from 1.6 m up to the ceiling."""
    add = shop.builder
    add.begin('cabinet')
    box(add, (x, 0, 1.6), (x + 0.6, 0.48, 1.68), shop.chrome)
    box(add, (x + 0.17, 0, 1.68), (x + 0.43, 0.28, ceiling - 0.001), shop.chrome, sides='lrfbt',
        grain='z')


def splashback(shop: Workshop, style: KitchenStyle, width: float, top: float) -> None:
    """Add the splashback between worktop and `top`; it is a part of the wall."""
    shop.builder.begin('wall')
    box(shop.builder, (0, 0, BASE_HEIGHT), (width, 0.008, top), style.splash, sides='lrft')


def bin_or_bucket(shop: Workshop) -> tuple[float, float, float]:
    """Add a waste bin."""
    rng = shop.rng
    shop.builder.begin('box')
    radius, height = rng.uniform(0.12, 0.18), rng.uniform(0.28, 0.6)
    skin = shop.surface(textures.paint, colour(rng.random(), rng.uniform(0, 0.7),
                                               rng.uniform(0.2, 0.9)), gloss=0.04, size=32)
    cylinder(shop.builder, (0, radius, 0), radius * 0.85, height, skin, segments=20,
             top_radius=radius)
    return 2 * radius, 2 * radius, height
