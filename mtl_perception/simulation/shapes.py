# SPDX-License-Identifier: Apache-2.0
"""The shapes that furniture is made of: boxes, cushions, turned bodies, prisms, sheets."""

from __future__ import annotations

from collections.abc import Sequence
import math

from mtl_perception.simulation.mesh import MeshBuilder
import numpy as np
import numpy.typing as npt

Point = Sequence[float]
Points = npt.NDArray[np.float64]
SIDES = 'lrfbtd'  # left (-x), right (+x), front (+y), back (-y), top (+z), down (-z)


def rectangle(
    builder: MeshBuilder,
    origin: Point,
    across: Point,
    down: Point,
    material: int,
    *,
    fit: bool = False,
    turn: bool = False,
) -> None:
    """
    Add a rectangle from its top left corner and its two edges as seen from its front.

    `fit` stretches one texture tile over it (for a material of scale 1); `turn` swaps the
    texture's axes, so that grain runs down instead of across.
    """
    start, right, below = (np.asarray(value, np.float64) for value in (origin, across, down))
    width, height = (1.0, 1.0) if fit else (np.linalg.norm(right), np.linalg.norm(below))
    points = [[start, start + right], [start + below, start + right + below]]
    texture = np.array([[[0.0, 0.0], [width, 0.0]], [[0.0, height], [width, height]]])
    builder.grid(points, material, texture[..., ::-1] if turn else texture)


def box(
    builder: MeshBuilder,
    low: Point,
    high: Point,
    material: int,
    *,
    sides: str = SIDES,
    grain: str = 'x',
    fit: str = '',
    front: int | None = None,
) -> None:
    """
    Add a box between two corners of the placement; front is +y.

    `sides` lists the faces wanted, `grain` is the axis along which textures run, `fit` the
    faces that one texture tile covers whole, `front` another material for the front.
    """
    (x0, y0, z0), (x1, y1, z1) = low, high
    dx, dy, dz = x1 - x0, y1 - y0, z1 - z0
    faces = {
        'l': ((x0, y1, z1), (0, -dy, 0), (0, 0, -dz), 'yz'),
        'r': ((x1, y0, z1), (0, dy, 0), (0, 0, -dz), 'yz'),
        'f': ((x1, y1, z1), (-dx, 0, 0), (0, 0, -dz), 'xz'),
        'b': ((x0, y0, z1), (dx, 0, 0), (0, 0, -dz), 'xz'),
        't': ((x0, y1, z1), (dx, 0, 0), (0, -dy, 0), 'xy'),
        'd': ((x0, y0, z0), (dx, 0, 0), (0, dy, 0), 'xy'),
    }
    for side in sides:
        origin, across, down, named = faces[side]
        used = front if side == 'f' and front is not None else material
        rectangle(
            builder, origin, across, down, used, fit=side in fit, turn=named[1] == grain
        )


def _panel_line(half: float, radius: float, steps: int) -> Points:
    """Return coordinates from -half to half, dense where the rounding is."""
    bend = radius * (1 - np.cos(np.linspace(0, np.pi / 2, steps)))
    inner = half - radius
    return np.unique(np.concatenate((-half + bend, [-inner / 2, inner / 2], half - bend)).round(9))


def cushion(
    builder: MeshBuilder,
    low: Point,
    high: Point,
    radius: float,
    material: int,
    *,
    puff: float = 0.0,
    steps: int = 4,
) -> None:
    """
    Add a box with rounded edges (m); `puff` lets its top and bottom swell by that much.

    Each point of a cube's face is pushed out from the inner box by the radius: the offset
    surface of a smaller box.
    """
    half = (np.asarray(high, np.float64) - np.asarray(low, np.float64)) / 2
    middle = (np.asarray(high, np.float64) + np.asarray(low, np.float64)) / 2
    radius = float(min(radius, 0.98 * half.min()))
    inner = half - radius
    # (axis that is fixed, its sign, axis and sign of columns, axis and sign of rows)
    for fixed, sign, column, column_sign, row, row_sign in (
        (0, -1, 1, -1, 2, -1), (0, 1, 1, 1, 2, -1), (1, 1, 0, -1, 2, -1),
        (1, -1, 0, 1, 2, -1), (2, 1, 0, 1, 1, -1), (2, -1, 0, 1, 1, 1),
    ):
        u = _panel_line(half[column], radius, steps) * column_sign
        v = _panel_line(half[row], radius, steps) * row_sign
        u.sort()
        v.sort()
        grid = np.zeros((len(v), len(u), 3))
        grid[..., fixed] = half[fixed] * sign
        grid[..., column] = u[::column_sign][None, :]
        grid[..., row] = v[::row_sign][:, None]
        core = np.clip(grid, -inner, inner)
        outward = grid - core
        outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-9)
        points = core + outward * radius
        if puff:
            bulge = np.prod(np.cos(0.5 * np.pi * np.clip(points[..., :2] / half[:2], -1, 1)), -1)
            points[..., 2] += np.sign(points[..., 2]) * puff * np.sqrt(np.maximum(bulge, 0))
        texture = np.stack((grid[..., column], grid[..., row]), axis=-1)
        builder.grid(points + middle, material, texture, normals=outward)


def turned(
    builder: MeshBuilder,
    centre: Point,
    profile: Sequence[tuple[float, float]],
    material: int,
    *,
    segments: int = 16,
    smooth: bool = False,
    arc: float = 1.0,
) -> None:
    """
    Add a body turned about the vertical through `centre`.

    `profile` lists (radius, height) from the top down; a first or last radius above zero
    leaves the end open. `smooth` rounds the light along the profile too.
    """
    angle = np.linspace(0, 2 * np.pi * arc, segments + 1)
    circle = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    radius = np.array([entry[0] for entry in profile], np.float64)
    height = np.array([entry[1] for entry in profile], np.float64)
    run = np.concatenate(([0.0], np.cumsum(np.hypot(np.diff(radius), np.diff(height)))))
    girth = 2 * math.pi * arc * float(radius.max())
    slope = np.stack((-np.gradient(height, run), np.gradient(radius, run)), axis=-1)

    def rows(index: slice, tilt: Points) -> None:
        ring = circle[None] * radius[index][:, None, None]
        up = np.broadcast_to(height[index][:, None, None], (*ring.shape[:2], 1))
        points = np.concatenate((ring, up), axis=-1) + np.asarray(centre, np.float64)
        level = np.broadcast_to(tilt[:, None, 1:], (*ring.shape[:2], 1))
        normals = np.concatenate((circle[None] * tilt[:, None, :1], level), axis=-1)
        across, down = np.meshgrid(np.linspace(0, girth, segments + 1), run[index])
        builder.grid(points, material, np.stack((across, down), -1), normals=normals)

    if smooth:
        rows(slice(0, len(profile)), slope)
        return
    for start in range(len(profile) - 1):
        fall = np.array([height[start] - height[start + 1], radius[start + 1] - radius[start]])
        tilt = np.repeat((fall / max(np.linalg.norm(fall), 1e-9))[None], 2, axis=0)
        rows(slice(start, start + 2), tilt)


def cylinder(
    builder: MeshBuilder,
    centre: Point,
    radius: float,
    height: float,
    material: int,
    *,
    segments: int = 16,
    top_radius: float | None = None,
) -> None:
    """Add a closed upright cylinder (or cone frustum) that stands on `centre`."""
    upper = radius if top_radius is None else top_radius
    profile = [(0.0, height), (upper, height), (radius, 0.0), (0.0, 0.0)]
    turned(builder, centre, profile, material, segments=segments)


def rod(
    builder: MeshBuilder, start: Point, end: Point, radius: float, material: int, sides: int = 6
) -> None:
    """Add a thin rod between two points."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(b - a))
    axis = (b - a) / max(length, 1e-9)
    helper = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 1.0, 0])
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    points = np.stack((b + radius * ring, a + radius * ring))
    across, down = np.meshgrid(angle * radius, [0.0, length])
    builder.grid(points, material, np.stack((across, down), -1), normals=np.stack((ring, ring)))


def prism(
    builder: MeshBuilder, outline: Sequence[tuple[float, float]], low: float, high: float,
    material: int,
) -> None:
    """Add an upright prism over a convex outline (x, y), counter-clockwise from above."""
    corners = np.asarray(outline, np.float64)
    count = len(corners)
    for index in range(count):
        a, b = corners[index], corners[(index + 1) % count]
        edge = b - a
        rectangle(
            builder, (*a, high), (*edge, 0.0), (0.0, 0.0, low - high), material
        )
    middle = corners.mean(axis=0)
    closed = np.concatenate((corners, corners[:1]))
    for level, order in ((high, closed[::-1]), (low, closed)):
        rim = np.concatenate((order, np.full((count + 1, 1), level)), axis=1)
        hub = np.broadcast_to((*middle, level), rim.shape)
        points = np.stack((rim, hub))
        builder.grid(points, material, points[..., :2])
