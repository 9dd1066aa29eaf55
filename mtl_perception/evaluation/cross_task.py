# SPDX-License-Identifier: Apache-2.0
"""Whether the maps of one frame agree with each other; needs no ground truth."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.depth_edges import depth_jump_edges
from mtl_perception.evaluation.checks import (
    angles_deg,
    Array,
    by_kind,
    coarse,
    coarse_camera,
    coarse_stride,
    FrameMeans,
    Scene,
)
from mtl_perception.evaluation.depth_checks import edge_counts, precision_recall
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.tasks import Task
import numpy as np

WINDOW_PX = 11  # at 640 columns
_EDGE = 128  # a predicted edge: probability from one half on


def coarse_normals(depth: Array, camera: CameraModel) -> Array:
    """Return the normals of predicted depth at a quarter of the pixels (see `coarse`)."""
    stride = coarse_stride(camera.width)
    window = max(3, 2 * (WINDOW_PX // stride // 2) + 1)
    return normals_from_depth(coarse(depth, stride), coarse_camera(camera, stride), window)


def label_borders(labels: Array) -> Array:
    """Return (H, W) bool: pixels whose right or lower neighbour has another label."""
    borders = np.zeros(labels.shape, bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


class CrossTaskConsistency:
    """
    Compares predicted normals, depth, labels and edges of a frame with each other.

    `normals_vs_depth_deg`: median angle between the predicted normals and those of the predicted
    depth. `edges_precision`, `edges_recall`, `edges_f`: predicted edges (from probability 0.5)
    against what they mean: the borders of the predicted labels, the jumps of the predicted depth,
    or for contours both, within 2 pixels. Means over the frames.
    """

    name = 'consistency'
    columns: tuple[str, ...] = (
        'normals_vs_depth_deg', 'edges_precision', 'edges_recall', 'edges_f',
    )  # fmt: skip

    def __init__(self, tasks: Sequence[Task]) -> None:
        edges = by_kind(tasks).get('edges')
        self._meaning = None if edges is None else edges.edge_meaning
        self._means = FrameMeans(self.columns)
        self.arrays = self._means.arrays
        self.memory: Scene | None = None

    def score(self, scene: Scene) -> dict[str, float]:
        """Compare the maps of one frame."""
        values = {}
        maps, camera = scene.predicted, scene.camera
        if 'normals' in maps and 'depth' in maps and camera is not None:
            by_depth = coarse_normals(maps['depth'], camera)
            angle = angles_deg(coarse(maps['normals'], coarse_stride(camera.width)), by_depth)
            finite = angle[np.isfinite(angle)]
            if finite.size:
                values['normals_vs_depth_deg'] = float(np.median(finite))
        meant = self._meant(scene)
        if meant is not None:
            counts = edge_counts(maps['edges'] >= _EDGE, meant, np.ones(meant.shape, bool))
            found = precision_recall(counts)
            values.update((f'edges_{name}', value) for name, value in found.items())
        return self._means.add(values)

    def totals(self) -> dict[str, float]:
        """Return the means over the frames."""
        return self._means.means()

    def _meant(self, scene: Scene) -> Array | None:
        """Return the edges that the other maps speak of, (H, W) bool."""
        maps = scene.predicted
        if 'edges' not in maps:
            return None
        found = []
        if self._meaning != 'depth_jumps' and 'semantic' in maps:
            found.append(label_borders(maps['semantic']))
        if self._meaning != 'label_borders' and 'depth' in maps:
            found.append(depth_jump_edges(maps['depth']) == 1)
        return np.logical_or.reduce(found) if found else None
