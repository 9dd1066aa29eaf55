# SPDX-License-Identifier: Apache-2.0
"""
Tables, cabinets and shelves.

Every piece stands on z = 0 of its placement, back at y = 0,
front towards +y, centred in x, and returns its size (width, depth, height) in metres.
"""

from __future__ import annotations

from itertools import pairwise

from mtl_perception.simulation import prints
from mtl_perception.simulation.clutter import scatter
from mtl_perception.simulation.furniture_seats import legs, Size
from mtl_perception.simulation.shapes import box, cylinder
from mtl_perception.simulation.workshop import Workshop


def table(
    shop: Workshop, width: float, depth: float, height: float, things: int = 0
) -> Size:
    """Add a table: rectangular on legs or panels, or round on a foot."""
    rng, add = shop.rng, shop.builder
    add.begin('table')
    top = shop.wood() if rng.random() < 0.7 else shop.lacquer()
    frame = top if rng.random() < 0.5 else shop.metal()
    half, thick = width / 2, rng.uniform(0.02, 0.045)
    style = rng.random()
    if style < 0.2 and abs(width - depth) < 0.35:
        radius = min(width, depth) / 2
        with add.at(0, depth / 2):
            cylinder(add, (0, 0, height - thick), radius, thick, top, segments=32)
            cylinder(add, (0, 0, 0.02), 0.05, height - thick, frame, segments=14)
            cylinder(add, (0, 0, 0), radius * 0.55, 0.03, frame, segments=24)
        half = depth = radius * 1.3
        half /= 2
    else:
        box(add, (-half, 0, height - thick), (half, depth, height), top)
        if style < 0.75:
            inset = rng.uniform(0.0, 0.06)
            legs(shop, (-half + inset, inset), (half - inset, depth - inset), height - thick,
                 rng.uniform(0.035, 0.07), frame, round_legs=rng.random() < 0.3,
                 splay=0.04 if rng.random() < 0.2 else 0.0)
            if rng.random() < 0.6:
                box(add, (-half + 0.05, 0.05, height - thick - 0.08),
                    (half - 0.05, depth - 0.05, height - thick), frame, sides='lrfb')
        else:
            for x in (-half + 0.04, half - 0.08):
                box(add, (x, 0.03, 0), (x + 0.04, depth - 0.03, height - thick), frame)
            box(add, (-half + 0.08, 0.05, height * 0.4), (half - 0.08, 0.08, height - thick),
                frame)
    if things:
        middle = depth / 2 if style >= 0.2 or abs(width - depth) >= 0.35 else width / 2
        scatter(shop, (-half * 0.9, middle - depth * 0.42), (half * 0.9, middle + depth * 0.42),
                height, things)
    return width, max(depth, 0.1), height


def fronts(
    shop: Workshop, low: tuple[float, float], high: tuple[float, float], y: float,
    columns: int, rows: int, material: int, handle: int,
) -> None:
    """Add doors or drawers on the plane y over the area low..high (x, z), with handles."""
    rng, add = shop.rng, shop.builder
    gap, style = 0.004, int(rng.integers(4))
    for column in range(columns):
        for row in range(rows):
            x0 = low[0] + (high[0] - low[0]) * column / columns + gap
            x1 = low[0] + (high[0] - low[0]) * (column + 1) / columns - gap
            z0 = low[1] + (high[1] - low[1]) * row / rows + gap
            z1 = low[1] + (high[1] - low[1]) * (row + 1) / rows - gap
            grain = 'z' if z1 - z0 > x1 - x0 else 'x'
            box(add, (x0, y, z0), (x1, y + 0.018, z1), material, sides='lrftd', grain=grain)
            if style == 3 and min(x1 - x0, z1 - z0) > 0.25:
                rim = 0.06
                for a, b in (
                    ((x0, z0), (x0 + rim, z1)), ((x1 - rim, z0), (x1, z1)),
                    ((x0 + rim, z0), (x1 - rim, z0 + rim)), ((x0 + rim, z1 - rim), (x1 - rim, z1)),
                ):
                    box(add, (a[0], y + 0.018, a[1]), (b[0], y + 0.026, b[1]), material,
                        sides='lrftd', grain=grain)
            front = y + 0.018
            if style == 0:
                continue
            if z1 - z0 > x1 - x0:
                x = x1 - 0.04 if column % 2 == 0 else x0 + 0.04
                z = z1 - 0.2 if low[1] < 0.5 else z0 + 0.2
                bar = ((x - 0.006, z - 0.07), (x + 0.006, z + 0.07))
            else:
                x, z = (x0 + x1) / 2, z1 - 0.05
                bar = ((x - 0.07, z - 0.006), (x + 0.07, z + 0.006))
            if style == 1:
                bar = ((x - 0.014, z - 0.014), (x + 0.014, z + 0.014))
            box(add, (bar[0][0], front, bar[0][1]), (bar[1][0], front + 0.03, bar[1][1]), handle,
                sides='lrftd')


def cabinet(
    shop: Workshop, width: float, depth: float, height: float, things: int = 0
) -> Size:
    """Add a cabinet, chest of drawers, sideboard or wardrobe of the given size."""
    rng, add = shop.rng, shop.builder
    add.begin('cabinet')
    body = shop.board()
    front = body if rng.random() < 0.6 else shop.board()
    half, foot = width / 2, float(rng.choice((0.0, 0.06, 0.12)))
    if foot > 0.1:
        legs(shop, (-half + 0.03, 0.03), (half - 0.03, depth - 0.03), foot, 0.04, shop.wood())
    elif foot:
        box(add, (-half + 0.03, 0.02, 0), (half - 0.03, depth - 0.05, foot), body, sides='lrf')
    box(add, (-half, 0, foot), (half, depth - 0.018, height), body, grain='z')
    if height > 1.3:
        columns, rows = max(1, round(width / 0.5)), 1
    elif width > 1.0:
        columns, rows = max(2, round(width / 0.5)), int(rng.integers(1, 4))
    else:
        columns, rows = int(rng.integers(1, 3)), int(rng.integers(1, 5))
    handle = shop.metal()
    fronts(shop, (-half, foot), (half, height - 0.01), depth - 0.018, columns, rows, front, handle)
    if things:
        scatter(shop, (-half * 0.92, 0.04), (half * 0.92, depth - 0.05), height, things)
    return width, depth + 0.03, height


def shelf(shop: Workshop, width: float, depth: float, height: float) -> Size:
    """Add a bookcase with books and small things on its boards."""
    rng, add = shop.rng, shop.builder
    add.begin('shelf')
    body, thick, half = shop.board(), rng.uniform(0.016, 0.03), width / 2
    for x in (-half, half - thick):
        box(add, (x, 0, 0), (x + thick, depth, height), body, grain='z')
    if rng.random() < 0.7:
        box(add, (-half + thick, 0, 0.05), (half - thick, 0.012, height), body, sides='f')
    boards = max(2, round(height / rng.uniform(0.28, 0.4)))
    levels = [0.05 + (height - 0.05 - thick) * index / boards for index in range(boards + 1)]
    for z in levels:
        box(add, (-half + thick, 0.003, z), (half - thick, depth, z + thick), body)
    inside = (-half + thick + 0.01, half - thick - 0.01)
    for lower, upper in pairwise(levels):
        room = upper - lower - thick
        choice = rng.random()
        if choice < 0.5:
            add.begin('box')
            books = shop.choose('books', lambda: shop.picture(prints.book_spines), 5)
            end = inside[0] + (inside[1] - inside[0]) * rng.uniform(0.3, 1.0)
            deep = rng.uniform(0.6, 0.95) * depth
            tall = rng.uniform(0.6, 0.9) * room
            box(add, (inside[0], 0.02, lower + thick), (end, deep, lower + thick + tall),
                shop.white, front=books, fit='f', sides='lrft')
        elif choice < 0.85:
            scatter(shop, (inside[0], 0.04), (inside[1], depth - 0.02), lower + thick,
                    int(rng.integers(1, 5)), tallest=room * 0.95)
    if height < 1.6 and rng.random() < 0.6:
        scatter(shop, (inside[0], 0.03), (inside[1], depth - 0.03), height, 3)
    return width, depth, height


def wall_shelf(shop: Workshop, width: float) -> Size:
    """Add one board on the wall with things on it, at z = 0 of the placement."""
    rng, add = shop.rng, shop.builder
    add.begin('shelf')
    depth = rng.uniform(0.16, 0.28)
    box(add, (-width / 2, 0, -0.03), (width / 2, depth, 0), shop.board())
    scatter(shop, (-width / 2, 0.02), (width / 2, depth - 0.01), 0.0, int(rng.integers(2, 7)),
            tallest=0.35)
    return width, depth, 0.35
