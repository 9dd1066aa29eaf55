# SPDX-License-Identifier: Apache-2.0
"""What a fused scene gives out: labelled points, labelled triangles, and how full it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class MapState:
    """How far a map has come; `refused_blocks` counts those for which there was no room."""

    frames: int
    blocks: int
    max_blocks: int
    refused_blocks: int
    memory_mb: float  # held by the voxels now


@dataclass(frozen=True, eq=False)
class LabelledCloud:
    """Points on surfaces, world frame, metres; normals point to where they were seen from."""

    points: npt.NDArray[np.float32]  # (n, 3)
    colours: npt.NDArray[np.uint8]  # (n, 3) RGB
    normals: npt.NDArray[np.float32]  # (n, 3) unit
    labels: npt.NDArray[np.uint8]  # (n,), 255 = unlabelled
    confidence: npt.NDArray[np.float32]  # (n,) the label's share of the votes kept there

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, eq=False)
class LabelledMesh:
    """Triangles (m, 3), int32 indices into the points of `vertices`."""

    vertices: LabelledCloud
    triangles: npt.NDArray[np.int32]


def empty_cloud() -> LabelledCloud:
    """Return a cloud without points."""
    nothing = np.zeros((0, 3), np.float32)
    return LabelledCloud(
        nothing, nothing.astype(np.uint8), nothing, np.zeros(0, np.uint8), np.zeros(0, np.float32)
    )
