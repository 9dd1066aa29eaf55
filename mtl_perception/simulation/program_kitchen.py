# SPDX-License-Identifier: Apache-2.0
"""What stands in a kitchen."""

from __future__ import annotations

from functools import partial

from mtl_perception.simulation import decor, furniture_cases, furniture_kitchen, furniture_seats
from mtl_perception.simulation.furnish import cabinets, table_with_chairs
from mtl_perception.simulation.placement import Decorator, Spot

_RUN_DEPTH = furniture_kitchen.BASE_DEPTH + 0.03


def kitchen(decorator: Decorator) -> None:
    """Units along a wall or around a corner, refrigerator, a table with chairs."""
    rng, shop = decorator.rng, decorator.shop
    style = furniture_kitchen.draw_style(shop)
    if not (rng.random() < 0.6 and _corner_kitchen(decorator, style)):
        for _ in range(1 if rng.random() < 0.6 else 2):
            _straight_kitchen(decorator, style)
    decorator.against_wall(partial(furniture_kitchen.refrigerator, shop), (0.76, 0.74, 1.9),
                           corner=True, clear=0.4, gap=0.01)
    if rng.random() < 0.8:
        table_with_chairs(decorator, 0.75, 0.1)
    decorator.against_wall(partial(furniture_kitchen.bin_or_bucket, shop), (0.36, 0.36, 0.6))
    if rng.random() < 0.4:
        decorator.against_wall(partial(furniture_seats.stool, shop), (0.4, 0.4, 0.75))
    for _ in range(int(rng.integers(0, 3))):
        wide = rng.uniform(0.5, 1.2)
        decorator.hang(partial(furniture_cases.wall_shelf, shop, wide),
                       (wide, 0.28, 0.4), 1.4)
    if rng.random() < 0.5:
        cabinets(decorator, 1, (0.8, 2.2))
    if rng.random() < 0.25:
        decorator.hang(partial(decor.television, shop, 0.7, False, True), (0.7, 0.05, 0.42), 1.5)


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
