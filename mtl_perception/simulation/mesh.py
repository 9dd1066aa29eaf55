# SPDX-License-Identifier: Apache-2.0
"""
Triangles with everything a renderer needs to know about them, and the builder that lays them.

Every surface is a grid of points: two by two for a rectangle, more for a bent sheet. A grid
has texture coordinates in metres and a rectangle of the light map, so that textures and
baked light need no case per shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
import math

from mtl_perception.simulation.atlas import pack_shelves
import numpy as np
import numpy.typing as npt

LIGHT_MAP_WIDTH = 1024
_GOLDEN = 0.6180339887498949
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """How a surface looks: a tile of the atlas, tinted, `scale` metres wide."""

    tile: int
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # linear, multiplies the tile
    scale: float = 1.0
    gloss: float = 0.0  # reflectance at normal incidence, in [0, 1]
    emission: float = 0.0  # radiance per unit of colour


@dataclass(frozen=True)
class Mesh:
    """Triangle tables (n, ...), material tables (m, ...), and the light map's texels (k, ...)."""

    vertices: Floats  # (n, 3, 3) metres, world
    normals: Floats  # (n, 3) unit
    coordinates: Floats  # (n, 3, 4): origin, du, dv of texture u, v and light map x, y
    materials: npt.NDArray[np.int32]  # (n,)
    objects: npt.NDArray[np.int32]  # (n,)
    object_labels: npt.NDArray[np.uint8]  # by object
    material_table: Floats  # (m, 7): tint, gloss, emission, texture units per metre, tile
    texel_points: Floats  # (k, 3)
    texel_normals: Floats  # (k, 3)
    texel_pixels: npt.NDArray[np.int64]  # (k,) flat index into the light map
    charts: npt.NDArray[np.int64]  # (c, 4): x, y, width, height in the light map
    light_map_shape: tuple[int, int]


    def coordinates_at(
        self, triangles: npt.NDArray[np.intp], u: Floats, v: Floats
    ) -> Floats:
        """Return texture u, v and light map x, y (n, 4) of points u, v on triangles (n,)."""
        rows = self.coordinates.take(triangles, axis=0)
        found = rows[:, 0]
        found += u[:, None] * rows[:, 1]
        found += v[:, None] * rows[:, 2]
        return found


@dataclass(frozen=True)
class _Grid:
    points: npt.NDArray[np.float64]  # (m, n, 3)
    normals: npt.NDArray[np.float64] | None  # (m, n, 3), None = flat
    texture: npt.NDArray[np.float64]  # (m, n, 2)
    material: int
    object: int
    steps: tuple[int, int]  # light map texels per cell along m and n
    skip: npt.NDArray[np.bool_] | None  # (m - 1, n - 1, 2) triangles to leave out


class MeshBuilder:
    """Collects objects made of grids; `finish()` turns them into a `Mesh`."""

    def __init__(self, label_ids: Mapping[str, int], texel: float = 0.1) -> None:
        self._label_ids = label_ids
        self._texel = texel
        self._grids: list[_Grid] = []
        self._object_labels: list[int] = []
        self._materials: dict[Material, int] = {}
        self._placement = np.eye(4)

    def material(self, material: Material) -> int:
        """Return the number of a material; equal ones share it."""
        return self._materials.setdefault(material, len(self._materials))

    def begin(self, label: str) -> int:
        """Start a new object of the named class; the grids that follow belong to it."""
        self._object_labels.append(self._label_ids[label])
        return len(self._object_labels) - 1

    @contextmanager
    def at(
        self, x: float, y: float, z: float = 0.0, yaw: float = 0.0, tilt: float = 0.0
    ) -> Iterator[None]:
        """Place what is added inside: move by x, y, z (m), turn about z, then tilt about x."""
        outer = self._placement
        cosine, sine = math.cos(yaw), math.sin(yaw)
        turn = np.array([[cosine, -sine, 0, x], [sine, cosine, 0, y], [0, 0, 1, z], [0, 0, 0, 1]])
        cosine, sine = math.cos(tilt), math.sin(tilt)
        lean = np.array([[1, 0, 0, 0], [0, cosine, -sine, 0], [0, sine, cosine, 0], [0, 0, 0, 1]])
        self._placement = outer @ turn @ lean
        try:
            yield
        finally:
            self._placement = outer

    def world_point(self, point: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return where a point of the current placement lies in the world."""
        x, y, z = self._placement[:3, :3] @ np.asarray(point) + self._placement[:3, 3]
        return float(x), float(y), float(z)

    def grid(
        self,
        points: npt.ArrayLike,
        material: int,
        texture: npt.ArrayLike,
        normals: npt.NDArray[np.float64] | None = None,
        skip: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """
        Add a surface through points (m, n, 3) of the current placement.

        Seen from its front, columns run to the right and rows down, like a picture's; the
        front receives the baked light. `texture` (m, n, 2) is in metres (in tiles for a
        material of scale 1). `normals` (m, n, 3) make the light, not the shape, smooth.
        """
        local = np.asarray(points, np.float64)
        rotation, offset = self._placement[:3, :3], self._placement[:3, 3]
        world = local @ rotation.T + offset
        # Objects that share a texture show different parts of it.
        shift = len(self._object_labels) * _GOLDEN
        scale = list(self._materials)[material].scale
        moved = np.asarray(texture, np.float64) / scale
        if scale != 1.0:
            moved += np.array([shift % 1.0, (shift * 7.0) % 1.0])
        down = float(np.linalg.norm(np.diff(world, axis=0), axis=-1).max())
        across = float(np.linalg.norm(np.diff(world, axis=1), axis=-1).max())
        steps = (
            max(1, math.ceil(down / self._texel - 0.2)),
            max(1, math.ceil(across / self._texel - 0.2)),
        )
        turned = None if normals is None else normals @ rotation.T
        self._grids.append(
            _Grid(
                world, turned, moved, material, len(self._object_labels) - 1, steps, skip
            )
        )

    def finish(self) -> Mesh:
        """Lay out the light map and return the finished tables."""
        charts = np.array(
            [
                (
                    (grid.points.shape[1] - 1) * grid.steps[1] + 1,
                    (grid.points.shape[0] - 1) * grid.steps[0] + 1,
                )
                for grid in self._grids
            ],
            np.int64,
        )
        corners, height = pack_shelves(charts, LIGHT_MAP_WIDTH)
        parts = [_triangles(grid, corner) for grid, corner in zip(self._grids, corners)]
        texels = [_texels(grid, corner) for grid, corner in zip(self._grids, corners)]
        vertices, normals, coordinates = (
            np.concatenate([part[index] for part in parts]).astype(np.float32)
            for index in range(3)
        )
        counts = [len(part[0]) for part in parts]
        table = np.array(
            [
                (*m.tint, m.gloss, m.emission, 1.0 / m.scale, m.tile)
                for m in self._materials
            ],
            np.float32,
        )
        return Mesh(
            vertices=vertices,
            normals=normals,
            coordinates=coordinates,
            materials=np.repeat([grid.material for grid in self._grids], counts).astype(np.int32),
            objects=np.repeat([grid.object for grid in self._grids], counts).astype(np.int32),
            object_labels=np.array(self._object_labels, np.uint8),
            material_table=table,
            texel_points=np.concatenate([part[0] for part in texels]).astype(np.float32),
            texel_normals=np.concatenate([part[1] for part in texels]).astype(np.float32),
            texel_pixels=np.concatenate([part[2] for part in texels]),
            charts=np.concatenate([corners, charts], axis=1),
            light_map_shape=(max(1, height), LIGHT_MAP_WIDTH),
        )


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _triangles(
    grid: _Grid, corner: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return vertices (t, 3, 3), normals (t, 3) and coordinates (t, 3, 4) of a grid."""
    m, n = grid.points.shape[:2]
    row, column = np.meshgrid(np.arange(m), np.arange(n), indexing='ij')
    light = np.stack(
        (corner[0] + column * grid.steps[1], corner[1] + row * grid.steps[0]), axis=-1
    )
    # All seven numbers of a grid point side by side, so that one slicing serves them all.
    all_ = np.concatenate((grid.points, grid.texture, light), axis=-1)
    a, b, c, d = all_[:-1, :-1], all_[:-1, 1:], all_[1:, 1:], all_[1:, :-1]
    corners = np.stack((np.stack((a, c, b), -2), np.stack((a, d, c), -2)), axis=2)
    corners = corners.reshape(-1, 3, 7)
    points = corners[:, :, :3]
    normals = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    size = np.linalg.norm(normals, axis=-1)
    # Grids that close at a pole have triangles without area there.
    keep = size > 1e-9
    if grid.skip is not None:
        keep &= ~grid.skip.reshape(-1)
    corners, points = corners[keep], points[keep]
    steps = corners[:, :, 3:] - corners[:, :1, 3:]
    coordinates = np.stack((corners[:, 0, 3:], steps[:, 1], steps[:, 2]), axis=1)
    return points, normals[keep] / size[keep, None], coordinates


def _texels(
    grid: _Grid, corner: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return where the light map's texels of a grid lie, their normals and their indices."""
    m, n = grid.points.shape[:2]
    rows = np.linspace(0, m - 1, (m - 1) * grid.steps[0] + 1)
    columns = np.linspace(0, n - 1, (n - 1) * grid.steps[1] + 1)
    normals = grid.normals
    if normals is None:
        du = np.gradient(grid.points, axis=1)
        dv = np.gradient(grid.points, axis=0)
        normals = _unit(np.cross(dv, du))
    fields = np.concatenate((grid.points, normals), axis=-1)
    i = np.minimum(rows.astype(np.int64), m - 2)
    j = np.minimum(columns.astype(np.int64), n - 2)
    p = (rows - i)[:, None, None]
    q = (columns - j)[None, :, None]
    upper = fields[i][:, j] * (1 - q) + fields[i][:, j + 1] * q
    lower = fields[i + 1][:, j] * (1 - q) + fields[i + 1][:, j + 1] * q
    texels = upper * (1 - p) + lower * p
    # A texel on the rim may lie inside the neighbouring surface: look a little further in.
    points = texels[..., :3]
    centre = points.mean(axis=(0, 1), keepdims=True)
    inward = centre - points
    facing = _unit(texels[..., 3:])
    inward -= facing * (inward * facing).sum(axis=-1, keepdims=True)
    length = np.maximum(np.linalg.norm(inward, axis=-1, keepdims=True), 1e-9)
    points = points + inward / length * np.minimum(0.012, 0.15 * length)
    flat = (corner[1] + np.arange(len(rows)))[:, None] * LIGHT_MAP_WIDTH + (
        corner[0] + np.arange(len(columns))
    )
    return points.reshape(-1, 3), facing.reshape(-1, 3), flat.reshape(-1)
