# SPDX-License-Identifier: Apache-2.0
"""Rays against triangles with Embree, on one thread: the same rays give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hits:
    """Where rays met: barycentric u and v, distance in ray lengths; triangle -1 = nothing."""

    triangles: npt.NDArray[np.int32]  # (n,)
    u: Floats  # (n,)
    v: Floats  # (n,)
    distance: Floats  # (n,)


class Tracer:
    """A set of triangles (n, 3, 3) ready for rays."""

    def __init__(self, vertices: Floats) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._scene: Any = EmbreeScene()
        self._mesh: Any = TriangleMesh(self._scene, np.ascontiguousarray(vertices, np.float32))

    def trace(self, origins: Floats, directions: Floats) -> Hits:
        """Return the first triangle met by each ray (n, 3); the other side of it counts too."""
        found = self._scene.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(directions, np.float32),
            output=True,
        )
        # Embree's distance of a miss overflows in later products.
        distance = np.where(found['primID'] < 0, np.float32(0), found['tfar'])
        return Hits(found['primID'], found['u'], found['v'], distance)

    def is_blocked(
        self, origins: Floats, directions: Floats, reach: float
    ) -> npt.NDArray[np.bool_]:
        """Return whether anything lies on each ray (n, 3) within `reach` ray lengths."""
        if len(origins) == 0:
            return np.zeros(0, np.bool_)
        found = self._scene.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(directions, np.float32),
            np.full(len(origins), reach, np.float32),
            query='OCCLUDED',
        )
        return np.asarray(found >= 0, np.bool_)
