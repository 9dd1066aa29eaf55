# SPDX-License-Identifier: Apache-2.0
"""Frames that lie, cameras without sense, too many frames: the node names them and goes on."""

from __future__ import annotations

from collections.abc import Callable
import re
import time
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')

# test_codec.py holds the words that each of them is refused with.
BAD_IMAGES: list[dict[str, Any]] = [
    {'encoding': 'rgb9'},
    {'encoding': '32FC1', 'width': 16, 'step': 192},
    {'encoding': ''},
    {'step': 100},
    {'step': 4000},
    {'height': 49},
    {'height': 47},
    {'width': 100000},
    {'height': 0, 'data': b''},
    {'width': 0, 'step': 0, 'data': b''},
    {'data': b''},
    {'encoding': 'bayer_rggb8', 'step': 3},
    {'encoding': 'yuv422', 'step': 100},
]


def test_frames_that_lie_are_counted_and_survived(start_perception: Callable[..., Any]) -> None:
    from array import array

    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image

    perception = start_perception()
    labels = perception.subscribe(Image, 'semantic/image_raw')
    perception.send_until(lambda: len(labels) >= 3)
    for fields in BAD_IMAGES * 3:
        values = {
            name: array('B', value) if name == 'data' else value for name, value in fields.items()
        }
        perception.camera.images.publish(perception.camera.image(**values))
        perception.listener.spin_for(0.03)
    # Cut off on the wire, or from before 1970.
    whole = serialize_message(perception.camera.image())
    for length in (8, 20, 30, len(whole) - 10):
        perception.camera.images.publish(whole[:length])
        perception.listener.spin_for(0.03)
    image = perception.camera.image()
    image.header.stamp.sec = -5
    perception.camera.images.publish(image)
    before = len(labels)
    perception.send_until(lambda: len(labels) > before + 3)
    perception.next_status()
    counts = {
        name: int(perception.values[name])
        for name in ('received', 'processed', 'dropped', 'refused')
    }
    assert counts['received'] == counts['processed'] + counts['dropped'] + counts['refused']
    assert counts['processed'] == len(labels)
    # One of a kind may be lost on the way or dropped for the next; never all three.
    assert counts['refused'] >= len(BAD_IMAGES)
    # No good frame is refused; one of them may be dropped for the next.
    assert counts['refused'] <= 3 * len(BAD_IMAGES) + 1
    assert perception.process.process.poll() is None
    assert 'Traceback' not in perception.process.output


def test_a_refusal_is_logged_at_most_once_a_second(start_perception: Callable[..., Any]) -> None:
    from sensor_msgs.msg import Image

    perception = start_perception()
    labels = perception.subscribe(Image, 'semantic/image_raw')
    perception.send_until(lambda: labels)
    end = time.monotonic() + 3.3
    while time.monotonic() < end:
        perception.camera.images.publish(perception.camera.image(encoding='rgb9'))
        perception.listener.spin_for(0.02)
    status = perception.status
    assert status.level == b'\x02'
    assert status.message.startswith('every frame is refused: ')
    assert int(perception.values['refused']) > 40
    pattern = r'\[WARN\] \[(\d+\.\d+)\] \[mtl_perception\]: frame refused: .*rgb9'
    stamps = [float(one) for one in re.findall(pattern, perception.process.output)]
    assert 3 <= len(stamps) <= 5
    assert min(np.diff(stamps)) > 0.99


@pytest.mark.parametrize(
    ('k', 'named'),
    [
        (None, 'no camera_info on /camera_info'),
        ([0.0] * 9, 'not calibrated'),
        ([float('nan'), 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0], 'finite'),
    ],
    ids=['absent', 'zero', 'nan'],
)
def test_without_a_usable_camera_labels_flow_and_depth_waits(
    start_perception: Callable[..., Any], k: list[float] | None, named: str
) -> None:
    from sensor_msgs.msg import Image, PointCloud2

    perception = start_perception()
    camera = perception.camera
    labels = perception.subscribe(Image, 'semantic/image_raw')
    normals = perception.subscribe(Image, 'normals/image_raw')
    depths = perception.subscribe(Image, 'depth/image_rect')
    clouds = perception.subscribe(PointCloud2, 'points')

    def flows() -> bool:
        image = camera.image()
        if k is not None:
            camera.infos.publish(camera.info(image.header, k=k))
        camera.images.publish(image)
        perception.listener.spin_for(0.05)
        return len(labels) >= 10 and len(normals) >= 10 and bool(perception.diagnostics)

    perception.listener.spin_until(flows, 20, [perception.process])
    assert not depths
    assert not clouds
    lines = [one for one in perception.process.output.splitlines() if 'no metric depth' in one]
    assert len(lines) == 1
    assert '[WARN]' in lines[0]
    assert named in lines[0]
    status = perception.next_status(skip=0)
    assert perception.values['refused'] == '0'
    assert (status.level, named in status.message) == (b'\x01', True)
    # A good camera_info, and depth flows at once.
    perception.send_until(lambda: depths and clouds)


def test_an_assumed_focal_length_gives_depth(start_perception: Callable[..., Any]) -> None:
    from sensor_msgs.msg import CameraInfo, Image

    perception = start_perception('-p', 'assume_focal_px:=100.0')
    depths = perception.subscribe(Image, 'depth/image_rect')
    infos = perception.subscribe(CameraInfo, 'depth/camera_info')
    image = perception.camera.image(np.full((48, 64, 3), 64, np.uint8))

    def send() -> bool:
        perception.camera.images.publish(image)
        perception.listener.spin_for(0.05)
        return bool(depths and infos)

    perception.listener.spin_until(send, 20, [perception.process])
    # Twice the reference focal length: everything is twice as far as (0.5 + 64 / 64) m.
    depth = np.frombuffer(bytes(depths[-1].data), np.float32)
    np.testing.assert_allclose(depth, 3.0, rtol=1e-6)
    assert list(infos[-1].k) == [100.0, 0, 31.5, 0, 100.0, 23.5, 0, 0, 1]
    told = len(perception.diagnostics)
    perception.listener.spin_until(
        lambda: send() and len(perception.diagnostics) >= told + 2, 20, [perception.process]
    )
    assert perception.status.level == b'\x00', perception.status.message
    assert 'assumed focal length' not in perception.process.output

    # A camera_info that is there but of no use is told, while depth goes on.
    camera = perception.camera
    nan = float('nan')
    for height, k, named in (
        (48, [nan, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0], 'finite'),
        (240, [50.0, 0.0, 31.5, 0.0, 50.0, 23.5, 0.0, 0.0, 1.0], 'describes 64x240'),
    ):
        depths.clear()

        def unusable(
            height: int = height, k: list[float] = k, named: str = named
        ) -> bool:
            camera.infos.publish(camera.info(image.header, height, k=k))
            send()
            return bool(depths) and named in perception.status.message

        perception.listener.spin_until(unusable, 20, [perception.process])
        assert perception.status.level == b'\x01'
        words = 'depth by the assumed focal length of 100 px: '
        assert perception.status.message.startswith(words)
    lines = [
        line for line in perception.process.output.splitlines()
        if 'depth and cloud by the assumed focal length of 100 px: camera_info' in line
    ]  # fmt: skip
    assert len(lines) == 1
    assert '[WARN]' in lines[0]


def test_the_resolution_may_change_in_mid_stream(start_perception: Callable[..., Any]) -> None:
    from sensor_msgs.msg import Image, PointCloud2

    perception = start_perception()
    camera = perception.camera
    labels = perception.subscribe(Image, 'semantic/image_raw')
    clouds = perception.subscribe(PointCloud2, 'points')
    perception.send_until(lambda: clouds and clouds[-1].height == 48)

    # The image changes first; its camera_info still tells of the old size.
    clouds.clear()
    old = camera.info(camera.header())

    def small() -> bool:
        image = camera.image(camera.picture(24, 32))
        camera.send(image, old)
        perception.listener.spin_for(0.05)
        return sum(one.height == 24 for one in labels) >= 5

    perception.listener.spin_until(small, 10, [perception.process])
    assert not [one for one in clouds if one.height == 24]
    assert 'the image is 32x24 but camera_info on /camera_info describes 64x48' in (
        perception.process.output
    )

    def matching() -> bool:
        camera.send(camera.image(camera.picture(24, 32)))
        perception.listener.spin_for(0.05)
        return any((one.height, one.width) == (24, 32) for one in clouds)

    perception.listener.spin_until(matching, 10, [perception.process])
    perception.send_until(lambda: clouds[-1].height == 48)
    assert perception.next_status().level == b'\x00'
    assert perception.values['refused'] == '0'


def test_five_times_too_many_frames_stay_fresh(start_perception: Callable[..., Any]) -> None:
    from sensor_msgs.msg import Image

    engine_ms, frames = 200, 125
    perception = start_perception(FAKE_ENGINE_MS=engine_ms)
    listener, camera = perception.listener, perception.camera
    ages: list[float] = []
    labels: list[Any] = []

    def hear(message: Any) -> None:
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        ages.append((listener.node.get_clock().now().nanoseconds - stamp) / 1e6)
        labels.append(message)

    listener.node.create_subscription(Image, 'semantic/image_raw', hear, 10)
    perception.send_until(lambda: labels)
    ages.clear()
    start = time.monotonic()
    for number in range(frames):
        listener.spin_for(max(0.0, start + number * engine_ms / 5e3 - time.monotonic()))
        camera.send()
    elapsed_ms = (time.monotonic() - start) * 1e3
    listener.spin_for(2 * engine_ms / 1e3)
    perception.next_status()
    values = {
        name: float(value)
        for name, value in perception.values.items()
        if re.fullmatch(r'[\d.]+', value)
    }
    # Each frame that came in has exactly one fate, and each processed one came out.
    assert values['received'] == values['processed'] + values['dropped'] + values['refused']
    assert values['in_flight'] == values['refused'] == 0
    assert values['processed'] == len(labels)
    # DDS itself may overwrite a frame in the subscription's slot of one before it is taken.
    assert values['received'] + values['unheard'] <= len(camera.sent)
    assert values['dropped'] > values['processed']
    processing_ms = sum(
        values[f'{stage}_ms']
        for stage in ('decode', 'fit', 'engine', 'finish', 'cloud', 'publish')
    )
    assert len(ages) > 0.7 * elapsed_ms / processing_ms
    # A queue would be 20 s old by now.
    assert np.percentile(ages, 95) < 2 * processing_ms
