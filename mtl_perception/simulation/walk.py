# SPDX-License-Identifier: Apache-2.0
"""A camera that walks through the rooms: where people or robots can go, looking about."""

from __future__ import annotations

import heapq
import math

import cv2
from mtl_perception.simulation.errors import SimulationError
from mtl_perception.simulation.gaze import choose_gaze
from mtl_perception.simulation.plan import PARTITION
from mtl_perception.simulation.world import RoomsWorld
import numpy as np
import numpy.typing as npt

_CELL = 0.08  # metres per grid cell
_HEADROOM = 2.0  # what begins above this does not stop the camera
Poses = npt.NDArray[np.float64]


class FreeSpace:
    """The floor grid of a world: which cells the camera may visit."""

    def __init__(self, world: RoomsWorld, clearance: float) -> None:
        rooms = world.rooms
        if not rooms:
            raise SimulationError('this world has no rooms to walk through; give poses')
        low = np.min([room.low for room in rooms], axis=0) - 0.2
        high = np.max([room.high for room in rooms], axis=0) + 0.2
        self.low = low
        size = np.ceil((high - low) / _CELL).astype(int)
        grid = np.zeros((size[1], size[0]), np.uint8)

        def fill(extent: tuple[float, float, float, float], value: int) -> None:
            x0, y0 = np.floor((np.array(extent[:2]) - low) / _CELL).astype(int)
            x1, y1 = np.ceil((np.array(extent[2:]) - low) / _CELL).astype(int)
            grid[max(0, y0) : y1, max(0, x0) : x1] = value

        for room in rooms:
            inner = _CELL / 2
            fill((room.low[0] + inner, room.low[1] + inner,
                  room.high[0] - inner, room.high[1] - inner), 1)
        for wall in rooms[0].walls:
            for hole in wall.openings:
                if hole.kind == 'doorway':
                    y0, y1 = sorted((wall.point(hole.start)[1], wall.point(hole.end)[1]))
                    fill((-PARTITION - _CELL, y0, _CELL, y1), 1)
        for x0, y0, z0, x1, y1, _ in world.occupancy.solid:
            if z0 < _HEADROOM:
                fill((x0, y0, x1, y1), 0)
        distance = cv2.distanceTransform(grid, cv2.DIST_L2, 5) * _CELL
        for margin in (clearance, 0.7 * clearance, 0.45 * clearance):
            allowed = (distance > margin).astype(np.uint8)
            _, parts, stats, _ = cv2.connectedComponentsWithStats(allowed, connectivity=4)
            if len(stats) > 1 and stats[1:, cv2.CC_STAT_AREA].max() >= 20:
                self.free = parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
                self.distance = distance
                return
        raise SimulationError(
            f'world {world.seed} is too full to walk through; use another seed'
        )

    def contains(self, point: Poses) -> bool:
        """Return whether a floor point (2,) is free."""
        x, y = ((point - self.low) / _CELL).astype(int)
        inside = 0 <= y < self.free.shape[0] and 0 <= x < self.free.shape[1]
        return bool(inside and self.free[y, x])

    def route(self, start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the cells (row, column) of a short way that keeps off obstacles (Dijkstra)."""
        best = {start: 0.0}
        came: dict[tuple[int, int], tuple[int, int]] = {}
        queue = [(0.0, start)]
        while queue:
            cost, cell = heapq.heappop(queue)
            if cell == goal:
                break
            if cost > best[cell]:
                continue
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                other = (cell[0] + dy, cell[1] + dx)
                if not (
                    0 <= other[0] < self.free.shape[0] and 0 <= other[1] < self.free.shape[1]
                    and self.free[other]
                ):
                    continue
                near = 0.15 / float(self.distance[other])
                reached = cost + math.hypot(dy, dx) * (1.0 + near)
                if reached < best.get(other, math.inf):
                    best[other], came[other] = reached, cell
                    heapq.heappush(queue, (reached, other))
        way = [goal]
        while way[-1] in came:
            way.append(came[way[-1]])
        return way[::-1]


def _path(space: FreeSpace, rng: np.random.Generator, length: float) -> npt.NDArray[np.float64]:
    """Return a smooth path of floor points (n, 2), at least `length` metres long if possible."""
    cells = np.argwhere(space.free)

    def pick() -> tuple[int, int]:
        row, column = cells[int(rng.integers(len(cells)))]
        return int(row), int(column)

    here = pick()
    way = [here]
    travelled = 0.0
    for _ in range(400):
        if travelled >= length:
            break
        goal = pick()
        leg = space.route(here, goal)
        travelled += _CELL * len(leg)
        way += leg[1:]
        here = goal
    points = (np.array(way, np.float64)[:, ::-1] + 0.5) * _CELL + space.low
    for _ in range(30):
        moved = points.copy()
        moved[1:-1] = (points[:-2] + 2 * points[1:-1] + points[2:]) / 4
        for index in range(1, len(points) - 1):
            if not space.contains(moved[index]):
                moved[index] = points[index]
        points = moved
    return points


def _sway(rng: np.random.Generator, time: npt.NDArray[np.float64], period: float) -> Poses:
    """Return a smooth wander in [-1, 1] along `time` (s) with periods around `period` (s)."""
    total = np.zeros_like(time)
    for weight in (0.6, 0.4):
        turn = 2 * np.pi / (period * rng.uniform(0.6, 1.7))
        total += weight * np.sin(turn * time + rng.uniform(0, 2 * np.pi))
    return total


def look(position: npt.ArrayLike, yaw: float, pitch: float, roll: float = 0.0) -> Poses:
    """
    Return the pose (4, 4), optical frame -> world, of a camera at `position` (m).

    Yaw turns the view from world x towards y, pitch lifts it, roll turns the image about
    the viewing axis (rad).
    """
    forward = np.array([
        math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)
    ])
    level = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
    below = np.cross(forward, level)
    right = math.cos(roll) * level + math.sin(roll) * below
    pose = np.eye(4)
    pose[:3, 0] = right
    pose[:3, 1] = np.cross(forward, right)
    pose[:3, 2] = forward
    pose[:3, 3] = position
    return pose


def walk(world: RoomsWorld, seed: int, frames: int, *, rate_hz: float = 30.0) -> Poses:
    """
    Return the poses (frames, 4, 4), optical frame -> world, of a walk through a world.

    The camera keeps 0.5 to 1.8 m above the floor and at least about 0.3 m from furniture
    and walls, looks ahead and around, nods and rolls a little. A lower rate spreads the
    frames over a longer walk.

    Raises
    ------
    SimulationError
        If there is no free floor, no frame is asked for or the rate is not positive.

    """
    if frames < 1 or not rate_hz > 0:
        raise SimulationError(
            f'a walk needs at least one frame and a positive rate, not {frames} at {rate_hz} Hz'
        )
    rng = np.random.default_rng((seed, world.seed, 0x3A1C))
    space = FreeSpace(world, clearance=0.34)
    time = np.arange(frames) / rate_hz
    speed = rng.uniform(0.35, 0.7)
    points = _path(space, rng, speed * float(time[-1]) + 2.0)
    run = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
    where = np.minimum(speed * time, max(0.0, run[-1] - 1e-6))

    def at(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        clipped = np.clip(distance, 0, run[-1])
        return np.stack([np.interp(clipped, run, points[:, axis]) for axis in (0, 1)], axis=-1)

    place = at(where)
    tall = float(rng.uniform(0.5, 1.0) if rng.random() < 0.35 else rng.uniform(1.1, 1.8))
    height = np.clip(tall + 0.1 * _sway(rng, time, 9.0), 0.5, 1.8)
    # Heading: where the path leads over the next metre and a half.
    ahead = at(where + 1.5) - place + 1e-6 * (points[-1] - points[0] + 1e-3)
    position = np.concatenate((place, height[:, None]), axis=1)
    gaze = choose_gaze(world, rng, time, position, ahead)
    yaw = np.arctan2(gaze[:, 1], gaze[:, 0]) + math.radians(5) * _sway(rng, time, 5.0)
    pitch = np.arcsin(np.clip(gaze[:, 2], -0.9, 0.6)) + math.radians(3) * _sway(rng, time, 4.0)
    roll = math.radians(rng.uniform(0.3, 3.0)) * _sway(rng, time, 3.0)
    return np.stack([
        look(position[index], yaw[index], pitch[index], roll[index]) for index in range(frames)
    ])
