# SPDX-License-Identifier: Apache-2.0
"""What any room has: chairs around tables, pictures, curtains, lamps, cabinets, odds and ends."""

from __future__ import annotations

from functools import partial

from mtl_perception.simulation import decor, furniture_cases, furniture_seats
from mtl_perception.simulation.placement import Decorator, Spot
from mtl_perception.simulation.plan import Extent, Occupancy
from mtl_perception.simulation.shapes import box
from mtl_perception.simulation.workshop import Workshop
import numpy as np

_PLANT_SIDE, _LAMP_SIDE = 0.58, 0.52


def seats_around(decorator: Decorator, extent: Extent, share: float) -> None:
    """Put chairs at the four sides of a table, pushed in or pulled out a little."""
    x0, y0, _, x1, y1, _ = extent
    rng, shop = decorator.rng, decorator.shop
    design = furniture_seats.draw_chair(shop)
    for side in range(4):
        along_x = side % 2 == 0
        length = (x1 - x0) if along_x else (y1 - y0)
        count = max(1, int(length / 0.62))
        for index in range(count):
            if rng.random() > share:
                continue
            offset = (index + 0.5) / count * length
            out = rng.uniform(0.27, 0.45)
            yaw = (np.pi, np.pi / 2, 0.0, -np.pi / 2)[side] + rng.normal(0, 0.12)
            if along_x:
                x, y = x0 + offset, (y1 + out if side == 0 else y0 - out)
            else:
                x, y = (x0 - out if side == 3 else x1 + out), y0 + offset
            make = partial(furniture_seats.chair, shop, design)
            decorator.loose(make, x, y, yaw, (0.5, 0.52, 0.95))


def pictures(decorator: Decorator, count: int) -> None:
    """Hang up to `count` pictures at eye height."""
    rng = decorator.rng
    for _ in range(count):
        small = rng.random() < 0.45
        width, height = (float(value) for value in rng.uniform(0.15, 0.4 if small else 1.2, 2))
        height = min(height, 0.95)
        z = rng.uniform(1.25, 1.75) - height / 2 + 0.12
        if z + height < decorator.room.height - 0.1:
            make = partial(decor.picture, decorator.shop, width, height)
            decorator.hang(make, (width, 0.05, height), z)


def curtains(decorator: Decorator, share: float) -> None:
    """Hang curtains at both sides of windows."""
    rng, builder = decorator.rng, decorator.shop.builder
    holes = [
        (wall, hole) for wall in decorator.room.walls for hole in wall.openings
        if hole.kind == 'window'
    ]
    for wall, hole in holes:
        if rng.random() > share:
            continue
        width = min(0.55, 0.22 * (hole.end - hole.start) + rng.uniform(0.05, 0.25))
        top = min(decorator.room.height - 0.06, hole.top + 0.12)
        low = 0.03 if rng.random() < 0.7 else max(0.03, hole.bottom - 0.15)
        # The space before the window is reserved against furniture, not against curtains.
        furniture = Occupancy((), list(decorator.occupancy.solid))
        for centre in (hole.start - width * 0.3, hole.end + width * 0.3):
            extent = decorator.extent(wall, centre, (width, 0.1, top - low), low, 0.02)
            if decorator.occupancy.is_inside(decorator.room, extent) and furniture.is_free(extent):
                decorator.occupancy.solid.append(extent)
                x, y = wall.point(centre, 0.02)
                with builder.at(float(x), float(y), low, wall.yaw):
                    decor.curtain(decorator.shop, width, top - low)
        x, y = wall.point((hole.start + hole.end) / 2, 0.02)
        span = min(hole.end - hole.start + width, wall.length - 0.1)
        with builder.at(float(x), float(y), top + 0.015, wall.yaw):
            decor.curtain_rod(decorator.shop, span)


def ceiling_lamps(decorator: Decorator) -> None:
    """Hang one to three lamps from the ceiling."""
    rng, room = decorator.rng, decorator.room
    low, high = np.array(room.low), np.array(room.high)
    if room.notch is not None:
        high = np.array((high[0], room.notch[1]))
    span = high - low
    count = 1 if float(span.max()) < 4 else int(rng.integers(1, 4))
    axis = int(np.argmax(span))
    hang = float(rng.choice((0.0, 0.0, rng.uniform(0.35, 0.6))))
    for index in range(count):
        place = low + span / 2
        place[axis] = low[axis] + span[axis] * (index + 0.5) / count
        x, y = (float(value) for value in place)
        bottom = decor.ceiling_lamp(
            decorator.shop, x, y, room.height, decorator.lamps.share(1.0 / count),
            decorator.lamps.lit, hang,
        )
        decorator.occupancy.solid.append((x - 0.3, y - 0.3, bottom, x + 0.3, y + 0.3, room.height))


def floor_things(decorator: Decorator, count: int) -> None:
    """Put plants, lamps, cartons and the like along the walls."""
    rng, shop = decorator.rng, decorator.shop
    for _ in range(count):
        choice = rng.random()
        if choice < 0.35:
            height = rng.uniform(0.5, 1.6)
            size = (_PLANT_SIDE, _PLANT_SIDE, height)
            decorator.against_wall(partial(decor.plant, shop, height), size, corner=True)
        elif choice < 0.55:
            height = rng.uniform(1.3, 1.75)
            lit = decorator.lamps.lit and bool(rng.random() < 0.6)
            make = partial(decor.standing_lamp, shop, height, decorator.lamps.share(0.35), lit)
            decorator.against_wall(make, (_LAMP_SIDE, _LAMP_SIDE, height), corner=True)
        else:
            width, depth, height = (
                float(value) for value in rng.uniform((0.25, 0.2, 0.15), (0.6, 0.45, 0.5))
            )
            decorator.against_wall(partial(carton, shop, width, depth, height),
                                   (width, depth, height))


def carton(shop: Workshop, width: float, depth: float, height: float) -> None:
    """Add a carton or crate."""
    shop.builder.begin('box')
    material = shop.carton() if shop.rng.random() < 0.6 else shop.package()
    box(shop.builder, (-width / 2, 0, 0), (width / 2, depth, height), material,
        sides='lrfbt', fit='lrfbt')


def shelves(decorator: Decorator, count: int) -> None:
    """Stand up to `count` bookcases along the walls."""
    rng = decorator.rng
    for _ in range(count):
        size = (rng.uniform(0.5, 1.3), rng.uniform(0.25, 0.38), rng.uniform(0.8, 2.1))
        make = partial(furniture_cases.shelf, decorator.shop, *size)
        decorator.against_wall(make, size, corner=True, clear=0.4)


def cabinets(
    decorator: Decorator, count: int, height: tuple[float, float], things: int = 6
) -> list[Spot]:
    """Stand up to `count` cabinets along the walls, with up to `things` on the low ones."""
    rng, spots = decorator.rng, []
    for _ in range(count):
        width, depth = rng.uniform(0.5, 1.7), rng.uniform(0.35, 0.6)
        tall = min(rng.uniform(*height), decorator.room.height - 0.1)
        load = int(rng.integers(1, things + 1)) if tall < 1.4 else 0
        make = partial(furniture_cases.cabinet, decorator.shop, width, depth, tall, load)
        spot = decorator.against_wall(make, (width, depth + 0.03, tall), clear=0.35)
        if spot is not None:
            spots.append(spot)
    return spots


def rug_under(decorator: Decorator, extent: Extent, margin: float) -> None:
    """Lay a rug below a piece that stands free; it takes no space."""
    x0, y0, _, x1, y1, _ = extent
    room = decorator.room
    low = (max(room.low[0] + 0.05, x0 - margin), max(room.low[1] + 0.05, y0 - margin))
    high = (min(room.high[0] - 0.05, x1 + margin), min(room.high[1] - 0.05, y1 + margin))
    if room.notch is not None and high[0] > room.notch[0] and high[1] > room.notch[1]:
        return
    with decorator.shop.builder.at((low[0] + high[0]) / 2, low[1]):
        decor.rug(decorator.shop, high[0] - low[0], high[1] - low[1])


def table_with_chairs(decorator: Decorator, share: float, rug: float = 0.2) -> None:
    """Stand a table in the open, or at a wall where there is no room, with chairs around it."""
    rng, shop = decorator.rng, decorator.shop
    size = (rng.uniform(0.8, 1.9), rng.uniform(0.75, 1.0), rng.uniform(0.72, 0.78))
    things = int(rng.integers(2, 13))

    make = partial(furniture_cases.table, shop, *size, things)
    extent = decorator.free_standing(make, size, gap=0.55)
    if extent is None:
        spot = decorator.against_wall(make, size, gap=0.05)
        extent = spot.extent if spot is not None else None
    elif rng.random() < rug:
        rug_under(decorator, extent, rng.uniform(0.4, 0.8))
    if extent is not None:
        seats_around(decorator, extent, share)
