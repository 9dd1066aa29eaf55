# SPDX-License-Identifier: Apache-2.0
"""Scores of finished maps, and of the trivial predictors that any network must beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import math
from typing import Any

from mtl_perception.graph import PerceptionGraph
from mtl_perception.manifest import Manifest
from mtl_perception.metrics.task_metric import DEFAULT_PROTOCOL, find_protocol
from mtl_perception.tasks import LABELLED_KINDS, PROBABILITY_KINDS, Task
from mtl_perception.training.data import Batch
from mtl_perception.values import UNLABELLED
import torch
from torch import nn, Tensor

Predictor = Callable[[Batch], Mapping[str, Tensor]]


def finished_maps(graph: PerceptionGraph, manifest: Manifest, batch: Batch) -> dict[str, Tensor]:
    """
    Run the graph of the bundle and arrange its maps as the metrics take them.

    :returns: by task name, at network size: labels (B, H, W); depth (B, H, W) metres; normals
        (B, 3, H, W); probability of edges and saliency (B, H, W)
    """
    outputs = graph(batch.image, batch.depth_scale)
    return arranged_maps(dict(zip(graph.output_names, outputs)), manifest)


def arranged_maps(outputs: Mapping[str, Tensor], manifest: Manifest) -> dict[str, Tensor]:
    """Return what an engine or the graph gave, by output name, as `finished_maps` does."""
    maps = {}
    for task in manifest.tasks:
        values = outputs[task.name]
        if task.kind in LABELLED_KINDS and manifest.label_step > 1:
            step = manifest.label_step
            values = values.repeat_interleave(step, 1).repeat_interleave(step, 2)
        elif task.kind == 'normals':
            values = values.movedim(-1, 1)
        elif task.kind in PROBABILITY_KINDS:
            values = values.float() / 255
        maps[task.name] = values
    return maps


def update_metrics(
    metrics: nn.ModuleDict, maps: Mapping[str, Tensor], targets: Mapping[str, Tensor]
) -> None:
    """Count a batch; a task without targets counts nothing."""
    for name, metric in metrics.items():
        if name in targets:
            metric.update(maps[name], targets[name])


def flat_scores(metrics: nn.ModuleDict) -> dict[str, float]:
    """Return every score as 'task.metric', NaN where nothing was annotated."""
    return {
        f'{name}.{key}': value
        for name, metric in metrics.items()
        for key, value in metric.compute().items()
    }


def make_metrics(tasks: Iterable[Task], protocol: str = DEFAULT_PROTOCOL) -> nn.ModuleDict:
    """Return a fresh metric by task name, as a protocol has it."""
    found = find_protocol(protocol)
    return nn.ModuleDict({task.name: found.metric_for(task) for task in tasks})


@torch.inference_mode()
def score(
    predict: Predictor,
    batches: Iterable[Batch],
    tasks: Iterable[Task],
    protocol: str = DEFAULT_PROTOCOL,
    *,
    device: torch.device | str = 'cpu',
) -> dict[str, float]:
    """Return the scores of a predictor over all batches, which it gets on `device`."""
    metrics = make_metrics(tasks, protocol).to(device)
    for each in batches:
        batch = each.to(device)
        update_metrics(metrics, predict(batch), batch.targets)
    return flat_scores(metrics)


class TrainingMean:
    """
    What frames look like on average, pixel by pixel, row by row and over all pixels.

    Per pixel: the most frequent class, the mean depth, the mean normal, the share of edges
    or salience.
    A score near these says that the network does not use the image.
    """

    def __init__(self, tasks: tuple[Task, ...], size: tuple[int, int]) -> None:
        self._tasks = tasks
        # Votes per class, or sums and their count, as (channels, H, W).
        self._sums = {
            task.name: torch.zeros((task.channels, *size), dtype=torch.float64) for task in tasks
        }
        self._counts = {task.name: torch.zeros(size, dtype=torch.float64) for task in tasks}

    def update(self, batch: Batch) -> None:
        """Add the targets of a batch, in metric units."""
        for task in self._tasks:
            if task.name not in batch.targets:
                continue
            target = batch.targets[task.name]
            sums, counts = self._sums[task.name], self._counts[task.name]
            if task.kind in LABELLED_KINDS:
                for label in range(task.channels):
                    sums[label] += (target == label).sum(0)
                continue
            if task.kind == 'normals':
                valid = torch.isfinite(target).all(1)
                values = torch.nan_to_num(target)
            else:
                valid = torch.isfinite(target) if task.kind == 'depth' else target != UNLABELLED
                values = torch.nan_to_num(target.float())[:, None]
            sums += (values * valid[:, None]).double().sum(0)
            counts += valid.sum(0)

    def predictor(self, per: str) -> Predictor:
        """Return the predictor that answers with means: each `pixel`, `row` or `frame` its own."""
        axes = {'pixel': (), 'row': (2,), 'frame': (1, 2)}[per]
        maps: dict[str, Tensor] = {}
        for task in self._tasks:
            sums, counts = self._sums[task.name], self._counts[task.name]
            if axes:
                sums = sums.sum(axes, keepdim=True).expand_as(sums)
                counts = counts[None].sum(axes, keepdim=True)[0].expand_as(counts)
            if task.kind in LABELLED_KINDS:
                maps[task.name] = sums.argmax(0)
            elif task.kind == 'normals':
                maps[task.name] = sums
            else:
                maps[task.name] = sums[0] / counts.clamp(min=1)

        def predict(batch: Batch) -> Mapping[str, Tensor]:
            size, device = len(batch.names), batch.image.device
            return {
                name: each.to(device).expand(size, *each.shape) for name, each in maps.items()
            }

        return predict


def rounded(scores: Mapping[str, float], digits: int = 5) -> dict[str, float | None]:
    """Return scores fit for JSON: rounded, None where there is none."""
    return {
        name: round(value, digits) if math.isfinite(value) else None
        for name, value in scores.items()
    }


def describe(
    scores: Mapping[str, Any], tasks: Iterable[Task], protocol: str = DEFAULT_PROTOCOL
) -> str:
    """Return the headline score of each task in one line."""
    headlines = find_protocol(protocol).headlines
    parts = []
    for task in tasks:
        key = headlines[task.kind][0]
        value = scores.get(f'{task.name}.{key}')
        if value is not None:
            parts.append(f'{task.name} {key} {value:.4g}')
    return ', '.join(parts)
