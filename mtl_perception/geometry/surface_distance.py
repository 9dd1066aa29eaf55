# SPDX-License-Identifier: Apache-2.0
"""How far points lie from a surface."""

from __future__ import annotations

from mtl_perception.geometry.errors import GeometryError
from mtl_perception.geometry.open3d_import import import_open3d
from mtl_perception.geometry.scene import LabelledMesh
import numpy as np
import numpy.typing as npt

_PERCENTILES = {'median': 50, 'p90': 90, 'p95': 95, 'p99': 99}


def distances_to(points: npt.NDArray[np.floating], mesh: LabelledMesh) -> npt.NDArray[np.float64]:
    """
    Return the distance (n,) of each of `points` (n, 3) to the closest point of a mesh.

    Raises
    ------
    GeometryError
        If the mesh has no triangles, or Open3D cannot be imported.

    """
    if not len(mesh.triangles):
        raise GeometryError('the distance to a mesh without triangles is not defined')
    open3d = import_open3d()
    tensor = open3d.core.Tensor
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        tensor(np.ascontiguousarray(mesh.vertices.points, np.float32)),
        tensor(np.ascontiguousarray(mesh.triangles).astype(np.uint32)),
    )
    distance = scene.compute_distance(tensor(np.ascontiguousarray(points, np.float32)))
    return np.asarray(distance.numpy(), np.float64)


def surface_distance(
    points: npt.NDArray[np.floating], mesh: LabelledMesh
) -> dict[str, float]:
    """Return mean, median, p90, p95 and p99 of `distances_to`, metres; not symmetric."""
    distance = distances_to(points, mesh)
    return {
        'mean': float(distance.mean()),
        **{name: float(np.percentile(distance, rank)) for name, rank in _PERCENTILES.items()},
    }
