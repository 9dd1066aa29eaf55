# SPDX-License-Identifier: Apache-2.0
"""What the perception node publishes per frame; what nobody subscribes to is not built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import time
from typing import Any

from mtl_perception.geometry.cloud import cloud_shape
from mtl_perception.output_topics import (
    camera_info_topics,
    cloud_tasks,
    CLOUD_TOPIC,
    image_outputs,
    ImageOutput,
    output_cloud,
)
from mtl_perception.ros import qos
from mtl_perception.ros.codec import camera_info_message, CloudMessage, ImageMessage
from mtl_perception.ros.perception_parameters import CloudSettings
from mtl_perception.tasks import Task
from mtl_perception.values import PerceptionMaps
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header


@dataclass(frozen=True)
class Wanted:
    """What has subscribers at this moment."""

    images: tuple[ImageOutput, ...] = ()
    camera_infos: tuple[str, ...] = ()
    cloud: bool = False
    needs: frozenset[str] = field(default_factory=frozenset)  # output names of the network

    @property
    def image_needs(self) -> frozenset[str]:
        """What the images alone need of the network: there is no cloud without a camera."""
        return frozenset(output.needs for output in self.images)

    def __bool__(self) -> bool:
        return bool(self.images or self.camera_infos or self.cloud)


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
            (topic, self._publisher(CameraInfo, topic)) for topic in camera_info_topics(tasks)
        ]
        self._cloud_tasks = cloud_tasks(tasks)
        self._cloud = None
        if self._cloud_tasks:
            self._cloud = self._publisher(PointCloud2, CLOUD_TOPIC)
        self._cloud_message = CloudMessage()
        self._messages = {
            output.topic: ImageMessage(output.encoding) for output, _ in self._images
        }
        self._memories = {output.needs: output.topic for output, _ in reversed(self._images)}

    def _publisher(self, message_type: Any, topic: str) -> Any:
        return qos.create_publisher(
            self._node, message_type, topic, qos.output(), self._report
        )

    def everything(self) -> Wanted:
        """Return all that can be wanted."""
        return self._needing(
            tuple(output for output, _ in self._images),
            tuple(topic for topic, _ in self._camera_infos),
            cloud=self._cloud is not None,
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
        return self._needing(images, infos, cloud=cloud)

    def _needing(
        self, images: tuple[ImageOutput, ...], infos: tuple[str, ...], *, cloud: bool
    ) -> Wanted:
        needs = {output.needs for output in images}
        if cloud:
            needs.update(task.name for task in self._cloud_tasks.values())
        return Wanted(images, infos, cloud, frozenset(needs))

    def memory(
        self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> npt.NDArray[Any]:
        """Return where the network's output `name` goes out from: `perceive` may fill it there."""
        return self._messages[self._memories[name]].pixels(shape, dtype)

    def publish(
        self, header: Header, maps: PerceptionMaps, wanted: Wanted, settings: CloudSettings
    ) -> dict[str, float]:
        """Build and publish what is wanted; return milliseconds of `cloud` and `publish`."""
        started = time.perf_counter()
        for output, publisher in self._images:
            if output in wanted.images and (values := output.values(maps)) is not None:
                image = self._messages[output.topic]
                image.fill(values)
                image.message.header = header
                publisher.publish(image.message)
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
        output_cloud(
            self._cloud_tasks,
            maps,
            stride=settings.stride,
            range_m=settings.range_m,
            color_mode=settings.color_mode,
            out=self._cloud_message.points(cloud_shape(maps.camera, settings.stride)),
        )

    def close(self) -> None:
        """Destroy the publishers."""
        publishers = [publisher for _, publisher in (*self._images, *self._camera_infos)]
        for publisher in (*publishers, self._cloud):
            if publisher is not None:
                self._node.destroy_publisher(publisher)
