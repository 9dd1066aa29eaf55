# SPDX-License-Identifier: Apache-2.0
"""Bags played over real topics: the same bytes, the same stamps, the clock, and damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy')
from rclpy.qos import DurabilityPolicy, qos_profile_sensor_data, QoSProfile
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

pytestmark = pytest.mark.ros

START_NS = 1_700_000_000_000_000_000
STEP_NS = 50_000_000
STORES = pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])


def latched_profile() -> Qos:
    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
        forever, forever, QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip


def write_bag(path: Path, storage: StoragePlugin, count: int = 10) -> list[tuple[str, int, bytes]]:
    """Write images, a latched string and a type that nobody has; return what was written."""
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg('int32 answer', 'nobody_msgs/msg/Unknown'))
    types = store.types
    written = []
    random = np.random.default_rng(5)
    with Writer(path, version=9, storage_plugin=storage) as writer:
        image_topic = writer.add_connection(
            '/eye/image_raw', 'sensor_msgs/msg/Image', typestore=store
        )
        label_topic = writer.add_connection(
            '/labels', 'std_msgs/msg/String', typestore=store,
            offered_qos_profiles=[latched_profile()],
        )  # fmt: skip
        unknown_topic = writer.add_connection(
            '/unknown', 'nobody_msgs/msg/Unknown', typestore=store
        )

        def write(connection: Any, stamp_ns: int, message: Any) -> None:
            data = bytes(store.serialize_cdr(message, connection.msgtype))
            writer.write(connection, stamp_ns, data)
            written.append((connection.topic, stamp_ns, data))

        write(label_topic, START_NS, types['std_msgs/msg/String']('wall, floor'))
        for index in range(count):
            # Taken 7 ms before it was recorded, as a real camera's.
            taken = START_NS + index * STEP_NS - 7_000_000
            stamp = types['builtin_interfaces/msg/Time'](taken // 10**9, taken % 10**9)
            header = types['std_msgs/msg/Header'](stamp, 'eye')
            data = random.integers(0, 256, 40 * 30 * 3, np.uint8)
            message = types['sensor_msgs/msg/Image'](header, 30, 40, 'rgb8', 0, 120, data)
            write(image_topic, START_NS + index * STEP_NS, message)
            write(
                unknown_topic, START_NS + index * STEP_NS,
                types['nobody_msgs/msg/Unknown'](index),
            )  # fmt: skip
    return written


def assert_same(heard: list[bytes], sent: list[bytes]) -> None:
    """Compare CDR bytes; DDS pads each payload to a multiple of four bytes."""
    assert len(heard) == len(sent)
    for received, original in zip(heard, sent):
        assert received[: len(original)] == original
        assert received[len(original) :] == bytes(-len(original) % 4)


@STORES
def test_bytes_stamps_clock_and_latched_topics(
    storage: StoragePlugin, tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    written = write_bag(tmp_path / 'bag', storage)
    raw = listener.subscribe(Image, '/eye/image_raw', raw=True)
    clock = listener.subscribe(Clock, '/clock', 100)
    camera = start_command('camera', f'bag:{tmp_path}/bag', '--wait', 20)
    images = [data for topic, _, data in written if topic == '/eye/image_raw']
    labels = [data for topic, _, data in written if topic == '/labels']
    listener.spin_until(lambda: len(raw) == 3, 30, [camera])
    # Somebody who comes late still hears what was latched.
    keeping = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    late = listener.subscribe(String, '/labels', keeping, raw=True)
    listener.spin_until(lambda: len(raw) == len(images) and late, 30, [camera])
    assert camera.wait(10) == 0
    listener.spin_for(0.3)
    assert_same(raw, images)
    assert_same(late, labels)
    assert 'not played' in camera.output
    assert camera.output.count('/unknown (nobody_msgs/msg/Unknown)') == 1
    times = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    assert set(range(START_NS + STEP_NS, START_NS + 10 * STEP_NS, STEP_NS)) <= set(times)
    assert np.all(np.diff(times) > 0)
    # 50 ms between messages: the clock also runs in between.
    assert len(times) > 20


def test_rate_is_a_factor_and_loop_begins_again(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    write_bag(tmp_path / 'bag', StoragePlugin.MCAP)
    times: list[float] = []
    images: list[Image] = []

    def receive(message: Image) -> None:
        images.append(message)
        times.append(time.monotonic())

    listener.node.create_subscription(Image, '/eye/image_raw', receive, 10)
    camera = start_command('camera', f'bag:{tmp_path}/bag', '--rate', 0.5, '--loop', '--wait', 20)
    listener.spin_until(lambda: len(images) == 12, 30, [camera])
    assert camera.interrupt() == 0
    taken = [message.header.stamp for message in images]
    stamps = [stamp.sec * 10**9 + stamp.nanosec for stamp in taken]
    expected = [START_NS - 7_000_000 + index % 10 * STEP_NS for index in range(12)]
    assert stamps == expected
    # Nine intervals of 50 ms at half the pace.
    assert times[9] - times[0] == pytest.approx(0.9, rel=0.15)


@STORES
def test_a_truncated_bag_is_played_as_far_as_it_goes(
    storage: StoragePlugin, tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    written = write_bag(tmp_path / 'bag', storage, count=900)
    (file,) = (entry for entry in (tmp_path / 'bag').iterdir() if entry.suffix != '.yaml')
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])
    raw = listener.subscribe(
        Image, '/eye/image_raw', QoSProfile(depth=1000), raw=True
    )
    camera = start_command('camera', f'bag:{tmp_path}/bag', '--rate', 20, '--wait', 20)
    listener.spin_until(lambda: camera.process.poll() is not None or len(raw) > 899, 30)
    listener.spin_for(0.5)
    images = [data for topic, _, data in written if topic == '/eye/image_raw']
    assert camera.wait(1) == 1
    assert 100 < len(raw) < 900
    assert_same(raw, images[: len(raw)])
    # The account: what was read and what of each topic is lost.
    assert f'bag {tmp_path}/bag is damaged: {file}' in camera.output
    assert ' of 1801 messages; lost ' in camera.output
    assert f'{900 - len(raw)} of /eye/image_raw' in camera.output
    assert 'Traceback' not in camera.output


def test_a_part_of_a_split_bag_that_is_missing_is_said(
    tmp_path: Path, start_command: Callable[..., Any]
) -> None:
    write_bag(tmp_path / 'bag', StoragePlugin.MCAP)
    metadata = tmp_path / 'bag' / 'metadata.yaml'
    text = metadata.read_text()
    assert 'message_count: 10' in text
    metadata.write_text(text.replace('message_count: 10', 'message_count: 25'))
    camera = start_command('camera', f'bag:{tmp_path}/bag', '--rate', 100, '--wait', 0)
    assert camera.wait(30) == 1
    assert 'lost 15 of /eye/image_raw, 15 of /unknown' in camera.output


@pytest.mark.parametrize('name', ['song.mp3', 'old.bag', 'folder', 'lie.mcap'])
def test_what_is_no_bag_is_refused(
    name: str, tmp_path: Path, start_command: Callable[..., Any]
) -> None:
    path = tmp_path / name
    if name == 'folder':
        path.mkdir()
    else:
        path.write_bytes(b'#ROSBAG V2.0\n' + bytes(1000))
    camera = start_command('camera', f'bag:{path}', '--wait', 0)
    assert camera.wait(30) == 1
    assert str(path) in camera.output
    assert 'Traceback' not in camera.output


@pytest.mark.realdata
def test_the_real_kitchen_comes_through_byte_for_byte(
    sample_data: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    from rosbags.highlevel import AnyReader

    kinds = {
        '/camera/color/image_raw/compressed': CompressedImage,
        '/camera/color/camera_info': CameraInfo,
        '/camera/aligned_depth_to_color/image_raw': Image,
    }
    path = sample_data / 'bags' / 'kitchen_val'
    with AnyReader([path]) as reader:
        wanted: dict[str, list[bytes]] = {topic: [] for topic in kinds}
        for connection, _, data in reader.messages():
            if connection.topic in wanted:
                wanted[connection.topic].append(bytes(data))
    heard = {
        topic: listener.subscribe(kind, topic, 100, raw=True) for topic, kind in kinds.items()
    }
    camera = start_command('camera', f'bag:{path}', '--rate', 2, '--wait', 20)
    listener.spin_until(
        lambda: all(len(messages) == 70 for messages in heard.values()), 30, [camera]
    )
    assert camera.wait(10) == 0
    for topic in kinds:
        assert_same(heard[topic], wanted[topic])


def test_sensor_data_subscribers_hear_a_bag(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    write_bag(tmp_path / 'bag', StoragePlugin.MCAP)
    images = listener.subscribe(Image, '/moved', qos_profile_sensor_data)
    clock = listener.subscribe(Clock, '/clock', 100)
    camera = start_command(
        'camera', f'bag:{tmp_path}/bag', '--rate', 10, '--wait', 20,
        '--ros-args', '-r', '/eye/image_raw:=/moved',
    )  # fmt: skip
    listener.spin_until(lambda: len(images) == 10, 30, [camera])
    assert camera.wait(10) == 0
    listener.spin_for(0.3)
    end = clock[-1].clock.sec * 10**9 + clock[-1].clock.nanosec
    assert end == START_NS + 9 * STEP_NS


def test_the_clock_keeps_up_with_a_player_that_is_late(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    write_bag(tmp_path / 'bag', StoragePlugin.MCAP)
    images = listener.subscribe(Image, '/eye/image_raw')
    clock = listener.subscribe(Clock, '/clock', 100)
    # A million times too fast: every message is late when it is read.
    camera = start_command('camera', f'bag:{tmp_path}/bag', '--rate', 1e6, '--wait', 20)
    assert camera.wait(40) == 0
    listener.spin_for(0.5)
    times = {message.clock.sec * 10**9 + message.clock.nanosec for message in clock}
    assert times == {START_NS + index * STEP_NS for index in range(10)}
    assert images
