# SPDX-License-Identifier: Apache-2.0
"""Plays a rosbag2 image by image: the next one goes out when it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.recovery import RecordedMessage
from mtl_perception.bags.stamps import header_stamp_ns
from mtl_perception.bags.topics import BagTopics
from mtl_perception.ros.bag_player import BagPlayer
from mtl_perception.ros.delivery import wait_for_delivery


class BagStepper(BagPlayer):
    """
    Publishes the messages of a bag as `BagPlayer` does, but only up to the image asked for.

    A camera_info that was recorded between an image and the next one goes out before the image:
    a node that has been given no time to wait must have it.
    """

    def __init__(
        self,
        bag: BagFile,
        topics: BagTopics,
        *,
        left_out: Collection[str] = (),
        on_send: Callable[[RecordedMessage], None] = lambda message: None,
    ) -> None:
        super().__init__(bag, left_out=left_out, on_send=on_send)
        self._topics = topics
        self._messages: Iterator[RecordedMessage] = bag.messages(bag.topics)
        self._ahead: deque[RecordedMessage] = deque()
        self._image: RecordedMessage | None = None

    def step_to(self, stamp_ns: int) -> bool:
        """Publish everything up to the image of that stamp; False if the bag ends before."""
        while (image := self._next_image()) is not None:
            image_stamp_ns = header_stamp_ns(image.data)
            if image_stamp_ns is None:
                continue  # too short for any image: nothing that a node could take
            self._image = image
            self._send(image)
            if image_stamp_ns == stamp_ns:
                return True
        return False

    def repeat(self) -> None:
        """Publish the image once more: it, or what came of it, may have been lost."""
        if self._image is not None:
            self._bag_publishers[self._image.topic].publish(self._image.data)

    def _next_image(self) -> RecordedMessage | None:
        """Publish what comes before the next image, and the camera_info that comes with it."""
        while True:
            message = self._ahead.popleft() if self._ahead else next(self._messages, None)
            if message is None:
                return None
            if message.topic == self._topics.image:
                self._send_infos_until_next_image()
                return message
            self._send(message)

    def _send_infos_until_next_image(self) -> None:
        while not self._ahead or self._ahead[-1].topic != self._topics.image:
            message = next(self._messages, None)
            if message is None:
                break
            if message.topic != self._topics.camera_info:
                self._ahead.append(message)
                continue
            publisher: Any = self._bag_publishers[message.topic]
            publisher.publish(message.data)
            # A reliable subscriber has it before the image comes.
            wait_for_delivery([publisher])
