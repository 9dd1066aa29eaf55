# SPDX-License-Identifier: Apache-2.0
"""What stands in a living room, kitchen, bedroom, office, dining room, store room."""

from __future__ import annotations

from collections.abc import Callable

from mtl_perception.simulation import decor, furniture_cases, furniture_kitchen, furniture_seats
from mtl_perception.simulation.furnish import Decorator, Spot
from mtl_perception.simulation.plan import Extent

_RUN_DEPTH = furniture_kitchen.BASE_DEPTH + 0.03


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
    """Sofa, coffee table on a rug, television on a low cabinet, shelves, armchairs."""
    rng, shop = decorator.rng, decorator.shop
    width = min(rng.uniform(1.5, 2.5), max(wall.length for wall in decorator.room.walls) - 0.6)
    spot = decorator.against_wall(
        lambda: furniture_seats.sofa(shop, width), (width, 0.98, 0.95), clear=0.6)
    if spot is not None and rng.random() < 0.9:
        size = (rng.uniform(0.7, 1.2), rng.uniform(0.45, 0.7), rng.uniform(0.33, 0.48))
        extent = _before(
            decorator, spot, size, 1.0 + rng.uniform(0.28, 0.45),
            lambda: furniture_cases.table(shop, *size, things=int(rng.integers(1, 8))))
        if extent is not None and rng.random() < 0.7:
            _rug_under(decorator, extent, rng.uniform(0.3, 0.7))
    _television_corner(decorator)
    for _ in range(int(rng.integers(0, 3))):
        wide = rng.uniform(0.75, 0.95)
        decorator.against_wall(lambda wide=wide: furniture_seats.sofa(shop, wide),
                               (wide, 0.98, 0.95), corner=True, clear=0.3)
    for _ in range(int(rng.integers(0, 3))):
        _side_table(decorator)
    decorator.shelves(int(rng.integers(0, 3)))
    decorator.cabinets(int(rng.integers(0, 3)), (0.6, 1.1))
    if rng.random() < 0.35:
        _table_with_chairs(decorator, 0.6)


def _television_corner(decorator: Decorator) -> None:
    """Stand a low cabinet against a wall and a television on it, or on the wall above."""
    rng, shop = decorator.rng, decorator.shop
    for place in decorator.cabinets(1, (0.4, 0.65), things=2):
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
            power = decorator.lamps.power
            with shop.builder.at(0, 0.05, tall):
                decor.standing_lamp(
                    shop, rng.uniform(0.32, 0.55),
                    (power[0] * 0.2, power[1] * 0.2, power[2] * 0.2),
                    decorator.lamps.lit and bool(rng.random() < 0.6))


def _table_with_chairs(decorator: Decorator, share: float, rug: float = 0.2) -> None:
    """Stand a table in the open, or at a wall where there is no room, with chairs around it."""
    rng, shop = decorator.rng, decorator.shop
    size = (rng.uniform(0.8, 1.9), rng.uniform(0.75, 1.0), rng.uniform(0.72, 0.78))
    things = int(rng.integers(2, 13))

    def make() -> object:
        return furniture_cases.table(shop, *size, things=things)

    extent = decorator.free_standing(make, size, gap=0.55)
    if extent is None:
        spot = decorator.against_wall(make, size, gap=0.05)
        extent = spot.extent if spot is not None else None
    elif rng.random() < rug:
        _rug_under(decorator, extent, rng.uniform(0.4, 0.8))
    if extent is not None:
        decorator.seats_around(extent, share)


def kitchen(decorator: Decorator) -> None:
    """Units along a wall or around a corner, refrigerator, a table with chairs."""
    rng, shop = decorator.rng, decorator.shop
    style = furniture_kitchen.draw_style(shop)
    if not (rng.random() < 0.6 and _corner_kitchen(decorator, style)):
        for _ in range(1 if rng.random() < 0.6 else 2):
            _straight_kitchen(decorator, style)
    decorator.against_wall(lambda: furniture_kitchen.refrigerator(shop), (0.76, 0.74, 1.9),
                           corner=True, clear=0.4, gap=0.01)
    if rng.random() < 0.8:
        _table_with_chairs(decorator, 0.75, 0.1)
    decorator.against_wall(lambda: furniture_kitchen.bin_or_bucket(shop), (0.36, 0.36, 0.6))
    if rng.random() < 0.4:
        decorator.against_wall(lambda: furniture_seats.stool(shop), (0.4, 0.4, 0.75))
    for _ in range(int(rng.integers(0, 3))):
        wide = rng.uniform(0.5, 1.2)
        decorator.hang(lambda wide=wide: furniture_cases.wall_shelf(shop, wide),
                       (wide, 0.28, 0.4), 1.4)
    if rng.random() < 0.5:
        decorator.cabinets(1, (0.8, 2.2))
    if rng.random() < 0.25:
        decorator.hang(lambda: decor.television(shop, 0.7, False, True), (0.7, 0.05, 0.42), 1.5)


def _straight_kitchen(
    decorator: Decorator, style: furniture_kitchen.KitchenStyle
) -> None:
    """Build one run of units where the longest free stretch of wall is found."""
    for width in (3.6, 3.0, 2.4, 1.8, 1.2):
        width = width + decorator.rng.uniform(-0.2, 0.2)
        spot = decorator.find((width, _RUN_DEPTH, furniture_kitchen.BASE_HEIGHT),
                              corner=True, gap=0.0, clear=0.5)
        if spot is not None:
            _run(decorator, spot, width, style)
            return


def _corner_kitchen(
    decorator: Decorator, style: furniture_kitchen.KitchenStyle
) -> bool:
    """Build units around a corner of the room; return whether one had the room for it."""
    rng, walls = decorator.rng, decorator.room.walls
    height = furniture_kitchen.BASE_HEIGHT
    for index in rng.permutation(len(walls)):
        first, second = walls[int(index)], walls[int(index) - 1]
        if float(first.along @ second.inward) < 0.5:
            continue  # the inner corner of an L
        for lengths in ((3.0, 2.2), (2.4, 1.8), (1.9, 1.2)):
            a, b = lengths[0] + rng.uniform(-0.2, 0.3), lengths[1] + rng.uniform(-0.2, 0.3)
            one = decorator.spot(first, a / 2 + 0.02, (a, _RUN_DEPTH, height), clear=0.3)
            start = second.length - 0.66 - b / 2
            other = decorator.spot(second, start, (b, _RUN_DEPTH, height), clear=0.3)
            if one is not None and other is not None and start - b / 2 > 0:
                _run(decorator, one, a, style)
                _run(decorator, other, b, style)
                return True
    return False


def _run(
    decorator: Decorator, spot: Spot, width: float, style: furniture_kitchen.KitchenStyle
) -> None:
    rng, shop = decorator.rng, decorator.shop
    with decorator.at(spot), shop.builder.at(-width / 2, 0):
        furniture_kitchen.units(shop, style, width, int(rng.integers(5, 26)))
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
    _table_with_chairs(decorator, 0.9, 0.5)
    decorator.cabinets(int(rng.integers(1, 4)), (0.7, 1.1))
    decorator.shelves(int(rng.integers(0, 3)))
    if rng.random() < 0.4:
        decorator.against_wall(lambda: furniture_seats.sofa(shop, 1.5), (1.5, 0.98, 0.95),
                               clear=0.3)
    if rng.random() < 0.4:
        _side_table(decorator)


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
    decorator.floor_things(int(rng.integers(1, 7)))
    decorator.pictures(int(rng.integers(1, 9)))
