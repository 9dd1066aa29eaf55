# SPDX-License-Identifier: Apache-2.0
"""Score an engine on the frames of a dataset, with the metrics and the fitting of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mtl_perception.inference.engine import Engine
from mtl_perception.manifest import Manifest
from mtl_perception.metrics.semantic import SemanticMetric
from mtl_perception.metrics.task_metric import DEFAULT_PROTOCOL, find_protocol
from mtl_perception.pictures import Picture
from mtl_perception.tasks import Task
from mtl_perception.training.data import Batch, collate, ValidationFrames
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.picture_grid import comparison_grid
from mtl_perception.training.reading import Frames
from mtl_perception.training.recipe import NetworkRecipe
from mtl_perception.training.scoring import (
    arranged_maps,
    flat_scores,
    make_metrics,
    rounded,
    update_metrics,
)
import numpy as np
import torch
from torch import Tensor

_BATCH = 8
_PICTURE_ROWS = 6


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on one split of a dataset."""

    model: str
    engine: str
    protocol: str
    frames: int
    tasks: tuple[Task, ...]  # those that were compared
    scores: Mapping[str, float]  # 'task.metric'; NaN where nothing was annotated
    class_iou: Mapping[str, Mapping[str, float]]  # by labelled task and class
    notes: tuple[str, ...] = ()

    @property
    def headlines(self) -> dict[str, tuple[str, float, bool]]:
        """By task: the metric that the protocol prints, its value, whether higher is better."""
        result = {}
        for task in self.tasks:
            key, higher_is_better = find_protocol(self.protocol).headlines[task.kind]
            result[task.name] = (key, self.scores[f'{task.name}.{key}'], higher_is_better)
        return result

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; a score that does not exist is None."""
        return {
            'model': self.model,
            'engine': self.engine,
            'protocol': self.protocol,
            'protocol_source': find_protocol(self.protocol).source,
            'frames': self.frames,
            'headlines': {name: value[0] for name, value in self.headlines.items()},
            'scores': rounded(self.scores),
            'class_iou': {name: rounded(each) for name, each in self.class_iou.items()},
            'notes': list(self.notes),
        }


def comparable_tasks(
    manifest: Manifest, given: Iterable[Task]
) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """
    Return the tasks of a model that a dataset can judge, and notes on the others.

    A task is compared with the target of its name, of the same kind and with the same classes.

    Raises
    ------
    TrainingError
        If there is none.

    """
    known = {task.name: task for task in given}
    chosen, notes = [], []
    for task in manifest.tasks:
        have = known.get(task.name)
        if have is None:
            notes.append(f'{task.name}: not in the data')
        elif have.kind != task.kind:
            notes.append(f'{task.name}: the model gives {task.kind}, the data hold {have.kind}')
        elif task.label_set and have.label_set and task.label_set.names != have.label_set.names:
            notes.append(
                f'{task.name}: the model knows the {len(task.label_set)} classes of '
                f'{task.label_set.name}, the data hold {len(have.label_set)} of '
                f'{have.label_set.name}'
            )
        else:
            chosen.append(task)
            if task.edge_meaning != have.edge_meaning:
                notes.append(
                    f'{task.name}: the model means {task.edge_meaning}, the data '
                    f'{have.edge_meaning}; they are compared all the same'
                )
    if not chosen:
        msg = (
            f'no task of the model {manifest.name} can be compared: {"; ".join(notes)}; give data '
            'with targets of the same name, kind and classes'
        )
        raise TrainingError(msg)
    return tuple(chosen), tuple(notes)


def engine_maps(engine: Engine, batch: Batch) -> dict[str, Tensor]:
    """Return the maps of a batch as the metrics take them (see `finished_maps`)."""
    outputs = engine.run(batch.image.numpy(), batch.depth_scale.numpy())
    tensors = {name: torch.from_numpy(values) for name, values in outputs.items()}
    return arranged_maps(tensors, engine.manifest)


def _fitted(engine: Engine, frames: Frames, tasks: tuple[Task, ...]) -> ValidationFrames:
    manifest = engine.manifest
    network = NetworkRecipe(
        manifest.system, manifest.backbone, manifest.network_size, manifest.reference_focal_px
    )
    return ValidationFrames(frames, tasks, network)


@torch.inference_mode()
def evaluate(
    engine: Engine,
    frames: Frames,
    given: Iterable[Task],
    protocol: str = DEFAULT_PROTOCOL,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """
    Score an engine on all frames, fitted to the network as the live node and `train` do.

    Depth and normals are metric: a frame's own focal length goes into the graph. A frame
    without intrinsics is taken as seen by the network's reference focal length.

    :param given: the tasks of the frames
    :param progress: called with the number of frames done

    Raises
    ------
    TrainingError
        If no task can be compared, there is no frame, or a frame is distorted.
    MetricError
        If the protocol is unknown.

    """
    tasks, notes = comparable_tasks(engine.manifest, given)
    fitted = _fitted(engine, frames, tasks)
    if not len(fitted):
        msg = 'there are no frames to score'
        raise TrainingError(msg)
    metrics = make_metrics(tasks, protocol)
    for start in range(0, len(fitted), _BATCH):
        end = min(start + _BATCH, len(fitted))
        batch = collate([fitted[index] for index in range(start, end)])
        update_metrics(metrics, engine_maps(engine, batch), batch.targets)
        progress(end)
    class_iou = {
        task.name: dict(zip(task.label_set.names, metrics[task.name].class_iou().tolist()))
        for task in tasks
        if task.label_set and isinstance(metrics[task.name], SemanticMetric)
    }
    return Evaluation(
        engine.manifest.name, engine.name, protocol, len(fitted), tasks, flat_scores(metrics),
        class_iou, notes,
    )  # fmt: skip


def evaluation_grid(
    engine: Engine, frames: Frames, tasks: tuple[Task, ...], rows: int = _PICTURE_ROWS
) -> Picture:
    """Return truth beside prediction for frames spread evenly over all."""
    fitted = _fitted(engine, frames, tasks)
    places = np.unique(np.linspace(0, len(fitted) - 1, min(rows, len(fitted))).astype(int))
    batch = collate([fitted[int(place)] for place in places])
    return comparison_grid(engine_maps(engine, batch), engine.manifest, batch)
