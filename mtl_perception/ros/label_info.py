# SPDX-License-Identifier: Apache-2.0
"""Which class each label value means, said once and kept for those who subscribe late."""

from __future__ import annotations

import json
from typing import Any

from mtl_perception.output_topics import class_names, label_names
from mtl_perception.ros import qos
from mtl_perception.tasks import Task
from rclpy.node import Node
from std_msgs.msg import Header, String

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # not installed, or older than LabelInfo
    LabelInfo = None


def label_info_message(task: Task, header: Header) -> Any:
    """Return the vision_msgs/LabelInfo of a semantic task."""
    message = LabelInfo()
    message.header = header
    message.class_map = [
        VisionClass(class_id=number, class_name=name)
        for number, name in class_names(task).items()
    ]
    message.threshold = 0.0  # the label is the most likely class, however unlikely
    return message


def label_names_message(task: Task) -> String:
    """Return the same as JSON, and the colours, for machines without vision_msgs."""
    return String(data=json.dumps(label_names(task)))


class LabelInfoPublisher:
    """
    Latches `<task>/label_info` (vision_msgs/LabelInfo) for a semantic task.

    Where vision_msgs is not installed, `<task>/label_names` (std_msgs/String, JSON) instead.
    """

    def __init__(self, node: Node, task: Task) -> None:
        self._node = node
        self._task = task
        if LabelInfo is None:
            self._publisher = node.create_publisher(
                String, f'{task.name}/label_names', qos.latched()
            )
            node.get_logger().info(
                f'label names of {task.name!r} go out as JSON on {self._publisher.topic_name}: '
                'vision_msgs is not installed (apt install ros-<distro>-vision-msgs)'
            )
        else:
            self._publisher = node.create_publisher(
                LabelInfo, f'{task.name}/label_info', qos.latched()
            )

    def publish(self) -> None:
        """Say it."""
        if LabelInfo is None:
            self._publisher.publish(label_names_message(self._task))
        else:
            header = Header(stamp=self._node.get_clock().now().to_msg())
            self._publisher.publish(label_info_message(self._task, header))

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)
