# SPDX-License-Identifier: Apache-2.0
"""Plays a rosbag2 as it was recorded: the bytes, the header stamps, the pace, and /clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from importlib import import_module
import time
from typing import Any

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.latched import latched_topics
from mtl_perception.bags.recovery import RecordedMessage
from mtl_perception.bags.topics import COMPRESSED_IMAGE, IMAGE
from mtl_perception.ros.delivery import wait_for_delivery, wait_for_subscribers
from mtl_perception.ros.errors import RosError
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

CLOCK_TOPIC = '/clock'
_CLOCK_PERIOD_S = 0.02
# Several publishers may have latched on one topic (tf_static): late subscribers need them all. And
# Fast DDS drops a small message now and then; Jazzy's subscribers ask for it a fifth of a second
# later or more, when at 60 Hz the last ten no longer held it.
_DEPTH = 100


class BagPlayer(Node):
    """
    Publishes the messages of a bag on their own topics, untouched, at `rate` times their pace.

    All publishers are reliable, so that best-effort and reliable subscribers both hear them;
    what was latched is latched again. `/clock` carries the time of recording, for nodes with
    `use_sim_time`. Topics whose message package is not installed are named once and left out;
    those in `left_out` are somebody else's to publish. `on_send` is called with each message
    right before it goes out.

    Raises
    ------
    RosError
        If the bag has no topic that can be played.

    """

    def __init__(
        self,
        bag: BagFile,
        *,
        rate: float = 1.0,
        loop: bool = False,
        left_out: Collection[str] = (),
        on_send: Callable[[RecordedMessage], None] = lambda message: None,
    ) -> None:
        super().__init__('camera')
        self._bag = bag
        self._rate = rate
        self._loop = loop
        self._on_send = on_send
        self._clock_publisher = self.create_publisher(Clock, CLOCK_TOPIC, _DEPTH)
        self._bag_publishers: dict[str, Any] = {}
        self._read: Counter[str] = Counter()
        self._clock_ns = -1
        self._create_publishers(left_out)

    def _create_publishers(self, left_out: Collection[str]) -> None:
        latched = latched_topics(self._bag)
        skipped = []
        for name, topic in self._bag.topics.items():
            if name == CLOCK_TOPIC:
                self.get_logger().info('the recorded /clock is replaced by our own')
                continue
            if name in left_out:
                self.get_logger().info(f'{name} of the bag is left out: it is published anew')
                continue
            try:
                kind = _message_class(topic.type)
            except (ImportError, AttributeError):
                skipped.append(f'{name} ({topic.type})')
                continue
            profile = _profile(name in latched)
            self._bag_publishers[name] = self.create_publisher(kind, name, profile)
        if skipped:
            self.get_logger().warning(
                f'not played, as their message packages are not installed: {", ".join(skipped)}'
            )
        if not self._bag_publishers:
            msg = f'bag {self._bag.path} has no topic that can be played here'
            raise RosError(msg)

    def is_heard(self, topic: str) -> bool:
        """Whether somebody subscribes to a topic of the bag."""
        publisher = self._bag_publishers.get(topic)
        return publisher is not None and publisher.get_subscription_count() > 0

    def play(self, wait_s: float) -> None:
        """
        Play until the end of the bag, or until the context is shut down.

        The first message waits for a subscriber of an image topic (of any topic, in a bag
        without images), at most `wait_s` seconds.

        Raises
        ------
        RosError
            After playing what is readable, if the bag is damaged: what was lost.

        """
        images = [
            publisher
            for name, publisher in self._bag_publishers.items()
            if self._bag.topics[name].type in (IMAGE, COMPRESSED_IMAGE)
        ]
        every = list(self._bag_publishers.values())
        others = [publisher for publisher in every if publisher not in images] if images else []
        heard = wait_for_subscribers(images or every, wait_s, self.context, others)
        if not heard and self.context.ok():
            self.get_logger().warning(f'nobody listened within {wait_s:g} s; playing anyway')
        while self.context.ok():
            self._play_once()
            if not self.context.ok():
                return
            loss = self._loss()
            if loss or not self._loop:
                wait_for_delivery([*self._bag_publishers.values(), self._clock_publisher])
                if loss:
                    msg = f'bag {self._bag.path} is damaged: {loss}'
                    raise RosError(msg)
                total = sum(self._read.values())
                self.get_logger().info(f'played {self._bag.path}: {total} messages')
                return

    def _play_once(self) -> None:
        self._read.clear()
        # Looping turns the clock back, as `ros2 bag play --loop` does.
        self._clock_ns = -1
        first_ns: int | None = None
        start = time.monotonic()
        for message in self._bag.messages(self._bag.topics):
            stamp_ns = message.recorded_ns
            first_ns = stamp_ns if first_ns is None else first_ns
            self._wait(stamp_ns, start + (stamp_ns - first_ns) * 1e-9 / self._rate)
            if not self.context.ok():
                return
            self._send(message)

    def _send(self, message: RecordedMessage) -> None:
        self._tick(message.recorded_ns)
        # Counted whether or not it can be played here: the account is about the file.
        self._read[message.topic] += 1
        publisher = self._bag_publishers.get(message.topic)
        if publisher is not None:
            self._on_send(message)
            publisher.publish(message.data)

    def _wait(self, stamp_ns: int, due: float) -> None:
        """Sleep until `due`; let the clock run on in the pauses of the recording."""
        while self.context.ok() and (left := due - time.monotonic()) > 0:
            time.sleep(min(left, _CLOCK_PERIOD_S))
            left = max(0.0, due - time.monotonic())
            self._tick(stamp_ns - int(left * self._rate * 1e9))

    def _tick(self, stamp_ns: int) -> None:
        """Publish the time of recording, which never runs backwards within one pass."""
        if stamp_ns <= self._clock_ns or not self.context.ok():
            return
        self._clock_ns = stamp_ns
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp_ns, 10**9)
        self._clock_publisher.publish(message)

    def _loss(self) -> str:
        """Return in words what of the bag could not be read, empty if it is whole."""
        promised = {name: topic.messages for name, topic in self._bag.topics.items()}
        missing = {
            name: count - self._read[name]
            for name, count in promised.items()
            if count is not None and count > self._read[name]
        }
        if not self._bag.damage and not missing:
            return ''
        known = [count for count in promised.values() if count is not None]
        total = f' of {sum(known)}' if len(known) == len(promised) else ''
        parts = [*self._bag.damage, f'read {sum(self._read.values())}{total} messages']
        if missing:
            listed = ', '.join(f'{count} of {name}' for name, count in missing.items())
            parts.append(f'lost {listed}')
        return '; '.join(parts)


def _message_class(type_name: str) -> Any:
    """Return the Python class of 'package/msg/Name'."""
    package, _, name = type_name.split('/')
    return getattr(import_module(f'{package}.msg'), name)


def _profile(latched: bool) -> QoSProfile:
    return QoSProfile(
        depth=_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
