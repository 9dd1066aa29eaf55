# SPDX-License-Identifier: Apache-2.0
"""
The fused scene: distance, colour, normals and label votes of many frames in sparse voxels.

Distance is a truncated signed distance field (Curless and Levoy, SIGGRAPH 1996) in Open3D's
VoxelBlockGrid: blocks of 8 x 8 x 8 voxels where surfaces were seen. A voxel takes 44 bytes,
whatever the number of classes: distance, weight and colour (12), the sum of normals (12) and
the four label slots of `label_votes` (20).
"""

from __future__ import annotations

from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.closing import Closing
from mtl_perception.geometry.errors import GeometryError
from mtl_perception.geometry.label_votes import cast_votes, count_votes, SLOTS
from mtl_perception.geometry.open3d_import import import_open3d
from mtl_perception.geometry.scene import empty_cloud, LabelledCloud, LabelledMesh, MapState
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt

_BLOCK = 8  # voxels along an edge of a block
_BLOCK_BYTES = _BLOCK**3 * 44
_TRUNCATION = 4.0  # voxels on each side of a surface that it says something about
_FREE_PART = 8  # one of so many parts of the room for blocks stays free
_FIRST_BLOCKS = 2000  # room at the start; it doubles


class SemanticMap(Closing):
    """
    Fuses posed frames into one labelled surface; a context manager.

    The world frame is that of the poses. Voxels are `voxel_m` wide and hold at most `memory_mb`
    (growing takes half as much again for a moment). When that is full, what is known is refined
    further and new places are left out, the farthest of a frame first; `state` counts them.
    Depth outside `range_m` is not used.

    Raises
    ------
    GeometryError
        If Open3D cannot be imported, or a value is out of its range.

    """

    def __init__(
        self,
        *,
        voxel_m: float = 0.02,
        memory_mb: float = 512.0,
        range_m: tuple[float, float] = (0.1, 5.0),
    ) -> None:
        if not 0.001 <= voxel_m <= 1.0:
            raise GeometryError(f'map voxel size {voxel_m} m must be between 0.001 and 1')
        if not 0.0 <= range_m[0] < range_m[1] < float('inf'):
            raise GeometryError(f'map range {range_m} m must be 0 <= minimum < maximum, finite')
        self._max_capacity = int(memory_mb * 1e6 // _BLOCK_BYTES)
        # Open3D wants free room for all blocks of a call, known ones too: see _with_room().
        self._max_blocks = self._max_capacity - self._max_capacity // _FREE_PART
        if self._max_capacity < _FREE_PART:
            raise GeometryError(f'map memory {memory_mb} MB is too small; give it 1 or more')
        self._open3d = import_open3d()
        self._voxel_m = voxel_m
        self._range_m = range_m
        self._frames = self._refused = 0
        core = self._open3d.core
        self._grid: Any = self._open3d.t.geometry.VoxelBlockGrid(
            ('tsdf', 'weight', 'color', 'normal', 'slot_label', 'slot_weight'),
            (core.float32, core.uint16, core.uint16, core.float32, core.uint8, core.float32),
            ((1,), (1,), (3,), (3,), (SLOTS,), (SLOTS,)),
            voxel_m, _BLOCK, min(_FIRST_BLOCKS, self._max_capacity),
        )  # fmt: skip

    def close(self) -> None:
        """Give the memory back; the map cannot be used afterwards."""
        self._grid = None

    @property
    def state(self) -> MapState:
        """What the map holds by now."""
        table = self._hashmap()
        memory_mb = table.capacity() * _BLOCK_BYTES / 1e6
        return MapState(self._frames, table.size(), self._max_blocks, self._refused, memory_mb)

    def integrate(
        self,
        depth: npt.NDArray[np.floating],
        colour: npt.NDArray[np.uint8],
        camera: CameraModel,
        pose: npt.NDArray[np.floating],
        *,
        labels: npt.NDArray[np.uint8] | None = None,
        confidence: npt.NDArray[np.floating] | None = None,
        normals: npt.NDArray[np.floating] | None = None,
    ) -> MapState:
        """
        Fuse one frame.

        `depth` (H, W) metres along Z, NaN = invalid; `colour` (H, W, 3) RGB; `labels` (H, W),
        255 = unlabelled; `confidence` (H, W) in [0, 1] is how much a label's vote counts (1
        without it); `normals` (H, W, 3) in the optical frame, NaN = invalid. `camera` is the
        rectified camera of all of them, `pose` (4, 4) takes the optical frame to the world.

        Raises
        ------
        GeometryError
            If the shapes differ, the camera is distorted, the pose is no rigid motion, or the
            map is closed.

        """
        _validate(camera, pose, {
            'depth': (depth, ()), 'colour': (colour, (3,)), 'labels': (labels, ()),
            'confidence': (confidence, ()), 'normals': (normals, (3,)),
        })  # fmt: skip
        self._hashmap()
        usable = (depth >= self._range_m[0]) & (depth <= self._range_m[1])  # NaN is false
        depth = np.where(usable, depth, 0).astype(np.float32)
        if usable.any():
            self._integrate_surface(depth, colour, camera, pose)
            self._integrate_pixels(depth, usable, camera, pose, labels, confidence, normals)
        self._frames += 1
        return self.state

    def point_cloud(self, *, min_observations: int = 2) -> LabelledCloud:
        """Return the vertices of `mesh`."""
        return self.mesh(min_observations=min_observations).vertices

    def mesh(self, *, min_observations: int = 2) -> LabelledMesh:
        """
        Return the surface seen at least `min_observations` times, by marching cubes.

        Colours and positions are averages over the frames; a vertex has the normal and label
        that most of its eight voxels' votes speak for, the distance field's normal where no
        normal was given, and 255 where no label was.
        """
        nothing = LabelledMesh(empty_cloud(), np.zeros((0, 3), np.int32))
        if not self._hashmap().size():
            return nothing
        # Open3D keeps what has been seen more often than the threshold.
        found = self._grid.extract_triangle_mesh(min_observations - 0.5)
        if not len(found.vertex.positions):
            return nothing
        points = found.vertex.positions.numpy()
        colours = np.clip(np.rint(found.vertex.colors.numpy() * 255), 0, 255).astype(np.uint8)
        slot_labels, slot_weights, normals = self._around(points)
        winners = count_votes(slot_labels, slot_weights)
        own = found.vertex.normals.numpy()
        normals = np.where(np.linalg.norm(normals, axis=1, keepdims=True) > 1e-6, normals, own)
        length = np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        vertices = LabelledCloud(
            points, colours, (normals / length).astype(np.float32), winners.labels,
            winners.shares,
        )
        return LabelledMesh(vertices, found.triangle.indices.numpy().astype(np.int32))

    def _hashmap(self) -> Any:
        if self._grid is None:
            raise GeometryError('this map is closed; make a new one')
        return self._grid.hashmap()

    def _integrate_surface(
        self,
        depth: npt.NDArray[np.float32],
        colour: npt.NDArray[np.uint8],
        camera: CameraModel,
        pose: npt.NDArray[np.floating],
    ) -> None:
        """Make room for what the frame sees and fuse distance and colour."""
        tensor, image = self._open3d.core.Tensor, self._open3d.t.geometry.Image
        # Open3D looks a pixel up by truncation, so its pixel centres lie at half integers.
        centred = camera.matrix + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        intrinsics = tensor(centred)
        extrinsics = tensor(np.linalg.inv(np.asarray(pose, np.float64)))
        scale_and_reach = (1.0, float(self._range_m[1]), _TRUNCATION)
        surface = image(np.ascontiguousarray(depth))
        blocks = self._grid.compute_unique_block_coordinates(
            surface, intrinsics, extrinsics, *scale_and_reach
        )
        blocks = self._with_room(blocks, pose)
        # Open3D takes float colour with float depth, in [0, 1].
        picture = image(np.ascontiguousarray(colour.astype(np.float32) / 255))
        for part in blocks:
            self._grid.integrate(part, surface, picture, intrinsics, extrinsics, *scale_and_reach)

    def _with_room(self, blocks: Any, pose: npt.NDArray[np.floating]) -> list[Any]:
        """Return the blocks that are there or can be, the nearest first, in parts that fit."""
        table = self._hashmap()
        keys = blocks.numpy()
        new = np.flatnonzero(~table.find(blocks)[1].numpy())
        room = self._max_blocks - table.size()
        if len(new) > room:
            centres = (keys[new] + 0.5) * (_BLOCK * self._voxel_m)
            order = np.argsort(np.linalg.norm(centres - pose[:3, 3], axis=1), kind='stable')
            self._refused += len(new) - room
            keys = np.delete(keys, new[order[room:]], axis=0)
        size = table.size() + min(len(new), room)
        # Open3D grows by itself, without bound, when its blocks and those of one call, known or
        # not, exceed its capacity together.
        wanted = size + len(keys)
        if wanted > table.capacity() < self._max_capacity:
            table.reserve(min(self._max_capacity, max(2 * table.capacity(), wanted)))
        step = table.capacity() - size
        tensor = self._open3d.core.Tensor
        return [
            tensor(np.ascontiguousarray(keys[start : start + step]))
            for start in range(0, len(keys), step)
        ]

    def _integrate_pixels(
        self,
        depth: npt.NDArray[np.float32],
        usable: npt.NDArray[np.bool_],
        camera: CameraModel,
        pose: npt.NDArray[np.floating],
        labels: npt.NDArray[np.uint8] | None,
        confidence: npt.NDArray[np.floating] | None,
        normals: npt.NDArray[np.floating] | None,
    ) -> None:
        """Add labels and normals to the voxels in which the pixels' points lie."""
        if labels is None and normals is None:
            return
        # Two pixels to the width of a voxel are enough, and four times as fast as all.
        typical_m = float(np.median(depth[usable]))
        every = max(1, int(self._voxel_m * camera.focal_px / (2 * typical_m)))
        chosen = np.zeros_like(usable)
        chosen[::every, ::every] = True
        usable = usable & chosen
        if not usable.any():
            return
        rotation = np.asarray(pose[:3, :3], np.float32)
        points = (camera.rays()[usable] * depth[usable][:, None]) @ rotation.T
        points += pose[:3, 3].astype(np.float32)
        voxels, there = self._rows(np.rint(points / np.float32(self._voxel_m)).astype(np.int32))
        if normals is not None:
            seen = normals[usable] @ rotation.T
            fine = there & np.isfinite(seen).all(axis=1)
            rows, inverse = np.unique(voxels[fine], return_inverse=True)
            sums = self._table('normal')
            for axis in range(3):
                sums[rows, axis] += np.bincount(inverse.ravel(), seen[fine, axis], len(rows))
        if labels is not None:
            weights = np.ones(len(points), np.float32)
            if confidence is not None:
                weights = np.nan_to_num(confidence[usable].astype(np.float32))
            voted = there & (labels[usable] != UNLABELLED) & (weights > 0)
            cast_votes(
                self._table('slot_label'), self._table('slot_weight'), voxels[voted],
                labels[usable][voted], weights[voted],
            )

    def _table(self, name: str) -> npt.NDArray[Any]:
        """Return an attribute as a view (voxels, channels) on the grid's memory."""
        values = self._grid.attribute(name).numpy()
        return np.asarray(values.reshape(-1, values.shape[-1]))

    def _rows(
        self, voxels: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Return where the voxels (n, 3) lie in `_table`, and whether they exist."""
        blocks, inside = voxels // _BLOCK, voxels % _BLOCK
        low = blocks.min(axis=0)
        span = blocks.max(axis=0).astype(np.int64) - low + 1
        flat = ((blocks[:, 0] - low[0]) * span[1] + blocks[:, 1] - low[1]) * span[2] + (
            blocks[:, 2] - low[2]
        )
        _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
        keys = self._open3d.core.Tensor(np.ascontiguousarray(blocks[first]))
        numbers, found = self._hashmap().find(keys)
        inverse = inverse.ravel()
        number = numbers.numpy().astype(np.int64)[inverse]
        # Within a block x runs fastest, then y, then z.
        place = (inside[:, 2] * _BLOCK + inside[:, 1]) * _BLOCK + inside[:, 0]
        return number * _BLOCK**3 + place, found.numpy()[inverse]

    def _around(
        self, points: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the label slots (n, 8 SLOTS) and summed normals of the 8 voxels about points."""
        base = np.floor(points / np.float32(self._voxel_m)).astype(np.int32)
        labels, weights = self._table('slot_label'), self._table('slot_weight')
        normals = np.zeros((len(points), 3), np.float32)
        gathered_labels, gathered_weights = [], []
        for corner in np.ndindex(2, 2, 2):
            rows, there = self._rows(base + np.array(corner, np.int32))
            rows[~there] = 0
            gathered_labels.append(labels[rows])
            gathered_weights.append(np.where(there[:, None], weights[rows], np.float32(0)))
            normals += np.where(there[:, None], self._table('normal')[rows], np.float32(0))
        return np.concatenate(gathered_labels, 1), np.concatenate(gathered_weights, 1), normals


def _validate(
    camera: CameraModel,
    pose: npt.NDArray[np.floating],
    maps: dict[str, tuple[npt.NDArray[Any] | None, tuple[int, ...]]],
) -> None:
    if not camera.is_rectified:
        raise GeometryError('a map needs a rectified camera; use rectify() and rectified()')
    for name, (values, channels) in maps.items():
        shape = (camera.height, camera.width, *channels)
        if values is not None and values.shape != shape:
            raise GeometryError(
                f'{name} has shape {values.shape}, but the camera of the map asks for {shape}'
            )
    pose = np.asarray(pose, np.float64)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise GeometryError(f'the pose has shape {pose.shape} or is not finite; give (4, 4)')
    rotation = pose[:3, :3]
    if (
        np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-3
        or np.linalg.det(rotation) < 0
        or np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-9
    ):
        raise GeometryError(f'the pose is no rigid motion:\n{pose}\ngive rotation and translation')
