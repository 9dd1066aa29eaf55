# SPDX-License-Identifier: Apache-2.0
"""
Lamps, plants, televisions, pictures, curtains, rugs.

Placement is as for furniture; what hangs on a wall has its lower edge at z = 0 and its back at
y = 0.
"""

from __future__ import annotations

import math

from mtl_perception.simulation import prints, textures
from mtl_perception.simulation.furniture_seats import Size
from mtl_perception.simulation.lighting import AreaLight
from mtl_perception.simulation.patterns import colour
from mtl_perception.simulation.shapes import box, cylinder, rectangle, rod, turned
from mtl_perception.simulation.workshop import Workshop
import numpy as np

Glow = tuple[float, float, float]


def _shade(shop: Workshop, glow: Glow | None, brightness: float) -> int:
    """Return a lampshade's material: shining where the lamp is lit."""
    if glow is None:
        return shop.cloth() if shop.rng.random() < 0.5 else shop.white
    return shop.emitter(glow, brightness)


def ceiling_lamp(
    shop: Workshop, x: float, y: float, ceiling: float, power: Glow, lit: bool, hang: float
) -> float:
    """Add a lamp under the ceiling, `hang` metres down; returns the height of its lower end."""
    rng, add = shop.rng, shop.builder
    add.begin('lamp')
    peak = max(power)
    glow = (power[0] / peak, power[1] / peak, power[2] / peak) if lit else None
    style = int(rng.integers(4)) if hang < 0.3 else int(rng.integers(4, 7))
    if style in (0, 1):
        radius, low = rng.uniform(0.12, 0.25), ceiling - rng.uniform(0.06, 0.12)
        turned(add, (x, y, 0), [(radius * 0.8, ceiling - 0.001), (radius, low + 0.03),
                                (radius * 0.7, low), (0.0, low - 0.01)],
               _shade(shop, glow, peak * 0.35), segments=24)
        spread = radius * 0.7
    elif style == 2:
        length = rng.uniform(0.6, 1.2)
        low = ceiling - 0.07
        box(add, (x - length / 2, y - 0.07, low), (x + length / 2, y + 0.07, ceiling - 0.001),
            _shade(shop, glow, peak * 0.3), sides='lrfbd')
        spread = length / 3
    elif style == 3:
        low = ceiling - 0.16
        box(add, (x - 0.4, y - 0.02, ceiling - 0.03), (x + 0.4, y + 0.02, ceiling - 0.001),
            shop.chrome, sides='lrfbd')
        for offset in (-0.3, 0.0, 0.3):
            cylinder(add, (x + offset, y, low), 0.04, 0.12, shop.metal(), segments=12)
            cylinder(add, (x + offset, y, low - 0.004), 0.034, 0.003,
                     _shade(shop, glow, peak), segments=12)
        spread = 0.25
    else:
        low = ceiling - hang
        rod(add, (x, y, ceiling), (x, y, low + 0.2), 0.006, shop.black)
        radius = rng.uniform(0.14, 0.26)
        if style == 4:
            radius = min(radius, 0.4 * hang)  # a ball stays below the ceiling
            ball = [(radius * math.sin(a), low + radius * (1 + math.cos(a)))
                    for a in np.linspace(0, math.pi, 9)]
            turned(add, (x, y, 0), ball, _shade(shop, glow, peak * 0.25), segments=20, smooth=True)
        else:
            skin = shop.metal() if style == 5 else _shade(shop, glow, peak * 0.2)
            turned(add, (x, y, 0), [(0.04, low + 0.24), (0.05, low + 0.2), (radius, low)], skin,
                   segments=24)
            cylinder(add, (x, y, low + 0.06), 0.04, 0.08, _shade(shop, glow, peak), segments=10)
        spread = radius * 0.5
    if lit:
        ring = [(spread * math.cos(a), spread * math.sin(a)) for a in np.arange(8) * 0.7854]
        share = (power[0] / 8, power[1] / 8, power[2] / 8)
        points = tuple((x + dx, y + dy, low - 0.03) for dx, dy in ring)
        shop.lights.append(AreaLight(points, share, None if style > 3 else (0.0, 0.0, -1.0)))
    return low


def standing_lamp(shop: Workshop, height: float, power: Glow, lit: bool) -> Size:
    """Add a lamp on a foot with a shade: on the floor, or smaller on a table."""
    rng, add = shop.rng, shop.builder
    add.begin('lamp')
    peak = max(power)
    glow = (power[0] / peak, power[1] / peak, power[2] / peak) if lit else None
    size = 0.16 + 0.05 * height
    with add.at(0, size):
        metal = shop.metal()
        cylinder(add, (0, 0, 0), size * 0.7, 0.02, metal, segments=20)
        if height < 0.8 and rng.random() < 0.5:
            belly = [(size * s, height * z) for s, z in
                     ((0.15, 0.6), (0.3, 0.5), (0.6, 0.3), (0.5, 0.12), (0.3, 0.01))]
            turned(add, (0, 0, 0), belly, shop.ceramic(), segments=16, smooth=True)
        else:
            cylinder(add, (0, 0, 0), 0.012 + 0.004 * height, height - 0.12, metal, segments=10)
        tall = min(0.32, height * 0.4)
        turned(add, (0, 0, 0), [(size * rng.uniform(0.5, 0.9), height), (size, height - tall)],
               _shade(shop, glow, peak * 0.7), segments=24)
        if lit:
            here = add.world_point((0, 0, height - tall / 2))
            points = tuple(
                (here[0], here[1], here[2] + dz) for dz in (-tall * 0.3, 0.0, tall * 0.3)
            )
            share = (power[0] / 3, power[1] / 3, power[2] / 3)
            shop.lights.append(AreaLight(points, share))
    return 2 * size, 2 * size, height


def plant(shop: Workshop, height: float) -> Size:
    """Add a pot plant with bent leaves."""
    rng, add = shop.rng, shop.builder
    add.begin('plant')
    radius = 0.07 + 0.09 * min(height, 1.5)
    pot = radius * rng.uniform(1.2, 1.8)
    green = shop.choose('leaf', lambda: shop.picture(
        lambda generator, size: textures.leaf(
            generator, size,
            colour(generator.uniform(0.22, 0.38), generator.uniform(0.4, 0.8),
                   generator.uniform(0.25, 0.6)))), 3)
    with add.at(0, radius + 0.05):
        turned(add, (0, 0, 0), [(0.0, pot * 0.9), (radius * 0.9, pot * 0.9), (radius, pot),
                                (radius * 0.75, 0.0)], shop.ceramic(), segments=18)
        count = int(rng.integers(14, 40))
        reach = rng.uniform(0.25, 0.5) * height
        for _ in range(count):
            turn = rng.uniform(0, 2 * math.pi)
            rise = rng.uniform(0.15, 1.0) * (height - pot)
            out, wide = reach * rng.uniform(0.4, 1.0), reach * rng.uniform(0.1, 0.35)
            way = np.linspace(0, 1, 5)
            distance = out * way
            level = pot * 0.9 + rise * np.sin(way * rng.uniform(1.4, 2.6)) / 1.0
            width = wide * np.sin(np.pi * np.clip(way * 0.9 + 0.08, 0, 1))
            edge = np.stack((distance, np.zeros(5), level), -1)
            side = np.stack((np.zeros(5), width / 2, np.zeros(5)), -1)
            points = np.stack((edge - side, edge + side * 0.0 + (0, 0, -0.01), edge + side), 1)
            texture = np.stack(np.meshgrid([0.0, 0.5, 1.0], way), -1)
            with add.at(0, 0, 0, turn):
                add.grid(points, green, texture)
    return 2 * (radius + 0.05), 2 * (radius + 0.05), height


def television(shop: Workshop, width: float, on_stand: bool, lit: bool) -> Size:
    """Add a flat screen, on a foot or for the wall."""
    add = shop.builder
    add.begin('television')
    tall, lift = width * 0.5625, 0.06 if on_stand else 0.0
    y = 0.08 if on_stand else 0.0
    box(add, (-width / 2, y, lift), (width / 2, y + 0.04, lift + tall), shop.black)
    inset = 0.012
    face = (
        shop.picture(prints.screen, size=256, emission=shop.rng.uniform(0.5, 1.5), gloss=0.04)
        if lit else shop.choose('screen', lambda: shop.surface(
            textures.paint, colour(0.6, 0.1, 0.04), gloss=0.06), 1)
    )
    rectangle(add, (width / 2 - inset, y + 0.0405, lift + tall - inset),
              (-width + 2 * inset, 0, 0), (0, 0, -tall + 2 * inset), face, fit=True)
    if on_stand:
        box(add, (-width * 0.2, 0.02, 0), (width * 0.2, 0.2, 0.012), shop.black, sides='lrfbt')
        box(add, (-0.04, 0.07, 0.01), (0.04, 0.1, 0.08), shop.black)
    return width, 0.22 if on_stand else 0.05, lift + tall


def picture(shop: Workshop, width: float, height: float) -> Size:
    """Add a framed picture, a bare canvas or a poster."""
    rng, add = shop.rng, shop.builder
    add.begin('picture')
    rim = float(rng.choice((0.0, 0.02, 0.035, 0.06)))
    deep = 0.022 if rim else float(rng.choice((0.003, 0.03)))
    frame = shop.wood() if rng.random() < 0.4 else shop.metal()
    half, canvas = width / 2, shop.painting()
    box(add, (-half, 0.0, 0), (half, deep, height), frame if rim else shop.white, sides='lrtd')
    y = deep - 0.006 if rim else deep
    mat = min(width, height) * 0.12 if rim and rng.random() < 0.5 else 0.0
    if rim:
        for low, high in (
            ((-half, 0), (half, rim)), ((-half, height - rim), (half, height)),
            ((-half, rim), (-half + rim, height - rim)),
            ((half - rim, rim), (half, height - rim)),
        ):
            box(add, (low[0], y, low[1]), (high[0], deep, high[1]), frame, sides='lrftd')
        if mat:
            box(add, (-half + rim, 0, rim), (half - rim, y, height - rim), shop.white, sides='f')
            y += 0.001
    edge = rim + mat
    rectangle(add, (half - edge, y, height - edge), (-width + 2 * edge, 0, 0),
              (0, 0, -height + 2 * edge), canvas, fit=True)
    return width, deep, height


def curtain(shop: Workshop, width: float, height: float) -> Size:
    """Add one hanging curtain, folded, its lower edge at z = 0."""
    rng, add = shop.rng, shop.builder
    add.begin('curtain')
    folds = max(2, round(width / rng.uniform(0.09, 0.16)))
    x = np.linspace(width / 2, -width / 2, folds * 4 + 1)
    phase = np.linspace(0, 2 * np.pi * folds, len(x))
    rows = []
    for z, swing in ((height, 0.6), (height * 0.5, 0.9), (0.0, 1.0)):
        wave = 0.05 + 0.035 * swing * np.cos(phase + 0.3 * swing * np.sin(phase * 0.37))
        rows.append(np.stack((x, wave, np.full(len(x), z)), axis=-1))
    points = np.stack(rows)
    texture = np.stack(np.meshgrid(np.linspace(0, width * 1.6, len(x)), [0.0, 0.5, 1.0]), -1)
    texture[..., 1] *= height
    add.grid(points, shop.choose('curtain', shop.cloth, 1), texture)
    return width, 0.1, height


def curtain_rod(shop: Workshop, width: float) -> None:
    """Add the rod that curtains hang from, at z = 0 of the placement."""
    shop.builder.begin('curtain')
    rod(shop.builder, (-width / 2, 0.06, 0), (width / 2, 0.06, 0), 0.012, shop.metal(), 8)


def rug(shop: Workshop, width: float, depth: float) -> Size:
    """Add a flat rug, rectangular or round."""
    add = shop.builder
    add.begin('rug')
    if shop.rng.random() < 0.8:
        woven = shop.picture(prints.rug, size=256)
        box(add, (-width / 2, 0, 0), (width / 2, depth, 0.012), woven, sides='lrfbt', fit='t')
    else:
        pile = shop.surface(textures.carpet, colour(shop.rng.random(), 0.3, 0.6))
        cylinder(add, (0, depth / 2, 0), min(width, depth) / 2, 0.015, pile, segments=40)
    return width, depth, 0.015
