# SPDX-License-Identifier: Apache-2.0
"""What stands in a living room, kitchen, bedroom, office, dining room, store room."""

from __future__ import annotations

from collections.abc import Callable

from mtl_perception.simulation import decor, furniture_cases, furniture_kitchen, furniture_seats
from mtl_perception.simulation.furnish import Decorator, Spot
from mtl_perception.simulation.plan import Extent


def _rug_under(decorator: Decorator, extent: Extent, margin: float) -> None:
    """Lay a rug below a piece that stands free; it takes no space."""
    x0, y0, _, x1, y1, _ = extent
    room = decorator.room
    low = (max(room.low[0] + 0.05, x0 - margin), max(room.low[1] + 0.05, y0 - margin))
    high = (min(room.high[0] - 0.05, x1 + margin), min(room.high[1] - 0.05, y1 + margin))
    if room.notch is not None and high[0] > room.notch[0] and high[1] > room.notch[1]:
        return
    with decorator.shop.builder.at((low[0] + high[0]) / 2, low[1]):
        decor.rug(decorator.shop, high[0] - low[0], high[1] - low[1])


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
    """Sofa, coffee table on a rug, television on a low cabinet, shelves, armchair."""
    rng, shop = decorator.rng, decorator.shop
    width = min(rng.uniform(1.5, 2.5), max(wall.length for wall in decorator.room.walls) - 0.6)
    spot = decorator.against_wall(
        lambda: furniture_seats.sofa(shop, width), (width, 0.98, 0.95), clear=0.6)
    if spot is not None and rng.random() < 0.85:
        size = (rng.uniform(0.7, 1.2), rng.uniform(0.45, 0.7), rng.uniform(0.33, 0.48))
        extent = _before(
            decorator, spot, size, 1.0 + rng.uniform(0.28, 0.45),
            lambda: furniture_cases.table(shop, *size, things=int(rng.integers(0, 6))))
        if extent is not None and rng.random() < 0.7:
            _rug_under(decorator, extent, rng.uniform(0.3, 0.7))
    spots = decorator.cabinets(1, (0.4, 0.65))
    for place in spots:
        size = rng.uniform(0.8, 1.4)
        on_wall = rng.random() < 0.3
        z = place.extent[5] + (rng.uniform(0.2, 0.4) if on_wall else 0.0)
        x, y = place.wall.point(place.along, 0.001 if on_wall else 0.12)
        with shop.builder.at(float(x), float(y), z, place.wall.yaw):
            decor.television(shop, size, not on_wall, bool(rng.random() < 0.45))
    decorator.shelves(int(rng.integers(0, 3)))
    if rng.random() < 0.5:
        wide = rng.uniform(0.75, 0.95)
        decorator.against_wall(lambda: furniture_seats.sofa(shop, wide), (wide, 0.98, 0.95),
                               corner=True, clear=0.3)
    decorator.cabinets(int(rng.integers(0, 2)), (0.7, 1.1))


def kitchen(decorator: Decorator) -> None:
    """A run of units along one or two walls, refrigerator, a table with chairs or stools."""
    rng, shop, room = decorator.rng, decorator.shop, decorator.room
    style = furniture_kitchen.draw_style(shop)
    walls = sorted(room.walls, key=lambda wall: -wall.length)
    for count in range(1 if rng.random() < 0.5 else 2):
        for width in (3.6, 3.0, 2.4, 1.8, 1.2):
            width = width + rng.uniform(-0.2, 0.2)
            spot = decorator.find(
                (width, furniture_kitchen.BASE_DEPTH + 0.03, furniture_kitchen.BASE_HEIGHT),
                corner=True, walls=tuple(walls[count:]), gap=0.0, clear=0.5)
            if spot is not None:
                _run(decorator, spot, width, style)
                break
    decorator.against_wall(lambda: furniture_kitchen.refrigerator(shop), (0.76, 0.74, 1.9),
                           corner=True, clear=0.4, gap=0.01)
    size = (rng.uniform(0.75, 1.5), rng.uniform(0.7, 0.9), rng.uniform(0.72, 0.78))
    things = int(rng.integers(2, 10))
    extent = decorator.free_standing(
        lambda: furniture_cases.table(shop, *size, things=things), size, gap=0.55)
    if extent is None:
        spot = decorator.against_wall(
            lambda: furniture_cases.table(shop, *size, things=things), size, gap=0.05)
        extent = spot.extent if spot is not None else None
    if extent is not None:
        decorator.seats_around(extent, 0.7)
    decorator.against_wall(lambda: furniture_kitchen.bin_or_bucket(shop), (0.36, 0.36, 0.6))
    if rng.random() < 0.4:
        decorator.against_wall(lambda: furniture_seats.stool(shop), (0.4, 0.4, 0.75))
    for _ in range(int(rng.integers(0, 3))):
        wide = rng.uniform(0.5, 1.2)
        decorator.hang(lambda w=wide: furniture_cases.wall_shelf(shop, w), (wide, 0.28, 0.4), 1.4)
    if rng.random() < 0.4:
        decorator.cabinets(1, (1.9, 2.2))


def _run(
    decorator: Decorator, spot: Spot, width: float, style: furniture_kitchen.KitchenStyle
) -> None:
    rng, shop = decorator.rng, decorator.shop
    with decorator.at(spot), shop.builder.at(-width / 2, 0):
        furniture_kitchen.units(shop, style, width, int(rng.integers(3, 16)))
    upper = decorator.extent(spot.wall, spot.along, (width, 0.36, 0.75), 1.45, 0.001)
    x, y = spot.wall.point(spot.along - width / 2, 0.001)
    clear_above = decorator.occupancy.is_free(upper)
    if clear_above and rng.random() < 0.75:
        tall = rng.uniform(0.55, 0.75)
        with shop.builder.at(float(x), float(y), 0.0, spot.wall.yaw):
            furniture_kitchen.splashback(shop, style, width, 1.45)
            with shop.builder.at(0, 0, 1.45):
                furniture_kitchen.wall_units(shop, style, width, tall)
        decorator.occupancy.solid.append(upper)
    elif clear_above:
        with shop.builder.at(float(x), float(y), 0.0, spot.wall.yaw):
            furniture_kitchen.splashback(shop, style, width, rng.uniform(1.0, 1.5))
            if rng.random() < 0.6:
                furniture_kitchen.hood(shop, rng.uniform(0, max(0.01, width - 0.6)),
                                       decorator.room.height)


def bedroom(decorator: Decorator) -> None:
    """A bed with its head at the wall, bedside cabinets with lamps, wardrobe, chest."""
    rng, shop = decorator.rng, decorator.shop
    spot = decorator.against_wall(lambda: furniture_seats.bed(shop), (1.9, 2.25, 1.0), clear=0.3)
    if spot is not None:
        for side in (-1.22, 1.22):
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
                    power = decorator.lamps.power
                    with shop.builder.at(0, 0.04, tall):
                        decor.standing_lamp(
                            shop, rng.uniform(0.32, 0.5),
                            (power[0] * 0.2, power[1] * 0.2, power[2] * 0.2),
                            decorator.lamps.lit and bool(rng.random() < 0.6))
    decorator.cabinets(1, (1.9, 2.3))
    decorator.cabinets(int(rng.integers(0, 3)), (0.7, 1.2))
    if rng.random() < 0.5:
        size = (rng.uniform(1.0, 1.8), rng.uniform(0.8, 1.4), 0.02)
        extent = decorator.free_standing(lambda: decor.rug(shop, size[0], size[1]), size, 0.15)
        if extent is not None:
            decorator.occupancy.solid.remove(extent)
    if rng.random() < 0.5:
        decorator.against_wall(lambda: furniture_seats.chair(shop), (0.52, 0.56, 0.95))
    if rng.random() < 0.35:
        decorator.shelves(1)
    if rng.random() < 0.3:
        decorator.hang(lambda: decor.television(shop, 0.9, False, False), (0.9, 0.05, 0.52), 1.2)


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
                furniture_cases.box(shop.builder, (-0.22, size[1] - 0.28, size[2]),
                                    (0.22, size[1] - 0.15, size[2] + 0.02), shop.black,
                                    sides='lrfbt')
            front = 0.33 if monitors else 0.04
            furniture_cases.scatter(shop, (-size[0] * 0.47, front), (size[0] * 0.47, size[1]),
                                    size[2], int(rng.integers(1, 8)), tallest=0.35)
        x, y = spot.wall.point(spot.along, size[1] + 0.4)
        decorator.loose(lambda: furniture_seats.office_chair(shop), float(x), float(y),
                        spot.wall.yaw + 3.1416 + rng.normal(0, 0.4), (0.62, 0.62, 1.2))
    decorator.shelves(int(rng.integers(1, 4)))
    decorator.cabinets(int(rng.integers(0, 3)), (0.6, 1.9))
    if rng.random() < 0.4:
        decorator.hang(lambda: furniture_cases.wall_shelf(shop, 0.8), (0.8, 0.28, 0.4), 1.4)


def dining(decorator: Decorator) -> None:
    """A table with chairs on a rug, sideboard, shelf, sofa where there is room."""
    rng, shop = decorator.rng, decorator.shop
    size = (rng.uniform(1.0, 2.0), rng.uniform(0.8, 1.05), rng.uniform(0.72, 0.78))
    things = int(rng.integers(1, 9))
    extent = decorator.free_standing(
        lambda: furniture_cases.table(shop, *size, things=things), size, gap=0.7)
    if extent is not None:
        if rng.random() < 0.5:
            _rug_under(decorator, extent, rng.uniform(0.4, 0.8))
        decorator.seats_around(extent, 0.85)
    decorator.cabinets(int(rng.integers(1, 3)), (0.7, 1.1))
    decorator.shelves(int(rng.integers(0, 2)))
    if rng.random() < 0.4:
        decorator.against_wall(lambda: furniture_seats.sofa(shop, 1.5), (1.5, 0.98, 0.95),
                               clear=0.3)


def storage(decorator: Decorator) -> None:
    """Shelves and cartons, a table, a cabinet."""
    rng, shop = decorator.rng, decorator.shop
    decorator.shelves(int(rng.integers(2, 5)))
    decorator.cabinets(int(rng.integers(0, 3)), (0.8, 2.0))
    size = (rng.uniform(0.9, 1.6), rng.uniform(0.55, 0.8), 0.8)
    decorator.against_wall(lambda: furniture_cases.table(shop, *size, things=8), size, clear=0.3)
    decorator.floor_things(6)
    if rng.random() < 0.5:
        decorator.against_wall(lambda: furniture_seats.stool(shop), (0.4, 0.4, 0.75))


_PROGRAMS: dict[str, Callable[[Decorator], None]] = {
    'living': living, 'kitchen': kitchen, 'bedroom': bedroom, 'office': office,
    'dining': dining, 'storage': storage,
}


def furnish(decorator: Decorator) -> None:
    """Furnish the room by its kind, then what any room has: lamps, curtains, pictures, plants."""
    rng = decorator.rng
    decorator.ceiling_lamps()
    decorator.curtains(0.65)
    _PROGRAMS[decorator.room.kind](decorator)
    decorator.floor_things(int(rng.integers(0, 5)))
    decorator.pictures(int(rng.integers(0, 6)))
