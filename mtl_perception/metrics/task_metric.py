# SPDX-License-Identifier: Apache-2.0
"""The metric of a task under a protocol, and the score by which a task kind is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtl_perception.metrics.boundary import BoundaryMetric, MAX_DISTANCE
from mtl_perception.metrics.depth import DepthMetric
from mtl_perception.metrics.edge_classes import EdgeClassesMetric
from mtl_perception.metrics.edges import EdgesMetric
from mtl_perception.metrics.errors import MetricError
from mtl_perception.metrics.normals import NormalsMetric
from mtl_perception.metrics.parts import PartsMetric
from mtl_perception.metrics.saliency import SaliencyMetric
from mtl_perception.metrics.semantic import SemanticMetric
from mtl_perception.tasks import Task
from torchmetrics import Metric

# kind -> (key in compute(), whether higher is better)
HEADLINES = {
    'semantic': ('miou', True),
    'parts': ('miou', True),
    'depth': ('abs_rel', False),
    'normals': ('mean_deg', False),
    'edges': ('f_best_tolerance', True),
    'saliency': ('max_f_pooled', True),
}


@dataclass(frozen=True)
class Protocol:
    """
    How a paper scores: what is counted, and which number of a task it prints.

    Maps are compared at the network's size, as DenseMTL, ATRC and DeMT do; MTI-Net's code
    enlarges them to the image first, which is the same where the two sizes are.
    """

    headlines: Mapping[str, tuple[str, bool]]  # by kind: (key in compute(), higher is better)
    source: str
    # Tolerance of boundaries over the image diagonal; None = no one-to-one matching.
    boundary_distance: float | None = None
    edge_classes: bool = False  # edges as pixels of two classes (DenseMTL)
    depth_ceiling_m: float | None = None
    depth_per_image: bool = True

    def metric_for(self, task: Task) -> Metric:
        """
        Return a fresh metric for finished maps of `task`.

        Raises
        ------
        MetricError
            If the kind has no metric.

        """
        if task.kind == 'semantic':
            return SemanticMetric(task.channels)
        if task.kind == 'parts':
            return PartsMetric(task.channels)
        if task.kind == 'depth':
            return DepthMetric(ceiling_m=self.depth_ceiling_m, per_image=self.depth_per_image)
        if task.kind == 'normals':
            return NormalsMetric()
        if task.kind == 'edges':
            if self.edge_classes:
                return EdgeClassesMetric()
            if self.boundary_distance is None:
                return EdgesMetric()
            return BoundaryMetric(self.boundary_distance)
        if task.kind == 'saliency':
            return SaliencyMetric()
        msg = f'task {task.name!r} is of kind {task.kind!r}, which has no metric'
        raise MetricError(msg)


def _with(**changes: tuple[str, bool]) -> Mapping[str, tuple[str, bool]]:
    return {**HEADLINES, **changes}


_ODS, _RMSE = ('ods_f', True), ('rmse_m', False)
_IOU_SALIENCY = ('max_mean_image_iou', True)
PROTOCOLS: Mapping[str, Protocol] = {
    'training': Protocol(
        HEADLINES, "this package's own: what `train` prints", depth_per_image=False
    ),
    'nyud_mti': Protocol(
        _with(depth=_RMSE, edges=_ODS, saliency=_IOU_SALIENCY),
        'NYUD-v2 as MTI-Net: RMSE over all pixels, odsF within 0.011 of the diagonal',
        boundary_distance=MAX_DISTANCE['nyud'],
    ),
    'nyud_astmt': Protocol(
        _with(depth=('image_rmse_m', False), edges=_ODS, saliency=_IOU_SALIENCY),
        'NYUD-v2 as ASTMT: the mean over images of their RMSE, odsF within 0.011',
        boundary_distance=MAX_DISTANCE['nyud'],
    ),
    'nyud_demt': Protocol(
        _with(depth=_RMSE, edges=_ODS),
        'NYUD-v2 as ATRC, InvPT and DeMT: RMSE over all pixels, odsF within 0.011',
        boundary_distance=MAX_DISTANCE['nyud'],
    ),
    'pascal_mti': Protocol(
        _with(depth=_RMSE, edges=_ODS, saliency=_IOU_SALIENCY),
        'PASCAL-Context as ASTMT and MTI-Net: saliency by the mean IoU of images, odsF within '
        '0.0075',
        boundary_distance=MAX_DISTANCE['pascal'],
    ),
    'pascal_demt': Protocol(
        _with(depth=_RMSE, edges=_ODS),
        'PASCAL-Context as ATRC, InvPT and DeMT: saliency by F over all pixels, odsF within '
        '0.0075',
        boundary_distance=MAX_DISTANCE['pascal'],
    ),
    'densemtl': Protocol(
        _with(depth=('root_image_mse_m', False), edges=('mean_class_f1', True)),
        'DenseMTL, supervised: depth below 80 m, the root of the mean squared error by image, '
        'edges by the F1 of their two classes',
        edge_classes=True, depth_ceiling_m=80.0,
    ),
    'densemtl_adaptation': Protocol(
        _with(depth=('scaled_root_image_mse_m', False), edges=('mean_class_f1', True)),
        'DenseMTL, domain adaptation: as densemtl, after median scaling of each image',
        edge_classes=True, depth_ceiling_m=80.0,
    ),
}  # fmt: skip
DEFAULT_PROTOCOL = 'training'


def find_protocol(name: str) -> Protocol:
    """
    Return the protocol of that name.

    Raises
    ------
    MetricError
        If there is none.

    """
    if name not in PROTOCOLS:
        msg = f'protocol {name!r} is unknown; there are {", ".join(PROTOCOLS)}'
        raise MetricError(msg)
    return PROTOCOLS[name]


def metric_for(task: Task) -> Metric:
    """Return a fresh metric of the default protocol; see `Protocol.metric_for`."""
    return PROTOCOLS[DEFAULT_PROTOCOL].metric_for(task)
