# SPDX-License-Identifier: Apache-2.0
"""Score finished maps against what a recording holds, frame by frame and over all frames."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
import warnings

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.depth_edges import depth_jump_edges
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.metrics.errors import MetricError
from mtl_perception.metrics.semantic import SemanticMetric
from mtl_perception.metrics.task_metric import HEADLINES, metric_for
from mtl_perception.tasks import Task
from mtl_perception.values import PerceptionMaps, UNLABELLED
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

Arrays = Mapping[str, npt.NDArray[Any]]
# What a frame is best or worst by, the most telling first.
_RANKING_KINDS = ('depth', 'semantic', 'normals', 'edges')


def complete_targets(
    targets: Arrays, camera: CameraModel | None, window: int, *, edges_from_depth: bool = False
) -> dict[str, npt.NDArray[Any]]:
    """
    Return targets by kind as the Perceiver's maps see them, with normals from measured depth.

    `camera` is the recorded image's: where it is distorted, the targets are rectified as the
    image was: each pixel takes the raw pixel nearest to where it was, and normals and the axis
    that depth is measured along turn with the camera (R). Where normals are not recorded and the
    camera is known, they are fitted to the depth in windows of `window` pixels (see
    `normals_from_depth`). With `edges_from_depth`, and no edges recorded, the jumps of measured
    depth are the edges.
    """
    complete = dict(targets)
    if camera is None:
        # Without intrinsics there is no metric depth, and normals belong to another camera.
        return {kind: complete[kind] for kind in ('semantic', 'edges') if kind in complete}
    if not camera.is_rectified:
        complete = _rectified(targets, camera)
    if 'depth' in complete and 'normals' not in complete:
        pinhole = camera.rectified()
        complete['normals'] = normals_from_depth(complete['depth'], pinhole, window)
    if edges_from_depth and 'depth' in complete and 'edges' not in complete:
        complete['edges'] = depth_jump_edges(complete['depth'])
    return complete


def _rectified(targets: Arrays, camera: CameraModel) -> dict[str, npt.NDArray[Any]]:
    inside = camera.rectify(np.full((camera.height, camera.width), 255, np.uint8)) == 255
    result = {}
    for kind, target in targets.items():
        rectified = camera.rectify(target, nearest=True)
        if camera.rectification is not None:
            # R takes vectors of the raw camera to the rectified one, and with them its z axis.
            rotation = np.reshape(camera.rectification, (3, 3)).astype(np.float32)
            if kind == 'normals':
                rectified = rectified @ rotation.T
            elif kind == 'depth':
                rectified = rectified / (camera.rectified().rays() @ rotation[:, 2])
        rectified[~inside] = np.nan if kind in ('depth', 'normals') else UNLABELLED
        result[kind] = rectified
    return result


class Scorer:
    """
    Compares the maps of each frame with targets by task kind, with the training's own metrics.

    The first task of a kind is compared with the target of that kind. Scores are by task name,
    then by the metric's names.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks: dict[str, Task] = {}
        for task in tasks:
            self._tasks.setdefault(task.kind, task)
        self._metrics: dict[str, Metric] = {
            task.name: metric_for(task) for task in self._tasks.values()
        }
        self._scored: set[str] = set()

    def score(
        self, maps: PerceptionMaps, targets: Arrays
    ) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
        """
        Return the scores of one frame, and notes on what could not be compared.

        `targets` is by task kind, at the size of the maps; a target without one valid pixel
        gives no score.
        """
        scores: dict[str, dict[str, float]] = {}
        notes = []
        for kind, target in targets.items():
            task = self._tasks.get(kind)
            if task is None or task.name not in maps.maps or not _is_annotated(kind, target):
                continue
            try:
                with _one_thread():
                    # Calling a metric gives this frame's values and counts them in the total.
                    values = self._metrics[task.name](
                        _as_tensor(kind, maps.maps[task.name], is_target=False),
                        _as_tensor(kind, target, is_target=True),
                    )
            except MetricError as error:
                notes.append(f'{task.name}: {error}')
                continue
            scores[task.name] = values
            self._scored.add(task.name)
        return scores, tuple(notes)

    def columns(self, kinds: Collection[str]) -> list[tuple[str, str]]:
        """Return every (task, metric) that targets of these kinds can give."""
        with warnings.catch_warnings():
            # Nothing has been counted yet: only the names are asked for.
            warnings.simplefilter('ignore', UserWarning)
            return [
                (task.name, metric)
                for kind, task in self._tasks.items()
                if kind in kinds
                for metric in metric_for(task).compute()
            ]

    def totals(self) -> dict[str, dict[str, float]]:
        """Return the scores over every pixel of every frame; tasks never scored are absent."""
        return {
            name: metric.compute()
            for name, metric in self._metrics.items()
            if name in self._scored
        }

    def class_iou(self) -> dict[str, dict[str, float]]:
        """Return the intersection over union by semantic task and class name."""
        result = {}
        for task in self._tasks.values():
            metric = self._metrics[task.name]
            if task.name in self._scored and isinstance(metric, SemanticMetric) and task.label_set:
                result[task.name] = dict(zip(task.label_set.names, metric.class_iou().tolist()))
        return result

    def confusion(self) -> dict[str, list[list[int]]]:
        """Return pixels by semantic task: rows truth, columns prediction, the last unlabelled."""
        return {
            name: metric.confusion.tolist()
            for name, metric in self._metrics.items()
            if name in self._scored and isinstance(metric, SemanticMetric)
        }

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything counted so far, as named arrays."""
        return {
            f'{task}/{name}': getattr(self._metrics[task], name).numpy()
            for task in sorted(self._scored)
            for name in self._metrics[task]._defaults
        }

    def restore(self, arrays: Arrays) -> None:
        """Go on from what `state` returned."""
        for key, array in arrays.items():
            task, _, name = key.partition('/')
            setattr(self._metrics[task], name, torch.from_numpy(np.array(array)))
            self._metrics[task]._update_count = 1  # it has been updated: no warning
            self._scored.add(task)

    def ranking(self) -> tuple[str, str, bool] | None:
        """Return task, metric and whether higher is better, by which frames are ranked."""
        for kind in _RANKING_KINDS:
            task = self._tasks.get(kind)
            if task is not None and task.name in self._scored:
                metric, higher_is_better = HEADLINES[kind]
                return task.name, metric, higher_is_better
        return None


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: sums this small wait longer for a second than they take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_annotated(kind: str, target: npt.NDArray[Any]) -> bool:
    if kind in ('depth', 'normals'):
        return bool(np.isfinite(target).any())
    return bool((target != UNLABELLED).any())


def _as_tensor(kind: str, values: npt.NDArray[Any], *, is_target: bool) -> Tensor:
    """Return a map as the metrics take it: a batch of one, normals with channels first."""
    tensor = torch.from_numpy(np.array(values))[None]
    if kind == 'normals':
        return tensor.movedim(-1, 1)
    if kind == 'edges' and not is_target:
        return tensor.float() / 255
    return tensor
