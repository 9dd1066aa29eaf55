# SPDX-License-Identifier: Apache-2.0
"""Whether the maps of one frame agree with each other; needs no ground truth."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_perception.datasets.depth_edges import depth_jump_edges
from mtl_perception.evaluation.checks import (
    angles_deg,
    Array,
    by_kind,
    coarse,
    coarse_stride,
    FrameMeans,
    Scene,
)
from mtl_perception.evaluation.depth_checks import edge_counts, precision_recall
from mtl_perception.tasks import Task
import numpy as np

_EDGE = 128  # a predicted edge: probability from one half on


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
    or for contours both, within 2 pixels. `edges_vs_labels_...` and `edges_vs_depth_...` are the
    same against each of the two, whatever the edges mean. Means over the frames.
    """

    name = 'consistency'
    columns: tuple[str, ...] = (
        'normals_vs_depth_deg',
        *(
            f'{edges}_{value}'
            for edges in ('edges', 'edges_vs_labels', 'edges_vs_depth')
            for value in ('precision', 'recall', 'f')
        ),
    )

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
        by_depth = scene.predicted_depth_normals
        if 'normals' in maps and by_depth is not None and camera is not None:
            angle = angles_deg(coarse(maps['normals'], coarse_stride(camera.width)), by_depth)
            finite = angle[np.isfinite(angle)]
            if finite.size:
                values['normals_vs_depth_deg'] = float(np.median(finite))
        if 'edges' in maps:
            predicted = maps['edges'] >= _EDGE
            everywhere = np.ones(predicted.shape, bool)
            for name, other in self._spoken_of(scene).items():
                found = precision_recall(edge_counts(predicted, other, everywhere))
                values.update((f'{name}_{value}', number) for value, number in found.items())
        return self._means.add(values)

    def totals(self) -> dict[str, float]:
        """Return the means over the frames."""
        return self._means.means()

    def _spoken_of(self, scene: Scene) -> dict[str, Array]:
        """Return the edges, (H, W) bool, that the other maps speak of, by what to call them."""
        maps = scene.predicted
        found = {}
        if 'semantic' in maps:
            found['edges_vs_labels'] = label_borders(maps['semantic'])
        if 'depth' in maps:
            found['edges_vs_depth'] = depth_jump_edges(maps['depth']) == 1
        others = {'depth_jumps': 'edges_vs_labels', 'label_borders': 'edges_vs_depth'}
        other = others.get(str(self._meaning))
        meant = [edges for name, edges in found.items() if name != other]
        return {**found, 'edges': np.logical_or.reduce(meant)} if meant else found
