# SPDX-License-Identifier: Apache-2.0
"""The metric of a task, and the score by which a task kind is judged."""

from __future__ import annotations

from mtl_perception.metrics.depth import DepthMetric
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


def metric_for(task: Task) -> Metric:
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
        return DepthMetric()
    if task.kind == 'normals':
        return NormalsMetric()
    if task.kind == 'edges':
        return EdgesMetric()
    if task.kind == 'saliency':
        return SaliencyMetric()
    msg = f'task {task.name!r} is of kind {task.kind!r}, which has no metric'
    raise MetricError(msg)
