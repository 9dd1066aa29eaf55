# SPDX-License-Identifier: Apache-2.0
"""What every check of a replay takes and gives, beside the training's own metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from mtl_perception.camera import CameraModel
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.tasks import Task
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
WINDOW_PX = 11  # at 640 columns


@dataclass(frozen=True, eq=False)
class Scene:
    """
    One frame as the checks see it: predictions and truth by task kind, at one size.

    `truth` are the completed targets (rectified, normals from depth where none are recorded);
    `recorded` names the kinds that the bag itself holds.
    """

    predicted: Mapping[str, Array]
    truth: Mapping[str, Array]
    camera: CameraModel | None  # a pinhole
    stamp_ns: int = 0
    pose: npt.NDArray[np.float64] | None = None  # (4, 4), camera -> world
    recorded: frozenset[str] = frozenset()

    @cached_property
    def predicted_depth_normals(self) -> Array | None:
        """`coarse_normals` of predicted depth; several checks ask, and fitting takes a while."""
        if self.camera is None or 'depth' not in self.predicted:
            return None
        return coarse_normals(self.predicted['depth'], self.camera)

    def only(self, predicted: Collection[str], truth: Collection[str]) -> Scene:
        """Return the scene with these maps only, with its pinhole and pose."""
        return replace(
            self,
            predicted={kind: self.predicted[kind] for kind in predicted if kind in self.predicted},
            truth={kind: self.truth[kind] for kind in truth if kind in self.truth},
        )


class Check(Protocol):
    """
    Gathers numbers over the frames; `arrays` is all that it has gathered.

    `arrays` are changed in place, so that a replay can store them and go on from them; `memory`
    is the earlier frame that the next one will be compared with, if there is one.
    """

    name: str
    columns: tuple[str, ...]
    arrays: dict[str, npt.NDArray[np.float64]]
    memory: Scene | None

    def score(self, scene: Scene) -> dict[str, float]:
        """Return this frame's values by column; empty where there is nothing to compare."""

    def totals(self) -> dict[str, float]:
        """Return the values over all frames; empty where nothing was compared."""


@dataclass
class FrameMeans:
    """Means over the frames of values that some frames may lack (NaN)."""

    columns: tuple[str, ...]
    arrays: dict[str, npt.NDArray[np.float64]] = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.columns)
        self.arrays = {'sums': np.zeros(size), 'counts': np.zeros(size)}

    def add(self, values: Mapping[str, float]) -> dict[str, float]:
        """Count one frame; return the values that are numbers."""
        kept = {name: float(value) for name, value in values.items() if np.isfinite(value)}
        for name, value in kept.items():
            position = self.columns.index(name)
            self.arrays['sums'][position] += value
            self.arrays['counts'][position] += 1
        return kept

    def means(self) -> dict[str, float]:
        """Return the means of those columns that any frame had."""
        pairs = zip(self.columns, self.arrays['sums'], self.arrays['counts'])
        return {name: float(total / count) for name, total, count in pairs if count}


def by_kind(tasks: Sequence[Task]) -> dict[str, Task]:
    """Return the first task of each kind: the one that is compared."""
    result: dict[str, Task] = {}
    for task in tasks:
        result.setdefault(task.kind, task)
    return result


def angles_deg(first: Array, second: Array) -> Array:
    """Return the angle between unit vectors (..., 3), exact also where it is small."""
    return np.asarray(
        2.0 * np.degrees(np.arctan2(
            np.linalg.norm(first - second, axis=-1), np.linalg.norm(first + second, axis=-1)
        ))
    )


def coarse(array: Array, stride: int) -> Array:
    """Return every `stride`-th pixel of every `stride`-th row."""
    return np.ascontiguousarray(array[::stride, ::stride])


def coarse_camera(camera: CameraModel, stride: int) -> CameraModel:
    """Return the camera of `coarse` images: pixel (i, j) is pixel (i, j) * stride."""
    return CameraModel(
        -(-camera.width // stride), -(-camera.height // stride),
        camera.fx / stride, camera.fy / stride, camera.cx / stride, camera.cy / stride,
    )  # fmt: skip


def coarse_normals(depth: Array, camera: CameraModel) -> Array:
    """Return the normals of depth at a quarter of the pixels (see `coarse`)."""
    stride = coarse_stride(camera.width)
    window = max(3, 2 * (WINDOW_PX // stride // 2) + 1)
    return normals_from_depth(coarse(depth, stride), coarse_camera(camera, stride), window)


def coarse_stride(width: int) -> int:
    """Return the stride that leaves about 320 columns: enough for medians, a quarter the work."""
    return max(1, width // 320)
