# SPDX-License-Identifier: Apache-2.0
"""Pictures of a labelled mesh by ray casting: from above, and in perspective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mtl_perception.geometry.errors import GeometryError
from mtl_perception.geometry.open3d_import import import_open3d
from mtl_perception.geometry.scene import LabelledMesh
import numpy as np
import numpy.typing as npt

_PAPER = 244
_AMBIENT = 0.55  # light on a surface seen edge-on; the rest comes with the angle
_MARGIN = 1.04  # of the map's extent that a picture from above shows
_SHOWN_SHARE = 0.5  # per cent of the points cut off at each side: strays would shrink the picture


@dataclass(frozen=True)
class View:
    """Rays of a picture: where each pixel's starts and where it goes."""

    origins: npt.NDArray[np.float32]  # (h, w, 3) or (3,)
    directions: npt.NDArray[np.float32]  # (h, w, 3)


def up_direction(
    normals: npt.NDArray[np.floating], poses: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """
    Estimate which way is up, a unit vector (3,) in the world frame.

    Begins with the mean upward axis of the cameras at `poses` (n, 4, 4) and turns it to the
    mean of the map's `normals` (m, 3) within 40, 25 and then 12 degrees of it: floors and table
    tops. Odometry of hand-held cameras need not have z up.
    """
    up = -np.asarray(poses, np.float64)[:, :3, 1].mean(axis=0)
    if np.linalg.norm(up) < 1e-6:
        up = np.array([0.0, 0.0, 1.0])
    up /= np.linalg.norm(up)
    for angle_deg in (40.0, 25.0, 12.0):
        near = normals @ up > np.cos(np.deg2rad(angle_deg))
        if np.count_nonzero(near) < 100:
            break
        mean = normals[near].mean(axis=0, dtype=np.float64)
        up = mean / np.linalg.norm(mean)
    return np.asarray(up, np.float64)


def view_from_above(
    mesh: LabelledMesh,
    up: npt.NDArray[np.floating],
    forward: npt.NDArray[np.floating],
    ceiling: float,
    *,
    width: int = 800,
) -> View:
    """
    Look straight down on all of a map from `ceiling`, a height along `up`, in parallel rays.

    What lies higher is cut off. `forward` (3,) is upward in the picture. Metres per pixel are
    the same in both directions; the picture is `width` pixels wide and at most as high.
    """
    axis_y = forward - (forward @ up) * up
    if np.linalg.norm(axis_y) < 1e-6:
        axis_y = np.cross(up, (1.0, 0.0, 0.0) if abs(up[0]) < 0.9 else (0.0, 1.0, 0.0))
    axis_y = axis_y / np.linalg.norm(axis_y)
    axis_x = np.cross(axis_y, up)
    points = mesh.vertices.points
    shown = points[points @ up < ceiling]
    if not len(shown):
        raise GeometryError('a map without points below the cut has no picture from above')
    ends = (_SHOWN_SHARE, 100 - _SHOWN_SHARE)
    low_x, high_x = np.percentile(shown @ axis_x, ends)
    low_y, high_y = np.percentile(shown @ axis_y, ends)
    pixel = max(high_x - low_x, high_y - low_y, 0.1) * _MARGIN / width
    height = max(1, min(width, round((high_y - low_y) * _MARGIN / pixel)))
    columns = (low_x + high_x) / 2 + (np.arange(width) - (width - 1) / 2) * pixel
    rows = (low_y + high_y) / 2 - (np.arange(height) - (height - 1) / 2) * pixel
    origins = (
        columns[None, :, None] * axis_x + rows[:, None, None] * axis_y + ceiling * np.asarray(up)
    )
    directions = np.broadcast_to(-np.asarray(up), origins.shape)
    return View(origins.astype(np.float32), directions.astype(np.float32))


def view_towards(
    eye: npt.NDArray[np.floating],
    target: npt.NDArray[np.floating],
    up: npt.NDArray[np.floating],
    *,
    width: int = 800,
    height: int = 500,
    field_of_view_deg: float = 60.0,
) -> View:
    """Look from `eye` at `target`, both (3,), in perspective; the angle is the horizontal one."""
    forward = np.asarray(target, np.float64) - eye
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-9:
        raise GeometryError(f'eye {eye} and target {target} of a view lie on one vertical line')
    forward /= np.linalg.norm(forward)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    focal = width / 2 / np.tan(np.deg2rad(field_of_view_deg) / 2)
    u = (np.arange(width) - (width - 1) / 2) / focal
    v = (np.arange(height) - (height - 1) / 2) / focal
    directions = forward + u[None, :, None] * right + v[:, None, None] * down
    return View(np.asarray(eye, np.float32), directions.astype(np.float32))


class MeshRenderer:
    """
    Casts rays at a labelled mesh.

    Raises
    ------
    GeometryError
        If Open3D cannot be imported.

    """

    def __init__(self, mesh: LabelledMesh) -> None:
        self._open3d = import_open3d()
        self._mesh = mesh
        self._scene: Any = None
        if len(mesh.triangles):
            tensor = self._open3d.core.Tensor
            self._scene = self._open3d.t.geometry.RaycastingScene()
            self._scene.add_triangles(
                tensor(np.ascontiguousarray(mesh.vertices.points, np.float32)),
                tensor(np.ascontiguousarray(mesh.triangles).astype(np.uint32)),
            )

    def picture(
        self, view: View, palette: npt.NDArray[np.uint8] | None = None
    ) -> npt.NDArray[np.uint8]:
        """
        Return the picture (h, w, 3) RGB of a view, lit from the eye; light grey = nothing.

        With `palette` (256, 3) a pixel has the flat colour of the nearest vertex's label,
        without it the camera's colours, interpolated.
        """
        shape = view.directions.shape
        picture = np.full(shape, _PAPER, np.uint8)
        if self._scene is None:
            return picture
        rays = np.concatenate((np.broadcast_to(view.origins, shape), view.directions), axis=-1)
        hits = self._scene.cast_rays(self._open3d.core.Tensor(np.ascontiguousarray(rays)))
        hit = np.isfinite(hits['t_hit'].numpy())
        corners = self._mesh.triangles[hits['primitive_ids'].numpy()[hit].astype(np.int64)]
        uv = hits['primitive_uvs'].numpy()[hit]
        weights = np.concatenate((1 - uv.sum(axis=1, keepdims=True), uv), axis=1)
        vertices = self._mesh.vertices
        if palette is None:
            colours = np.einsum('nk,nkc->nc', weights, vertices.colours[corners].astype(float))
        else:
            nearest = corners[np.arange(len(corners)), weights.argmax(axis=1)]
            colours = palette[vertices.labels[nearest]].astype(float)
        normals = np.einsum('nk,nkc->nc', weights, vertices.normals[corners])
        directions = view.directions[hit]
        cosine = np.abs(np.einsum('nc,nc->n', normals, directions)) / np.maximum(
            np.linalg.norm(directions, axis=1) * np.linalg.norm(normals, axis=1), 1e-9
        )
        light = _AMBIENT + (1 - _AMBIENT) * cosine
        picture[hit] = np.clip(np.rint(colours * light[:, None]), 0, 255).astype(np.uint8)
        return picture
