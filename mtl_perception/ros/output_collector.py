# SPDX-License-Identifier: Apache-2.0
"""Subscribes to the maps of a perception node and puts those of one frame together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Condition
import time
from typing import Any

from mtl_perception.bags.stamps import header_stamp_ns
from mtl_perception.image_codec import decode_image
from mtl_perception.output_topics import camera_info_topics, image_outputs
from mtl_perception.tasks import LABELLED_KINDS, Task
from mtl_perception.values import Array
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image

# Outputs that wait to be scored; at 640x480 a frame is 7 MB.
_LIMIT_BYTES = 2**30
_DEPTH = 10


@dataclass
class _Frame:
    """What came of one frame so far."""

    messages: dict[str, bytes] = field(default_factory=dict)  # by topic
    completed: float = 0.0  # when the latest of them came


class OutputCollector:
    """
    Keeps what a perception node publishes of each frame until it is asked for.

    One thread spins `node`, another asks. `topics` are all that it subscribes to: the finished
    map of every task, confidences, and the camera of depth.
    """

    def __init__(self, node: Node, tasks: Sequence[Task]) -> None:
        self._maps = {task.name: image_outputs(task)[0].topic for task in tasks}
        self._confidences = {
            task.name: image_outputs(task)[1].topic
            for task in tasks
            if task.kind in LABELLED_KINDS
        }
        self._metric = frozenset(task.name for task in tasks if task.kind == 'depth')
        self._camera_infos = camera_info_topics(tasks)
        self._kinds: dict[str, Any] = dict.fromkeys(
            (*self._maps.values(), *self._confidences.values()), Image
        )
        self._kinds.update(dict.fromkeys(self._camera_infos, CameraInfo))
        self.topics = tuple(node.resolve_topic_name(topic) for topic in self._kinds)
        self._changed = Condition()
        # By stamp, in the order in which frames came out: stamps may jump back.
        self._frames: dict[int, _Frame] = {}
        self._sent: dict[int, float] = {}  # stamp -> when its image went out
        self._given_up: set[int] = set()  # what still comes of these is not waited for
        self._let_go: set[int] = set()  # there was no room for all of these
        self._bytes = 0
        profile = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self._subscriptions = [
            node.create_subscription(kind, topic, self._callback(topic), profile, raw=True)
            for topic, kind in self._kinds.items()
        ]

    @property
    def is_connected(self) -> bool:
        """Whether every topic has a publisher."""
        return all(one.get_publisher_count() for one in self._subscriptions)

    def expected(self, *, has_camera: bool) -> frozenset[str]:
        """Return the topics on which a frame with or without a camera comes out."""
        if has_camera:
            return frozenset(self._kinds)
        absent = {self._maps[name] for name in self._metric}
        return frozenset(self._kinds) - absent - frozenset(self._camera_infos)

    def note_sent(self, stamp_ns: int) -> None:
        """Remember that the image of a frame goes out now."""
        with self._changed:
            self._given_up.discard(stamp_ns)
            self._sent.setdefault(stamp_ns, time.monotonic())

    def wait(self, stamp_ns: int, topics: frozenset[str], timeout_s: float) -> frozenset[str]:
        """Wait until a frame is there; return the topics that are missing after the time."""
        with self._changed:
            self._given_up.discard(stamp_ns)
            self._changed.wait_for(lambda: not self._missing(stamp_ns, topics), timeout_s)
            return self._missing(stamp_ns, topics)

    def latency_ms(self, stamp_ns: int) -> float | None:
        """Return the time from a frame's image going out to its last output; None = unknown."""
        with self._changed:
            sent, frame = self._sent.get(stamp_ns), self._frames.get(stamp_ns)
        return None if sent is None or frame is None else (frame.completed - sent) * 1e3

    def overtaken_s(self, stamp_ns: int) -> float:
        """Return for how long a later frame has been there; 0 if none is."""
        with self._changed:
            stamps = list(self._frames)
            later = stamps[stamps.index(stamp_ns) + 1 :] if stamp_ns in stamps else stamps
            moments = [self._frames[stamp].completed for stamp in later]
        return time.monotonic() - min(moments) if moments else 0.0

    def was_let_go(self, stamp_ns: int) -> bool:
        """Whether outputs of a frame came when there was no room for them."""
        with self._changed:
            return stamp_ns in self._let_go

    def forget(self, stamp_ns: int) -> None:
        """Let go of a frame, and of all that came out before it."""
        with self._changed:
            self._sent.pop(stamp_ns, None)
            self._let_go.discard(stamp_ns)
            if stamp_ns not in self._frames:
                self._given_up.add(stamp_ns)
                return
            for stamp in list(self._frames):
                self._bytes -= sum(map(len, self._frames.pop(stamp).messages.values()))
                if stamp == stamp_ns:
                    return

    def maps(self, stamp_ns: int) -> tuple[dict[str, Array], dict[str, Array], Any]:
        """Return maps and confidences by task name, and the CameraInfo or None."""
        with self._changed:
            messages = dict(self._frames[stamp_ns].messages)
        maps = {
            name: self._pixels(messages[topic])
            for name, topic in self._maps.items() if topic in messages
        }  # fmt: skip
        confidences = {
            name: self._pixels(messages[topic])
            for name, topic in self._confidences.items() if topic in messages
        }  # fmt: skip
        info = next((messages[one] for one in self._camera_infos if one in messages), None)
        return maps, confidences, None if info is None else deserialize_message(info, CameraInfo)

    def _missing(self, stamp_ns: int, topics: frozenset[str]) -> frozenset[str]:
        frame = self._frames.get(stamp_ns)
        return topics if frame is None else topics - frame.messages.keys()

    def _callback(self, topic: str) -> Any:
        def receive(data: bytes) -> None:
            stamp_ns = header_stamp_ns(data)
            if stamp_ns is None:
                return
            with self._changed:
                if stamp_ns in self._given_up:
                    return
                if self._bytes + len(data) > _LIMIT_BYTES:
                    self._let_go.add(stamp_ns)
                    return
                frame = self._frames.setdefault(stamp_ns, _Frame())
                self._bytes += len(data) - len(frame.messages.get(topic, b''))
                frame.messages[topic] = data
                frame.completed = time.monotonic()
                self._changed.notify_all()

        return receive

    @staticmethod
    def _pixels(data: bytes) -> Array:
        message = deserialize_message(data, Image)
        return np.asarray(decode_image(
            message.encoding, message.height, message.width, message.step, message.data,
            bool(message.is_bigendian),
        ))  # fmt: skip
