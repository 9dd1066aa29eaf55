# SPDX-License-Identifier: Apache-2.0
"""
What goes out per frame: topics, encodings and contents of the images, cameras and the cloud.

The perception node publishes it, a replay writes it into a bag; both take it from here. Topics
are relative to the namespace of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.geometry.cloud import Cloud, fused_cloud
from mtl_perception.manifest import confidence_name
from mtl_perception.tasks import Task
from mtl_perception.values import PerceptionMaps, UNLABELLED
import numpy as np
import numpy.typing as npt

CLOUD_TOPIC = 'points'
UNLABELLED_NAME = 'unlabelled'
_CLOUD_KINDS = ('depth', 'normals', 'semantic')


@dataclass(frozen=True)
class ImageOutput:
    """An image made of one output of the network; `values` gives None when it is absent."""

    topic: str
    encoding: str
    needs: str  # output name of the network
    values: Callable[[PerceptionMaps], npt.NDArray[Any] | None]


@dataclass(frozen=True)
class Pinhole:
    """The matrices of a rectified image as sensor_msgs/CameraInfo has them, row by row."""

    k: tuple[float, ...]  # (9)
    p: tuple[float, ...]  # (12)
    r: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    d: tuple[float, ...] = (0.0,) * 5
    distortion_model: str = 'plumb_bob'

    @classmethod
    def of(cls, camera: CameraModel) -> Pinhole:
        """Return K and P of a camera without distortion."""
        # Fields that are checked (Humble) take no whole numbers for floats.
        fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
        return cls(
            k=(fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0),
            p=(fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0),
        )


def image_outputs(task: Task) -> tuple[ImageOutput, ...]:
    """Return the images of a task, its finished map first; topics begin with the task's name."""
    name = task.name

    def finished(maps: PerceptionMaps) -> npt.NDArray[Any] | None:
        return maps.maps.get(name)

    def coloured(maps: PerceptionMaps) -> npt.NDArray[Any] | None:
        values = maps.maps.get(name)
        return None if values is None else task.colourise(values)

    if task.label_set is not None:
        return (
            ImageOutput(f'{name}/image_raw', 'mono8', name, finished),
            ImageOutput(
                f'{name}/confidence', '32FC1', confidence_name(task),
                lambda maps: maps.confidence.get(name),
            ),
            ImageOutput(f'{name}_color/image_raw', 'rgb8', name, coloured),
        )  # fmt: skip
    if task.kind == 'depth':
        return (ImageOutput(f'{name}/image_rect', '32FC1', name, finished),)
    if task.kind == 'normals':
        return (
            ImageOutput(f'{name}/image_raw', '32FC3', name, finished),
            ImageOutput(f'{name}_color/image_raw', 'rgb8', name, coloured),
        )
    return (ImageOutput(f'{name}/image_raw', 'mono8', name, finished),)


def camera_info_topics(tasks: Sequence[Task]) -> tuple[str, ...]:
    """Return where the pinhole of the outputs is said: beside each depth."""
    return tuple(f'{task.name}/camera_info' for task in tasks if task.kind == 'depth')


def cloud_tasks(tasks: Sequence[Task]) -> dict[str, Task]:
    """Return by kind the tasks that the cloud joins, the first of each; empty without depth."""
    first = {task.kind: task for task in reversed(tasks)}
    if 'depth' not in first:
        return {}
    return {kind: first[kind] for kind in _CLOUD_KINDS if kind in first}


def output_cloud(
    joined: dict[str, Task],
    maps: PerceptionMaps,
    *,
    stride: int = 1,
    range_m: tuple[float, float] = (0.0, 1000.0),
    color_mode: str = 'camera',
    out: npt.NDArray[np.float32] | None = None,
) -> Cloud:
    """
    Return the cloud of one frame with depth and a camera; the options are `fused_cloud`'s.

    :param joined: what `cloud_tasks` gave

    Raises
    ------
    GeometryError
        As `fused_cloud`.

    """
    assert maps.camera is not None
    semantic = joined.get('semantic')
    palette: npt.NDArray[np.uint8] | None = None
    if semantic is not None and semantic.label_set is not None:
        palette = semantic.label_set.palette
    return fused_cloud(
        {kind: maps.maps[task.name] for kind, task in joined.items()},
        maps.image,
        maps.camera,
        stride=stride,
        range_m=range_m,
        # A model without labels has no class colours to give.
        color_mode='camera' if palette is None else color_mode,
        label_colours=palette,
        out=out,
    )


def class_names(task: Task) -> dict[int, str]:
    """Return name by label value, 255 (unlabelled) included."""
    names = () if task.label_set is None else task.label_set.names
    return {**dict(enumerate(names)), UNLABELLED: UNLABELLED_NAME}


def label_names(task: Task) -> dict[str, Any]:
    """Return vision_msgs/LabelInfo as JSON, and the colours, for `<task>/label_names`."""
    return {
        'class_map': [
            {'class_id': number, 'class_name': name} for number, name in class_names(task).items()
        ],
        'threshold': 0.0,  # the label is the most likely class, however unlikely
        'label_set': None if task.label_set is None else task.label_set.to_json(),
    }
