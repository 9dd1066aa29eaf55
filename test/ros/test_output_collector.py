# SPDX-License-Identifier: Apache-2.0
"""What a live replay keeps of the node's outputs, and why it says that there are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
from mtl_perception.ros import live_replay, output_collector
from mtl_perception.ros.errors import RosError
from mtl_perception.ros.live_node import LiveOptions
from mtl_perception.ros.live_replay import LivePerception
from mtl_perception.ros.output_collector import OutputCollector
from mtl_perception.tasks import Task

pytestmark = pytest.mark.ros

TOPICS = frozenset({'depth/image_rect', 'depth/camera_info'})


class FakeNode:
    """Hands the callbacks of its subscriptions to the test."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[bytes], None]] = {}

    def resolve_topic_name(self, topic: str) -> str:
        return f'/{topic}'

    def create_subscription(
        self, kind: Any, topic: str, callback: Callable[[bytes], None], *_: Any, **__: Any
    ) -> Any:
        self.callbacks[topic] = callback
        return self


class Outputs:
    """A collector and a node's outputs that the test sends by hand."""

    def __init__(self) -> None:
        self._node: Any = FakeNode()
        self.collector = OutputCollector(self._node, [Task('depth', 'depth')])
        assert set(self._node.callbacks) == TOPICS

    def come(self, stamp: int, *topics: str, size: int = 20) -> None:
        """A CDR message is a header of 4 bytes, then seconds and nanoseconds."""
        data = bytes([0, 1, 0, 0]) + np.array([0, stamp], '<i4').tobytes() + bytes(size - 12)
        for topic in topics or TOPICS:
            self._node.callbacks[topic](data)

    def there(self, stamp: int) -> bool:
        return not self.collector.wait(stamp, TOPICS, 0.0)


@pytest.fixture
def outputs() -> Outputs:
    return Outputs()


def test_what_came_after_a_jump_back_is_kept(outputs: Outputs) -> None:
    for stamp in (100, 200, 10, 20):
        outputs.come(stamp)
    outputs.collector.forget(200)
    assert [outputs.there(stamp) for stamp in (100, 200, 10, 20)] == [False, False, True, True]
    outputs.collector.forget(10)
    assert [outputs.there(stamp) for stamp in (10, 20)] == [False, True]


def test_a_frame_is_overtaken_by_what_comes_later_whatever_its_stamp(outputs: Outputs) -> None:
    outputs.come(10)
    time.sleep(0.05)
    outputs.come(20, 'depth/image_rect')
    assert outputs.collector.overtaken_s(200) >= 0.05  # 200 never came
    assert 0 < outputs.collector.overtaken_s(10) < 0.05
    assert outputs.collector.overtaken_s(20) == 0
    outputs.collector.forget(200)
    outputs.come(200)  # too late: nobody waits for it, and it overtakes nothing
    assert outputs.collector.overtaken_s(20) == 0


def test_only_frames_without_room_were_let_go(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_collector, '_LIMIT_BYTES', 100)
    outputs.come(1)
    outputs.come(2, size=90)
    outputs.collector.forget(1)
    outputs.come(3)
    found = [outputs.collector.was_let_go(stamp) for stamp in (1, 2, 3)]
    assert found == [False, True, False]
    assert outputs.there(3)
    outputs.collector.forget(2)
    assert not outputs.collector.was_let_go(2)


def test_latency_is_from_the_image_to_the_last_output(outputs: Outputs) -> None:
    assert outputs.collector.latency_ms(5) is None
    outputs.collector.note_sent(5)
    time.sleep(0.1)
    outputs.come(5, 'depth/image_rect')
    time.sleep(0.1)
    outputs.come(5, 'depth/camera_info')
    time.sleep(0.3)  # the evaluator comes late
    assert outputs.collector.latency_ms(5) == pytest.approx(200, abs=80)


def test_a_message_without_a_header_is_no_output(outputs: Outputs) -> None:
    for data in (b'', b'\0\1\0\0', bytes(11)):
        outputs._node.callbacks['depth/image_rect'](data)
    assert outputs.collector.overtaken_s(1) == 0


@pytest.fixture
def live(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> LivePerception:
    """A live replay at a rate that has just been started, without its node."""
    monkeypatch.setattr(live_replay, '_OVERTAKEN_S', 0.1)
    one = object.__new__(LivePerception)
    one._collector, one._ended, one._process = outputs.collector, Event(), None
    one._options = LiveOptions(timeout_s=0.2)
    one._log = Path('live.log')
    return one


def why(live: LivePerception, stamp: int) -> str:
    with pytest.raises(RosError) as refused:
        live._await(stamp, TOPICS)
    return str(refused.value)


def test_a_dropped_frame_is_called_so_even_after_the_end_of_the_bag(
    live: LivePerception, outputs: Outputs
) -> None:
    live._ended.set()
    outputs.come(2)
    assert why(live, 1) == 'dropped: the node was busy with other frames'


def test_a_frame_that_nothing_came_of_is_waited_for_after_the_end_of_the_bag(
    live: LivePerception, outputs: Outputs
) -> None:
    live._ended.set()
    assert 'no outputs came within 0.2 s of the end of the bag' in why(live, 1)
    outputs.come(3, 'depth/image_rect')
    assert why(live, 3) == 'outputs were lost on the way: depth/camera_info'


def test_what_was_let_go_is_said_of_that_frame_alone(
    live: LivePerception, outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_collector, '_LIMIT_BYTES', 100)
    outputs.come(9)
    outputs.come(1, size=90)
    assert 'let go at 1 GiB' in why(live, 1)
    assert why(live, 2).startswith('dropped')
