# SPDX-License-Identifier: Apache-2.0
"""What the perception node publishes per frame; what nobody subscribes to is not built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import time
from typing import Any

from mtl_perception.geometry.cloud import cloud_shape, fused_cloud
from mtl_perception.manifest import confidence_name
from mtl_perception.ros import qos
from mtl_perception.ros.codec import camera_info_message, CloudMessage, image_message
from mtl_perception.ros.perception_parameters import CloudSettings
from mtl_perception.tasks import Task
from mtl_perception.values import PerceptionMaps
import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

CLOUD_TOPIC = 'points'
_CLOUD_KINDS = ('depth', 'normals', 'semantic')


@dataclass(frozen=True)
class ImageOutput:
    """An image made of one output of the network; `values` gives None when it is absent."""

    topic: str
    encoding: str
    needs: str  # output name of the network
    values: Callable[[PerceptionMaps], npt.NDArray[Any] | None]


@dataclass(frozen=True)
class Wanted:
    """What has subscribers at this moment."""

    images: tuple[ImageOutput, ...] = ()
    camera_infos: tuple[str, ...] = ()
    cloud: bool = False
    needs: frozenset[str] = field(default_factory=frozenset)  # output names of the network

    def __bool__(self) -> bool:
        return bool(self.images or self.camera_infos or self.cloud)


def image_outputs(task: Task) -> tuple[ImageOutput, ...]:
    """Return the images of a task; their topics begin with its name."""
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


class Outputs:
    """
    The publishers of one model's tasks.

    All carry the header of the input image. The cloud joins the first depth, normals and
    semantic task. `report` is told about subscribers whose QoS does not match.
    """

    def __init__(self, node: Node, tasks: tuple[Task, ...], report: Callable[[str], None]) -> None:
        self._node = node
        self._report = report
        self._images = [
            (output, self._publisher(Image, output.topic))
            for task in tasks
            for output in image_outputs(task)
        ]
        self._camera_infos = [
            (f'{task.name}/camera_info', self._publisher(CameraInfo, f'{task.name}/camera_info'))
            for task in tasks
            if task.kind == 'depth'
        ]
        first = {task.kind: task for task in reversed(tasks)}
        self._cloud_tasks = {kind: first[kind] for kind in _CLOUD_KINDS if kind in first}
        self._cloud = None
        if 'depth' in self._cloud_tasks:
            self._cloud = self._publisher(PointCloud2, CLOUD_TOPIC)
        self._cloud_message = CloudMessage()

    def _publisher(self, message_type: Any, topic: str) -> Any:
        return qos.create_publisher(
            self._node, message_type, topic, qos.output(), self._report
        )

    def wanted(self) -> Wanted:
        """Ask who listens."""
        images = tuple(
            output for output, publisher in self._images if publisher.get_subscription_count()
        )
        infos = tuple(
            topic for topic, publisher in self._camera_infos if publisher.get_subscription_count()
        )
        cloud = self._cloud is not None and self._cloud.get_subscription_count() > 0
        needs = {output.needs for output in images}
        if cloud:
            needs.update(task.name for task in self._cloud_tasks.values())
        return Wanted(images, infos, cloud, frozenset(needs))

    def publish(
        self, header: Header, maps: PerceptionMaps, wanted: Wanted, settings: CloudSettings
    ) -> dict[str, float]:
        """Build and publish what is wanted; return milliseconds of `cloud` and `publish`."""
        started = time.perf_counter()
        for output, publisher in self._images:
            if output in wanted.images and (values := output.values(maps)) is not None:
                publisher.publish(image_message(header, output.encoding, values))
        for topic, publisher in self._camera_infos:
            if topic in wanted.camera_infos and maps.camera is not None:
                publisher.publish(camera_info_message(header, maps.camera))
        cloud_s = 0.0
        if wanted.cloud and self._cloud is not None and maps.camera is not None:
            before = time.perf_counter()
            self._build_cloud(maps, settings)
            cloud_s = time.perf_counter() - before
            self._cloud_message.message.header = header
            self._cloud.publish(self._cloud_message.message)
        total_s = time.perf_counter() - started
        return {'cloud': cloud_s * 1e3, 'publish': (total_s - cloud_s) * 1e3}

    def _build_cloud(self, maps: PerceptionMaps, settings: CloudSettings) -> None:
        assert maps.camera is not None
        semantic = self._cloud_tasks.get('semantic')
        palette: npt.NDArray[np.uint8] | None = None
        if semantic is not None and semantic.label_set is not None:
            palette = semantic.label_set.palette
        fused_cloud(
            {kind: maps.maps[task.name] for kind, task in self._cloud_tasks.items()},
            maps.image,
            maps.camera,
            stride=settings.stride,
            range_m=settings.range_m,
            # A model without labels has no class colours to give.
            color_mode='camera' if palette is None else settings.color_mode,
            label_colours=palette,
            out=self._cloud_message.points(cloud_shape(maps.camera, settings.stride)),
        )

    def close(self) -> None:
        """Destroy the publishers."""
        publishers = [publisher for _, publisher in (*self._images, *self._camera_infos)]
        for publisher in (*publishers, self._cloud):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
