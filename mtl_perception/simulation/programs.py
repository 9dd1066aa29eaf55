# SPDX-License-Identifier: Apache-2.0
"""What stands in a living room, bedroom, office, dining room, store room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mtl_perception.simulation import decor, furniture_cases, furniture_seats
from mtl_perception.simulation.clutter import scatter
from mtl_perception.simulation.furnish import (
    cabinets,
    ceiling_lamps,
    curtains,
    floor_things,
    pictures,
    rug_under,
    shelves,
    table_with_chairs,
)
from mtl_perception.simulation.placement import Decorator, Spot
from mtl_perception.simulation.plan import Extent
from mtl_perception.simulation.program_kitchen import kitchen
from mtl_perception.simulation.shapes import box


def _before(
    decorator: Decorator, spot: Spot, size: tuple[float, float, float], away: float,
    make: Callable[[], object],
) -> Extent | None:
    """Build a piece in front of another that stands against a wall."""
    extent = decorator.extent(spot.wall, spot.along, size, 0.0, away)
    if not (
        decorator.occupancy.is_inside(decorator.room, extent)
        and decorator.occupancy.is_free(extent)
    ):
        return None
    decorator.occupancy.solid.append(extent)
    x, y = spot.wall.point(spot.along, away)
    with decorator.shop.builder.at(float(x), float(y), 0.0, spot.wall.yaw):
        make()
    return extent


def living(decorator: Decorator) -> None:
    """Sofa, coffee table on a rug, television on a low cabinet, shelves, armchairs."""
    rng, shop = decorator.rng, decorator.shop
    width = min(rng.uniform(1.5, 2.5), max(wall.length for wall in decorator.room.walls) - 0.6)
    spot = decorator.against_wall(
        partial(furniture_seats.sofa, shop, width), (width, 0.98, 0.95), clear=0.6)
    if spot is not None and rng.random() < 0.9:
        size = (rng.uniform(0.7, 1.2), rng.uniform(0.45, 0.7), rng.uniform(0.33, 0.48))
        extent = _before(
            decorator, spot, size, 1.0 + rng.uniform(0.28, 0.45),
            partial(furniture_cases.table, shop, *size, int(rng.integers(1, 8))))
        if extent is not None and rng.random() < 0.7:
            rug_under(decorator, extent, rng.uniform(0.3, 0.7))
    _television_corner(decorator)
    for _ in range(int(rng.integers(0, 3))):
        wide = rng.uniform(0.75, 0.95)
        decorator.against_wall(partial(furniture_seats.sofa, shop, wide),
                               (wide, 0.98, 0.95), corner=True, clear=0.3)
    for _ in range(int(rng.integers(0, 3))):
        _side_table(decorator)
    shelves(decorator, int(rng.integers(0, 3)))
    cabinets(decorator, int(rng.integers(0, 3)), (0.6, 1.1))
    if rng.random() < 0.35:
        table_with_chairs(decorator, 0.6)


def _television_corner(decorator: Decorator) -> None:
    """Stand a low cabinet against a wall and a television on it, or on the wall above."""
    rng, shop = decorator.rng, decorator.shop
    for place in cabinets(decorator, 1, (0.4, 0.65), things=2):
        width = rng.uniform(0.7, max(0.75, min(1.4, place.extent[3] - place.extent[0] + 0.3)))
        on_wall = bool(rng.random() < 0.3)
        away = 0.001 if on_wall else 0.12
        z = place.extent[5] + (rng.uniform(0.2, 0.4) if on_wall else 0.0)
        size = (width, 0.2, width * 0.6 + 0.06)
        extent = decorator.extent(place.wall, place.along, size, z, away)
        if not (
            decorator.occupancy.is_inside(decorator.room, extent)
            and decorator.occupancy.is_free(extent)
        ):
            continue
        decorator.occupancy.solid.append(extent)
        x, y = place.wall.point(place.along, away)
        with shop.builder.at(float(x), float(y), z, place.wall.yaw):
            decor.television(shop, width, not on_wall, bool(rng.random() < 0.45))


def _table_lamp(decorator: Decorator) -> None:
    """Add a lamp on what was just built."""
    rng = decorator.rng
    lit = decorator.lamps.lit and bool(rng.random() < 0.6)
    decor.standing_lamp(
        decorator.shop, rng.uniform(0.32, 0.55), decorator.lamps.share(0.2), lit
    )


def _side_table(decorator: Decorator) -> None:
    """Stand a small table with a lamp or things against a wall."""
    rng, shop = decorator.rng, decorator.shop
    side, tall = rng.uniform(0.38, 0.55), rng.uniform(0.45, 0.65)
    size = (side, side, tall)
    lamp = bool(rng.random() < 0.5)
    spot = decorator.find((side, side, 1.2))
    if spot is None:
        return
    with decorator.at(spot):
        furniture_cases.table(shop, *size, things=0 if lamp else 3)
        if lamp:
            with shop.builder.at(0, 0.05, tall):
                _table_lamp(decorator)


def bedroom(decorator: Decorator) -> None:
    """Place a bed with its head at the wall, bedside cabinets with lamps, wardrobe, chest."""
    rng, shop = decorator.rng, decorator.shop
    spot = None
    for width in sorted(rng.choice((0.9, 1.2, 1.4, 1.6, 1.8), 3), reverse=True):
        make = partial(furniture_seats.bed, shop, float(width))
        spot = decorator.against_wall(make, (width + 0.12, 2.22, 1.0), clear=0.3)
        if spot is not None:
            break
    if spot is not None:
        for side in (-width / 2 - 0.32, width / 2 + 0.32):
            extent = decorator.extent(spot.wall, spot.along + side, (0.46, 0.42, 0.55))
            if not (
                decorator.occupancy.is_inside(decorator.room, extent)
                and decorator.occupancy.is_free(extent)
            ):
                continue
            with decorator.at(Spot(spot.wall, spot.along + side, extent)):
                tall = rng.uniform(0.42, 0.58)
                furniture_cases.cabinet(shop, 0.44, 0.38, tall)
                if rng.random() < 0.75:
                    with shop.builder.at(0, 0.04, tall):
                        _table_lamp(decorator)
    cabinets(decorator, 1, (1.9, 2.3))
    cabinets(decorator, int(rng.integers(0, 3)), (0.7, 1.2))
    if rng.random() < 0.5:
        size = (rng.uniform(1.0, 1.8), rng.uniform(0.8, 1.4), 0.02)
        rug = decorator.free_standing(partial(decor.rug, shop, size[0], size[1]), size, 0.15)
        if rug is not None:
            # What lies on the floor takes no space.
            decorator.occupancy.solid.remove(rug)
    if rng.random() < 0.5:
        design = furniture_seats.draw_chair(shop)
        decorator.against_wall(partial(furniture_seats.chair, shop, design), (0.52, 0.56, 0.95))
    if rng.random() < 0.35:
        shelves(decorator, 1)
    if rng.random() < 0.3:
        decorator.hang(partial(decor.television, shop, 0.9, False, False), (0.9, 0.05, 0.52), 1.2)


def office(decorator: Decorator) -> None:
    """Desks with monitors and swivel chairs, shelves, cabinets, cartons."""
    rng, shop = decorator.rng, decorator.shop
    for _ in range(int(rng.integers(1, 4))):
        size = (rng.uniform(1.1, 1.8), rng.uniform(0.6, 0.8), rng.uniform(0.71, 0.76))
        spot = decorator.find(size, clear=0.75)
        if spot is None:
            continue
        with decorator.at(spot):
            furniture_cases.table(shop, *size)
            monitors = int(rng.integers(0, 3))
            for index in range(monitors):
                x = (index - (monitors - 1) / 2) * 0.6
                with shop.builder.at(x, 0.08, size[2], rng.normal(0, 0.08)):
                    decor.television(shop, rng.uniform(0.45, 0.58), True,
                                     bool(rng.random() < 0.7))
            if monitors:
                shop.builder.begin('box')
                box(shop.builder, (-0.22, size[1] - 0.28, size[2]),
                                    (0.22, size[1] - 0.15, size[2] + 0.02), shop.black,
                                    sides='lrfbt')
            front = 0.33 if monitors else 0.04
            scatter(shop, (-size[0] * 0.47, front), (size[0] * 0.47, size[1]),
                                    size[2], int(rng.integers(1, 8)), tallest=0.35)
        x, y = spot.wall.point(spot.along, size[1] + 0.4)
        decorator.loose(partial(furniture_seats.office_chair, shop), float(x), float(y),
                        spot.wall.yaw + 3.1416 + rng.normal(0, 0.4), (0.62, 0.62, 1.2))
    shelves(decorator, int(rng.integers(1, 4)))
    cabinets(decorator, int(rng.integers(0, 3)), (0.6, 1.9))
    if rng.random() < 0.4:
        decorator.hang(partial(furniture_cases.wall_shelf, shop, 0.8), (0.8, 0.28, 0.4), 1.4)


def dining(decorator: Decorator) -> None:
    """Place a table with chairs on a rug, sideboard, shelf, sofa where there is room."""
    rng, shop = decorator.rng, decorator.shop
    table_with_chairs(decorator, 0.9, 0.5)
    cabinets(decorator, int(rng.integers(1, 4)), (0.7, 1.1))
    shelves(decorator, int(rng.integers(0, 3)))
    if rng.random() < 0.4:
        decorator.against_wall(partial(furniture_seats.sofa, shop, 1.5), (1.5, 0.98, 0.95),
                               clear=0.3)
    if rng.random() < 0.4:
        _side_table(decorator)


def storage(decorator: Decorator) -> None:
    """Shelves and cartons, a table, a cabinet."""
    rng, shop = decorator.rng, decorator.shop
    shelves(decorator, int(rng.integers(2, 5)))
    cabinets(decorator, int(rng.integers(0, 3)), (0.8, 2.0))
    size = (rng.uniform(0.9, 1.6), rng.uniform(0.55, 0.8), 0.8)
    decorator.against_wall(partial(furniture_cases.table, shop, *size, 8), size, clear=0.3)
    floor_things(decorator, 6)
    if rng.random() < 0.5:
        decorator.against_wall(partial(furniture_seats.stool, shop), (0.4, 0.4, 0.75))


def _fill(decorator: Decorator, share: float) -> None:
    """Add pieces along the walls until they cover a share of the floor or find no room."""
    rng, shop, room = decorator.rng, decorator.shop, decorator.room
    area = (room.high[0] - room.low[0]) * (room.high[1] - room.low[1])
    for _ in range(7):
        covered = sum(
            (x1 - x0) * (y1 - y0) for x0, y0, z0, x1, y1, z1 in decorator.occupancy.things
            if z0 < 0.3 and decorator.occupancy.is_inside(room, (x0, y0, z0, x1, y1, z1))
        )
        if covered > share * area:
            return
        choice = rng.random()
        if choice < 0.3:
            cabinets(decorator, 1, (0.6, 2.1))
        elif choice < 0.55:
            shelves(decorator, 1)
        elif choice < 0.7:
            wide = rng.uniform(0.75, 0.95)
            decorator.against_wall(partial(furniture_seats.sofa, shop, wide), (wide, 0.98, 0.95),
                                   clear=0.3)
        elif choice < 0.85:
            _side_table(decorator)
        else:
            size = (rng.uniform(0.8, 1.6), rng.uniform(0.45, 0.8), rng.uniform(0.7, 0.78))
            load = int(rng.integers(2, 9))
            decorator.against_wall(partial(furniture_cases.table, shop, *size, load), size,
                                   clear=0.3)


_PROGRAMS: dict[str, Callable[[Decorator], None]] = {
    'living': living, 'kitchen': kitchen, 'bedroom': bedroom, 'office': office,
    'dining': dining, 'storage': storage,
}


def furnish(decorator: Decorator) -> None:
    """Furnish the room by its kind, then what any room has: lamps, curtains, pictures, plants."""
    rng = decorator.rng
    ceiling_lamps(decorator)
    curtains(decorator, 0.65)
    _PROGRAMS[decorator.room.kind](decorator)
    _fill(decorator, float(rng.uniform(0.15, 0.4)))
    floor_things(decorator, int(rng.integers(1, 7)))
    pictures(decorator, int(rng.integers(1, 9)))
