# SPDX-License-Identifier: Apache-2.0
"""A node that subscribes to every output and says what arrived, how often and how late."""

from __future__ import annotations

from dataclasses import dataclass, field
import json
from typing import Any
import zlib

from mtl_perception.image_codec import decode_image
from mtl_perception.ros.label_info import LabelInfo
import numpy as np
from rclpy.clock import Clock
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String

CAMERA_IMAGE = 'camera/image_raw'
LABEL_NAMES, LABEL_INFO = 'semantic/label_names', 'semantic/label_info'
# Every output of the perception node: topic, message type. Of the two forms that say what the
# labels mean it publishes one, as vision_msgs is installed or not.
OUTPUTS: dict[str, Any] = {
    'semantic/image_raw': Image,
    **({LABEL_NAMES: String} if LabelInfo is None else {LABEL_INFO: LabelInfo}),
    'semantic/confidence': Image,
    'semantic_color/image_raw': Image,
    'depth/image_rect': Image,
    'depth/camera_info': CameraInfo,
    'normals/image_raw': Image,
    'normals_color/image_raw': Image,
    'edges/image_raw': Image,
    'points': PointCloud2,
}
# These describe the camera and the labels: they need not change between frames.
STEADY = (LABEL_NAMES, LABEL_INFO, 'depth/camera_info')


@dataclass
class TopicRecord:
    """What one topic has delivered so far."""

    topic: str
    encoding: str = ''
    received: int = 0
    first_ns: int = 0
    last_ns: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    is_constant: bool = True  # no frame has held two different values
    checksums: set[int] = field(default_factory=set)
    latest: Any = None  # the newest message

    @property
    def rate_hz(self) -> float:
        """Messages per second between the first and the newest."""
        span = (self.last_ns - self.first_ns) * 1e-9
        return (self.received - 1) / span if span > 0 else 0.0

    @property
    def latency_ms(self) -> float:
        """Median time from the image's stamp to our receipt."""
        return float(np.median(self.latencies_ms)) if self.latencies_ms else float('nan')

    def complaint(self) -> str | None:
        """Return what is wrong with this topic, or None."""
        if self.received == 0:
            return 'never arrived'
        if self.topic in STEADY:
            return None
        if self.is_constant:
            return 'holds one single value'
        if len(self.checksums) < 2:
            return 'does not differ between frames'
        return None


def message_pixels(message: Any) -> Any:
    """Return the array of an Image, (H, W) or (H, W, 3); of a cloud, (H, W, 8) float32."""
    if isinstance(message, Image):
        return decode_image(
            message.encoding, message.height, message.width, message.step,
            message.data, bool(message.is_bigendian),
        )
    words = np.frombuffer(message.data, np.float32)
    return words.reshape(message.height, message.width, message.point_step // 4)


class Observer:
    """
    Subscribes to the camera's image and to all outputs on behalf of `node`.

    `records` are filled as messages come; a frame is decoded only until one was not constant.
    """

    def __init__(self, node: Node | LifecycleNode) -> None:
        self._clock: Clock = node.get_clock()
        self.records = {topic: TopicRecord(topic) for topic in (CAMERA_IMAGE, *OUTPUTS)}
        for topic, kind in ((CAMERA_IMAGE, Image), *OUTPUTS.items()):
            latched = topic in (LABEL_NAMES, LABEL_INFO)
            qos = QoSProfile(
                depth=2,
                reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL
                if latched
                else DurabilityPolicy.VOLATILE,
            )
            node.create_subscription(kind, topic, self._callback(topic), qos)

    def _callback(self, topic: str) -> Any:
        record = self.records[topic]

        def receive(message: Any) -> None:
            now = self._clock.now().nanoseconds
            record.received += 1
            record.first_ns = record.first_ns or now
            record.last_ns = now
            record.latest = message
            if topic in (LABEL_NAMES, LABEL_INFO):
                return  # said once: it has no latency
            stamp = Time.from_msg(message.header.stamp).nanoseconds
            record.latencies_ms.append((now - stamp) * 1e-6)
            record.encoding = getattr(message, 'encoding', '') or type(message).__name__
            if topic not in STEADY:
                # Adler is fast enough for a 10 MB cloud and tells two frames apart.
                record.checksums.add(zlib.adler32(memoryview(message.data)))
                if record.is_constant:
                    pixels = message_pixels(message)
                    if isinstance(message, PointCloud2):
                        pixels = pixels[..., 2]  # colours differ even where all depth is alike
                    finite = pixels[np.isfinite(pixels)]
                    record.is_constant = not (finite.size and finite.min() != finite.max())

        return receive

    @property
    def complaints(self) -> dict[str, str]:
        """What is wrong, by topic; empty when every output lives."""
        found = ((topic, self.records[topic].complaint()) for topic in OUTPUTS)
        return {topic: words for topic, words in found if words is not None}

    @property
    def label_names(self) -> dict[str, Any]:
        """The latched JSON of names and colours; empty before it came, and with vision_msgs."""
        record = self.records.get(LABEL_NAMES)
        if record is None or record.latest is None:
            return {}
        return dict(json.loads(record.latest.data))
