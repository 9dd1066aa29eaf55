# SPDX-License-Identifier: Apache-2.0
"""All that is computed of one frame: the tasks' metrics and the checks, and over all frames."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mtl_perception.bags.topics import BagTopics
from mtl_perception.evaluation.checks import by_kind, Check, Scene
from mtl_perception.evaluation.cross_task import CrossTaskConsistency
from mtl_perception.evaluation.depth_checks import DepthByDistance, DepthEdges
from mtl_perception.evaluation.focal_checks import MotionFocal, NormalsFocal
from mtl_perception.evaluation.scene_arrays import scene_arrays, scene_from_arrays
from mtl_perception.evaluation.scores import complete_targets, Scorer
from mtl_perception.evaluation.temporal import TemporalConsistency
from mtl_perception.tasks import Task
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
Scores = dict[str, dict[str, float]]


class FrameScores:
    """
    Scores frames one after the other, and says what all of them give.

    Scores are by task name, then metric; the checks stand beside the tasks under their own
    names: depth_by_distance, depth_edges, temporal, consistency, focal, focal_motion.

    :param normals_window: pixels; the window in which normals are fitted to measured depth
    """

    def __init__(self, tasks: Sequence[Task], normals_window: int) -> None:
        self._window = normals_window
        self._tasks = by_kind(tasks)
        edges = self._tasks.get('edges')
        self._jumps = edges is not None and edges.edge_meaning == 'depth_jumps'
        self._scorer = Scorer(tasks)
        self._focal = (NormalsFocal(), MotionFocal())
        self._depth_checks: tuple[Check, ...] = (DepthByDistance(), DepthEdges())
        self._motion_checks: tuple[Check, ...] = (TemporalConsistency(),)
        self._checks: tuple[Check, ...] = (
            *self._depth_checks, *self._motion_checks, CrossTaskConsistency(tasks), *self._focal,
        )  # fmt: skip

    def columns(self, topics: BagTopics) -> list[tuple[str, str]]:
        """Return every (task or check, metric) that a recording with these topics can give."""
        kinds = self._target_kinds(topics.targets)
        has_motion = any((topics.odometry, topics.tf, topics.tf_static))
        left_out: list[Check] = []
        if 'depth' not in kinds:
            left_out += [*self._depth_checks, self._focal[1]]
        if not has_motion:
            left_out += [*self._motion_checks, self._focal[1]]
        return self._scorer.columns(kinds) + [
            (check.name, column)
            for check in self._checks
            if check not in left_out
            for column in check.columns
        ]

    def score(
        self,
        frame: Frame,
        maps: PerceptionMaps,
        recorded: Arrays,
        pose: npt.NDArray[np.float64] | None,
    ) -> tuple[dict[str, npt.NDArray[Any]], Scores, tuple[str, ...]]:
        """
        Return the completed targets by kind, the scores, and notes on what was not compared.

        `recorded` are the targets as the bag holds them, at the size of `frame`.
        """
        targets = complete_targets(
            recorded, frame.camera, self._window, edges_from_depth=self._jumps
        )
        scores, notes = self._scorer.score(maps, targets)
        scene = Scene(
            predicted={
                kind: maps.maps[task.name]
                for kind, task in self._tasks.items()
                if task.name in maps.maps
            },
            truth={kind: target for kind, target in targets.items() if _fits(target, maps)},
            # Without what a pinhole does not need, so that a stored one equals it.
            camera=None if maps.camera is None else maps.camera.rectified(),
            stamp_ns=frame.stamp_ns,
            pose=pose,
            recorded=frozenset(recorded),
        )
        for check in self._checks:
            values = check.score(scene)
            if values:
                scores[check.name] = values
        return targets, scores, notes

    def totals(self) -> Scores:
        """Return the scores over all frames; what was never scored is absent."""
        totals = {check.name: check.totals() for check in self._checks}
        return {
            **self._scorer.totals(), **{name: entry for name, entry in totals.items() if entry},
        }  # fmt: skip

    def class_iou(self) -> Scores:
        """Return the intersection over union by semantic task and class name."""
        return self._scorer.class_iou()

    def confusion(self) -> dict[str, list[list[int]]]:
        """Return pixels by semantic task: rows truth, columns prediction, the last unlabelled."""
        return self._scorer.confusion()

    def ranking(self) -> tuple[str, str, bool] | None:
        """Return task, metric and whether higher is better, by which frames are ranked."""
        return self._scorer.ranking()

    def warnings(self) -> list[str]:
        """Return what is wrong with the recording, one sentence each."""
        return [sentence for check in self._focal if (sentence := check.warning()) is not None]

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything gathered so far, as named arrays."""
        arrays = {f'task/{name}': array for name, array in self._scorer.state().items()}
        for check in self._checks:
            for name, array in check.arrays.items():
                arrays[f'check/{check.name}/{name}'] = array
            if check.memory is not None:
                for name, array in scene_arrays(check.memory).items():
                    arrays[f'memory/{check.name}/{name}'] = array
        return arrays

    def restore(self, arrays: Arrays) -> None:
        """Go on from what `state` returned; raise KeyError or ValueError where it is foreign."""
        self._scorer.restore(_below('task/', arrays))
        for check in self._checks:
            for name, array in check.arrays.items():
                array[...] = arrays[f'check/{check.name}/{name}']
            memory = _below(f'memory/{check.name}/', arrays)
            check.memory = scene_from_arrays(memory) if memory else None

    def _target_kinds(self, recorded: Collection[str]) -> set[str]:
        kinds = set(recorded)
        if 'depth' in kinds:
            kinds |= {'normals', 'edges'} if self._jumps else {'normals'}
        return kinds


def _fits(target: npt.NDArray[Any], maps: PerceptionMaps) -> bool:
    return target.shape[:2] == maps.image.shape[:2]


def _below(prefix: str, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
