# SPDX-License-Identifier: Apache-2.0
"""
The floor plan: rooms, their walls and openings, and who occupies which part of the space.

World frame: x and y along the walls, z up, floor at z = 0, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field
import math

import numpy as np
import numpy.typing as npt

ROOM_KINDS = ('living', 'kitchen', 'bedroom', 'office', 'dining', 'storage')
PARTITION = 0.12  # thickness of a wall between two rooms
Extent = tuple[float, float, float, float, float, float]  # x0, y0, z0, x1, y1, z1


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: from `start` to `end` along it, from `bottom` to `top` (m)."""

    kind: str  # 'window', 'door' (closed leaf), 'doorway' (leads to the other room)
    start: float
    end: float
    bottom: float
    top: float


@dataclass(frozen=True)
class Wall:
    """One straight wall from a to b, the room on its left hand."""

    a: tuple[float, float]
    b: tuple[float, float]
    openings: tuple[Opening, ...] = ()

    @property
    def length(self) -> float:
        """Length in metres."""
        return math.dist(self.a, self.b)

    @property
    def along(self) -> npt.NDArray[np.float64]:
        """Unit vector from a to b."""
        return (np.array(self.b) - np.array(self.a)) / self.length

    @property
    def inward(self) -> npt.NDArray[np.float64]:
        """Unit vector into the room."""
        x, y = self.along
        return np.array([-y, x])

    @property
    def yaw(self) -> float:
        """The turn that makes +y of a piece of furniture point into the room."""
        x, y = self.inward
        return math.atan2(-x, y)

    def point(self, start: float, distance: float = 0.0) -> npt.NDArray[np.float64]:
        """Return the point `start` along the wall and `distance` into the room."""
        return np.array(self.a) + self.along * start + self.inward * distance


@dataclass(frozen=True)
class Room:
    """A rectangular room, or an L where `notch` (x0, y0) is the inner corner of its cut."""

    kind: str
    low: tuple[float, float]
    high: tuple[float, float]
    height: float
    walls: tuple[Wall, ...]
    notch: tuple[float, float] | None = None


def corners_of(
    low: tuple[float, float], high: tuple[float, float], notch: tuple[float, float] | None
) -> list[tuple[float, float]]:
    """Return the corners counter-clockwise; the notch cuts away the corner at `high`."""
    if notch is None:
        return [low, (high[0], low[1]), high, (low[0], high[1])]
    return [
        low, (high[0], low[1]), (high[0], notch[1]), notch, (notch[0], high[1]),
        (low[0], high[1]),
    ]


@dataclass
class Occupancy:
    """What is taken: `solid` stops the camera, `reserved` only keeps furniture away."""

    rooms: tuple[Room, ...]
    solid: list[Extent] = field(default_factory=list)
    reserved: list[Extent] = field(default_factory=list)

    def __post_init__(self) -> None:
        for room in self.rooms:
            if room.notch is not None:
                self.solid.append((*room.notch, 0.0, *room.high, room.height))
            for wall in room.walls:
                for opening in wall.openings:
                    depth = 0.12 if opening.kind == 'window' else 0.85
                    a = wall.point(opening.start - 0.05)
                    b = wall.point(opening.end + 0.05, depth)
                    (x0, y0), (x1, y1) = np.minimum(a, b), np.maximum(a, b)
                    self.reserved.append((x0, y0, opening.bottom, x1, y1, opening.top))

    @property
    def things(self) -> list[Extent]:
        """What is solid and no wall: furniture and what hangs."""
        return self.solid[sum(room.notch is not None for room in self.rooms):]

    def is_free(self, extent: Extent, gap: float = 0.0) -> bool:
        """Return whether nothing solid or reserved meets the extent."""
        x0, y0, z0, x1, y1, z1 = extent
        for other in (*self.solid, *self.reserved):
            if (
                x0 - gap < other[3] and x1 + gap > other[0]
                and y0 - gap < other[4] and y1 + gap > other[1]
                and z0 < other[5] and z1 > other[2]
            ):
                return False
        return True

    def is_inside(self, room: Room, extent: Extent) -> bool:
        """Return whether the extent lies inside the room's rectangle."""
        return (
            extent[0] >= room.low[0] - 1e-6 and extent[1] >= room.low[1] - 1e-6
            and extent[3] <= room.high[0] + 1e-6 and extent[4] <= room.high[1] + 1e-6
            and extent[5] <= room.height + 1e-6
        )


def _window(rng: np.random.Generator, start: float, room: float, height: float) -> Opening:
    width = min(room, rng.uniform(0.8, 2.4))
    place = start + rng.uniform(0, room - width)
    bottom = rng.choice((0.1, 0.85, 0.95, 1.05), p=(0.12, 0.3, 0.3, 0.28))
    top = min(height - 0.15, rng.uniform(2.0, 2.35))
    return Opening('window', place, place + width, float(bottom), top)


def _open_walls(
    rng: np.random.Generator,
    corners: list[tuple[float, float]],
    height: float,
    fixed: dict[int, Opening],
) -> tuple[Wall, ...]:
    """Give a room's walls their windows and one closed door where there is no doorway."""
    count = len(corners)
    edges = [(corners[index], corners[(index + 1) % count]) for index in range(count)]
    openings: list[list[Opening]] = [[] for _ in edges]
    for index, opening in fixed.items():
        openings[index].append(opening)
    order = [int(value) for value in rng.permutation(count)]
    wanted = int(rng.choice((1, 2, 3), p=(0.45, 0.4, 0.15)))
    doors = 1 if not fixed or rng.random() < 0.4 else 0
    for index in order:
        length = math.dist(*edges[index])
        if openings[index] or length < 1.9:
            continue
        if doors and length > 1.4:
            width = rng.uniform(0.78, 0.95)
            start = rng.uniform(0.25, length - width - 0.25)
            openings[index].append(
                Opening('door', start, start + width, 0.0, rng.uniform(1.98, 2.1))
            )
            doors -= 1
            rest = length - start - width - 0.7
            if wanted and rest > 1.0 and rng.random() < 0.3:
                openings[index].append(_window(rng, start + width + 0.35, rest, height))
                wanted -= 1
        elif wanted:
            openings[index].append(_window(rng, 0.45, length - 0.9, height))
            wanted -= 1
    return tuple(Wall(a, b, tuple(found)) for (a, b), found in zip(edges, openings))


def draw_rooms(rng: np.random.Generator) -> tuple[Room, ...]:
    """Draw one room, an L-shaped one, or two joined by a doorway."""
    height = float(rng.uniform(2.35, 3.0))
    kinds = [str(kind) for kind in rng.permutation(ROOM_KINDS)]
    # Kitchens and living rooms are where robots mostly are.
    first_kind = str(rng.choice(ROOM_KINDS, p=(0.24, 0.3, 0.16, 0.13, 0.11, 0.06)))
    width, depth = float(rng.uniform(3.0, 6.8)), float(rng.uniform(2.9, 5.6))
    high = (width, depth)
    notch = None
    if width > 4.2 and depth > 4.0 and rng.random() < 0.4:
        notch = (width * rng.uniform(0.5, 0.72), depth * rng.uniform(0.5, 0.7))
    corners = corners_of((0.0, 0.0), high, notch)
    if rng.random() >= 0.5:
        walls = _open_walls(rng, corners, height, {})
        return (Room(first_kind, (0.0, 0.0), high, height, walls, notch),)
    # The second room shares the wall at x = 0, which is the last edge of the first.
    span = float(rng.uniform(0.85, 1.6))
    door = float(rng.uniform(0.35, depth - span - 0.35))
    top = float(rng.uniform(2.0, 2.2))
    first = Opening('doorway', depth - door - span, depth - door, 0.0, top)
    walls = _open_walls(rng, corners, height, {len(corners) - 1: first})
    other_width = float(rng.uniform(2.4, 4.8))
    y0 = float(door - rng.uniform(0.3, 2.0))
    y1 = float(max(door + span + rng.uniform(0.3, 2.0), y0 + 2.6))
    low, high_other = (-PARTITION - other_width, y0), (-PARTITION, y1)
    second = Opening('doorway', door - y0, door + span - y0, 0.0, top)
    other_walls = _open_walls(rng, corners_of(low, high_other, None), height, {1: second})
    second_kind = next(kind for kind in kinds if kind != first_kind)
    return (
        Room(first_kind, (0.0, 0.0), high, height, walls, notch),
        Room(second_kind, low, high_other, height, other_walls),
    )
