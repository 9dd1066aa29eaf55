# SPDX-License-Identifier: Apache-2.0
"""Find room for pieces: against walls, in the open, on walls; nothing overlaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mtl_perception.simulation.decor import Glow
from mtl_perception.simulation.furniture_seats import Size
from mtl_perception.simulation.plan import Extent, Occupancy, Room, Wall
from mtl_perception.simulation.workshop import Workshop
import numpy as np

_WALL_GAP = 0.015  # clears the skirting board


@dataclass(frozen=True)
class LampPlan:
    """Whether lamps burn, and how strong and warm they are (W/sr in render units, RGB)."""

    lit: bool
    power: Glow

    def share(self, part: float) -> Glow:
        """Return the power of a lamp with `part` of a ceiling lamp's."""
        red, green, blue = self.power
        return red * part, green * part, blue * part


@dataclass(frozen=True)
class Spot:
    """A place against a wall."""

    wall: Wall
    along: float  # centre
    extent: Extent


class Decorator:
    """Places pieces in one room and remembers what is where so that nothing overlaps."""

    def __init__(
        self, shop: Workshop, room: Room, occupancy: Occupancy, lamps: LampPlan
    ) -> None:
        self.shop = shop
        self.rng = shop.rng
        self.room = room
        self.occupancy = occupancy
        self.lamps = lamps

    def extent(
        self, wall: Wall, along: float, size: Size, z: float = 0.0,
        away: float = _WALL_GAP,
    ) -> Extent:
        """Return the world extent of a piece with its back `away` from the wall."""
        width, depth, height = size
        ends = (wall.point(along - width / 2, away), wall.point(along + width / 2, away + depth))
        (x0, y0), (x1, y1) = np.minimum(*ends), np.maximum(*ends)
        return float(x0), float(y0), z, float(x1), float(y1), z + height

    def find(
        self, size: Size, *, z: float = 0.0, gap: float = 0.02,
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
        self, wall: Wall, along: float, size: Size, *, z: float = 0.0,
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
        self, make: Callable[[], object], size: Size, *, gap: float = 0.02,
        corner: bool = False, clear: float = 0.0,
    ) -> Spot | None:
        """Build a piece of (at most) that size against a wall where there is room."""
        spot = self.find(size, gap=gap, corner=corner, clear=clear)
        if spot is not None:
            with self.at(spot):
                make()
        return spot

    def free_standing(
        self, make: Callable[[], object], size: Size, gap: float = 0.5,
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
        size: Size,
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

    def hang(self, make: Callable[[], object], size: Size, z: float) -> bool:
        """Hang something on a wall with its lower edge at z."""
        spot = self.find(size, z=z, gap=0.03)
        if spot is None:
            return False
        with self.at(spot, z):
            make()
        return True
