# SPDX-License-Identifier: Apache-2.0
"""Put furniture where people put it: against walls, around tables, before televisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mtl_perception.simulation import decor, furniture_cases, furniture_seats
from mtl_perception.simulation.decor import Glow
from mtl_perception.simulation.plan import Extent, Occupancy, Opening, Room, Wall
from mtl_perception.simulation.workshop import Workshop
import numpy as np

_WALL_GAP = 0.015  # clears the skirting board


@dataclass(frozen=True)
class LampPlan:
    """Whether lamps burn, and how strong and warm they are (W/sr in render units, RGB)."""

    lit: bool
    power: Glow


@dataclass(frozen=True)
class Spot:
    """A place against a wall."""

    wall: Wall
    along: float  # centre
    extent: Extent


class Decorator:
    """Furnishes one room; remembers what is where so that nothing overlaps."""

    def __init__(
        self, shop: Workshop, room: Room, occupancy: Occupancy, lamps: LampPlan
    ) -> None:
        self.shop = shop
        self.rng = shop.rng
        self.room = room
        self.occupancy = occupancy
        self.lamps = lamps

    def extent(
        self, wall: Wall, along: float, size: tuple[float, float, float], z: float = 0.0,
        away: float = _WALL_GAP,
    ) -> Extent:
        """Return the world extent of a piece with its back `away` from the wall."""
        width, depth, height = size
        ends = (wall.point(along - width / 2, away), wall.point(along + width / 2, away + depth))
        (x0, y0), (x1, y1) = np.minimum(*ends), np.maximum(*ends)
        return float(x0), float(y0), z, float(x1), float(y1), z + height

    def find(
        self, size: tuple[float, float, float], *, z: float = 0.0, gap: float = 0.02,
        corner: bool = False, walls: tuple[Wall, ...] | None = None, clear: float = 0.0,
    ) -> Spot | None:
        """Find a free place against a wall, with `clear` metres free before it."""
        width = size[0]
        for _ in range(20):
            choices = walls or self.room.walls
            wall = choices[int(self.rng.integers(len(choices)))]
            slack = wall.length - width - 0.04
            if slack < 0:
                continue
            if corner and self.rng.random() < 0.7:
                along = (0.02 if self.rng.random() < 0.5 else wall.length - width - 0.02)
                along += width / 2
            else:
                along = 0.02 + width / 2 + slack * self.rng.random()
            found = self.spot(wall, along, size, z=z, gap=gap, clear=clear)
            if found is not None:
                return found
        return None

    def spot(
        self, wall: Wall, along: float, size: tuple[float, float, float], *, z: float = 0.0,
        gap: float = 0.0, clear: float = 0.0,
    ) -> Spot | None:
        """Return the place centred at `along` of a wall if it is free, `clear` m before it too."""
        width, depth, height = size
        extent = self.extent(wall, along, size, z)
        reach = self.extent(wall, along, (width, depth + clear, height), z)
        if (
            self.occupancy.is_inside(self.room, extent)
            and self.occupancy.is_free(extent, gap)
            and self.occupancy.is_free(reach)
        ):
            return Spot(wall, along, extent)
        return None

    @contextmanager
    def at(self, spot: Spot, z: float = 0.0) -> Iterator[None]:
        """Place a piece at a spot and take its space."""
        self.occupancy.solid.append(spot.extent)
        x, y = spot.wall.point(spot.along, _WALL_GAP if z == 0.0 else 0.001)
        with self.shop.builder.at(float(x), float(y), z, spot.wall.yaw):
            yield

    def against_wall(
        self, make: Callable[[], object], size: tuple[float, float, float], **options: object
    ) -> Spot | None:
        """Build a piece of (at most) that size against a wall where there is room."""
        spot = self.find(size, **options)  # type: ignore[arg-type]
        if spot is not None:
            with self.at(spot):
                make()
        return spot

    def free_standing(
        self, make: Callable[[], object], size: tuple[float, float, float], gap: float = 0.5,
    ) -> Extent | None:
        """Build a piece in the open, parallel to the walls, `gap` from all else."""
        width, depth, height = size
        for _ in range(14):
            turned = self.rng.random() < 0.5
            w, d = (depth, width) if turned else (width, depth)
            low, high = np.array(self.room.low), np.array(self.room.high)
            room = high - low - (w, d) - 2 * gap
            if (room < 0).any():
                continue
            x, y = low + gap + room * self.rng.random(2) + np.array((w, d)) / 2
            extent = (x - w / 2, y - d / 2, 0.0, x + w / 2, y + d / 2, height)
            if self.occupancy.is_free(extent, gap):
                self.occupancy.solid.append(extent)
                yaw = np.pi / 2 if turned else 0.0
                back = np.array((x + w / 2, y)) if turned else np.array((x, y - d / 2))
                with self.shop.builder.at(float(back[0]), float(back[1]), 0.0, float(yaw)):
                    make()
                return extent
        return None

    def loose(
        self, make: Callable[[], object], x: float, y: float, yaw: float,
        size: tuple[float, float, float],
    ) -> bool:
        """Build a piece whose footprint's centre is x, y at any angle, if there is room."""
        width, depth, height = size
        c, s = abs(np.cos(yaw)), abs(np.sin(yaw))
        w, d = (width * c + depth * s) / 2, (width * s + depth * c) / 2
        extent = (x - w, y - d, 0.0, x + w, y + d, height)
        if not (self.occupancy.is_inside(self.room, extent) and self.occupancy.is_free(extent)):
            return False
        self.occupancy.solid.append(extent)
        back = np.array((x, y)) - np.array((-np.sin(yaw), np.cos(yaw))) * depth / 2
        with self.shop.builder.at(float(back[0]), float(back[1]), 0.0, yaw):
            make()
        return True

    def seats_around(self, extent: Extent, share: float) -> None:
        """Put chairs at the four sides of a table, pushed in or pulled out a little."""
        x0, y0, _, x1, y1, _ = extent
        for side in range(4):
            along_x = side % 2 == 0
            length = (x1 - x0) if along_x else (y1 - y0)
            count = max(1, int(length / 0.62))
            for index in range(count):
                if self.rng.random() > share:
                    continue
                offset = (index + 0.5) / count * length
                out = self.rng.uniform(0.27, 0.45)
                yaw = (np.pi, np.pi / 2, 0.0, -np.pi / 2)[side] + self.rng.normal(0, 0.12)
                if along_x:
                    x, y = x0 + offset, (y1 + out if side == 0 else y0 - out)
                else:
                    x, y = (x0 - out if side == 3 else x1 + out), y0 + offset
                self.loose(lambda: furniture_seats.chair(self.shop), x, y, yaw, (0.5, 0.52, 0.95))

    def hang(self, make: Callable[[], object], size: tuple[float, float, float], z: float) -> bool:
        """Hang something on a wall with its lower edge at z."""
        spot = self.find(size, z=z, gap=0.03)
        if spot is None:
            return False
        with self.at(spot, z):
            make()
        return True

    def pictures(self, count: int) -> None:
        """Hang up to `count` pictures at eye height."""
        for _ in range(count):
            small = self.rng.random() < 0.45
            width, height = self.rng.uniform(0.15, 0.4 if small else 1.2, 2)
            height = min(height, 0.95)
            z = self.rng.uniform(1.25, 1.75) - height / 2 + 0.12
            if z + height < self.room.height - 0.1:
                self.hang(lambda w=width, h=height: decor.picture(self.shop, w, h),
                          (width, 0.05, height), z)

    def windows(self) -> Iterator[tuple[Wall, Opening]]:
        """Yield each window of the room with its wall."""
        for wall in self.room.walls:
            for opening in wall.openings:
                if opening.kind == 'window':
                    yield wall, opening

    def curtains(self, share: float) -> None:
        """Hang curtains at both sides of windows."""
        for wall, hole in self.windows():
            if self.rng.random() > share:
                continue
            width = min(0.55, 0.22 * (hole.end - hole.start) + self.rng.uniform(0.05, 0.25))
            top = min(self.room.height - 0.06, hole.top + 0.12)
            low = 0.03 if self.rng.random() < 0.7 else max(0.03, hole.bottom - 0.15)
            for centre in (hole.start - width * 0.3, hole.end + width * 0.3):
                size = (width, 0.1, top - low)
                extent = self.extent(wall, centre, size, low, 0.02)
                solid_only = Occupancy((), list(self.occupancy.solid))
                if self.occupancy.is_inside(self.room, extent) and solid_only.is_free(extent):
                    self.occupancy.solid.append(extent)
                    x, y = wall.point(centre, 0.02)
                    with self.shop.builder.at(float(x), float(y), low, wall.yaw):
                        decor.curtain(self.shop, width, top - low)
            x, y = wall.point((hole.start + hole.end) / 2, 0.02)
            span = min(hole.end - hole.start + width, wall.length - 0.1)
            with self.shop.builder.at(float(x), float(y), top + 0.015, wall.yaw):
                decor.curtain_rod(self.shop, span)

    def ceiling_lamps(self) -> None:
        """Hang one to three lamps from the ceiling."""
        low, high = np.array(self.room.low), np.array(self.room.high)
        if self.room.notch is not None:
            high = np.array((high[0], self.room.notch[1]))
        span = high - low
        count = 1 if float(span.max()) < 4 else int(self.rng.integers(1, 4))
        axis = int(np.argmax(span))
        hang = float(self.rng.choice((0.0, 0.0, self.rng.uniform(0.35, 0.6))))
        strength = 1.0 / count
        power = tuple(value * strength for value in self.lamps.power)
        for index in range(count):
            place = low + span / 2
            place[axis] = low[axis] + span[axis] * (index + 0.5) / count
            x, y = (float(value) for value in place)
            bottom = decor.ceiling_lamp(
                self.shop, x, y, self.room.height, (power[0], power[1], power[2]),
                self.lamps.lit, hang,
            )
            self.occupancy.solid.append(
                (x - 0.3, y - 0.3, bottom, x + 0.3, y + 0.3, self.room.height)
            )

    def floor_things(self, count: int) -> None:
        """Put plants, cartons, bins and the like along the walls."""
        for _ in range(count):
            choice = self.rng.random()
            if choice < 0.35:
                height = self.rng.uniform(0.5, 1.6)
                self.against_wall(lambda h=height: decor.plant(self.shop, h),
                                  (0.55, 0.6, height), corner=True)
            elif choice < 0.55:
                power = tuple(value * 0.35 for value in self.lamps.power)
                height = self.rng.uniform(1.3, 1.75)
                self.against_wall(
                    lambda h=height, p=power: decor.standing_lamp(
                        self.shop, h, (p[0], p[1], p[2]),
                        self.lamps.lit and bool(self.rng.random() < 0.6)),
                    (0.52, 0.52, height), corner=True)
            else:
                width, depth, height = self.rng.uniform((0.25, 0.2, 0.15), (0.6, 0.45, 0.5))
                self.against_wall(lambda s=(width, depth, height): self._carton(s),
                                  (width, depth, height))

    def _carton(self, size: tuple[float, float, float]) -> None:
        from mtl_perception.simulation.shapes import box

        self.shop.builder.begin('box')
        width, depth, height = size
        material = self.shop.carton() if self.rng.random() < 0.6 else self.shop.package()
        box(self.shop.builder, (-width / 2, 0, 0), (width / 2, depth, height), material,
            sides='lrfbt', fit='lrfbt')

    def shelves(self, count: int) -> None:
        """Stand up to `count` bookcases along the walls."""
        for _ in range(count):
            size = (self.rng.uniform(0.5, 1.3), self.rng.uniform(0.25, 0.38),
                    self.rng.uniform(0.8, 2.1))
            self.against_wall(lambda s=size: furniture_cases.shelf(self.shop, *s), size,
                              corner=True, clear=0.4)

    def cabinets(
        self, count: int, height: tuple[float, float], things: int = 6
    ) -> list[Spot]:
        """Stand up to `count` cabinets along the walls."""
        spots = []
        for _ in range(count):
            size = (self.rng.uniform(0.5, 1.7), self.rng.uniform(0.35, 0.6),
                    min(self.rng.uniform(*height), self.room.height - 0.1))
            spot = self.against_wall(
                lambda s=size: furniture_cases.cabinet(
                    self.shop, s[0], s[1], s[2],
                    int(self.rng.integers(1, things + 1)) if s[2] < 1.4 else 0),
                (size[0], size[1] + 0.03, size[2]), clear=0.35)
            if spot is not None:
                spots.append(spot)
        return spots
