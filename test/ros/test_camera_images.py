# SPDX-License-Identifier: Apache-2.0
"""The camera node over real topics, with pictures, videos and calibrations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import time
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy')
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

pytestmark = pytest.mark.ros


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (32, 24)) -> list[Any]:
    """Write PNG files of noise, which survive unchanged, and return them as RGB."""
    folder.mkdir()
    random = np.random.default_rng(3)
    pictures = [random.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(count)]
    for index, picture in enumerate(pictures):
        assert cv2.imwrite(str(folder / f'{index:03d}.png'), picture[..., ::-1])
    return pictures


def pixels(message: Image) -> np.ndarray:
    assert message.encoding == 'rgb8'
    assert message.step == message.width * 3
    return np.array(message.data, np.uint8).reshape(message.height, message.width, 3)


def stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_pictures_arrive_in_order_and_unchanged(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    pictures = write_pictures(tmp_path / 'pictures', 6)
    (tmp_path / 'pictures' / 'notes.txt').write_text('no picture')
    images = listener.subscribe(Image, 'camera/image_raw')
    infos = listener.subscribe(CameraInfo, 'camera/camera_info')
    before_ns = time.time_ns()
    camera = start_command('camera', f'images:{tmp_path}/pictures', '--rate', 20, '--wait', 20)
    listener.spin_until(lambda: len(images) == 6 and len(infos) == 6, 30, [camera])
    assert camera.wait(10) == 0
    for message, info, picture in zip(images, infos, pictures):
        np.testing.assert_array_equal(pixels(message), picture)
        assert message.header == info.header
        assert message.header.frame_id == 'camera_color_optical_frame'
        # Nobody gave a calibration: all matrices are zero (sensor_msgs/CameraInfo).
        assert (info.width, info.height) == (32, 24)
        assert not any([*info.k, *info.d, *info.r, *info.p])
    stamps = [stamp_ns(message) for message in images]
    assert before_ns < stamps[0]
    assert stamps[-1] < time.time_ns()
    # 20 Hz: on a loaded machine a frame may be late, and the next one then comes sooner after
    # it; none is ahead of the pace, counted from the first.
    due = np.arange(len(stamps)) * 0.05e9
    np.testing.assert_array_less(due - 0.005e9, np.array(stamps) - stamps[0])


def test_a_best_effort_subscriber_hears_it_too(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    write_pictures(tmp_path / 'pictures', 3)
    images = listener.subscribe(Image, 'camera/image_raw', qos_profile_sensor_data)
    camera = start_command('camera', f'images:{tmp_path}/pictures', '--loop', '--rate', 20)
    listener.spin_until(lambda: len(images) > 3, 30, [camera])
    assert camera.process.poll() is None  # --loop goes on
    assert camera.interrupt() == 0


def test_field_of_view_scaled_size_namespace_and_remap(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    write_pictures(tmp_path / 'pictures', 1, (64, 32))
    images = listener.subscribe(Image, '/robot/eye/image_raw')
    infos = listener.subscribe(CameraInfo, '/robot/camera/camera_info')
    camera = start_command(
        'camera', f'images:{tmp_path}/pictures', '--fov-deg', 90, '--size', '32x32', '--wait', 20,
        '--ros-args', '-r', '__ns:=/robot', '-r', 'camera/image_raw:=eye/image_raw',
        '-p', 'frame_id:=eye_optical_frame',
    )  # fmt: skip
    listener.spin_until(lambda: images and infos, 30, [camera])
    assert images[0].header.frame_id == 'eye_optical_frame'
    assert (images[0].width, images[0].height) == (32, 32)
    # 90 degrees across 64 pixels: f = 32; the width is halved, the height is not.
    np.testing.assert_allclose(infos[0].k, [16, 0, 15.5, 0, 32, 15.5, 0, 0, 1])
    np.testing.assert_allclose(infos[0].p, [16, 0, 15.5, 0, 0, 32, 15.5, 0, 0, 0, 1, 0])
    assert (infos[0].width, infos[0].height) == (32, 32)


CALIBRATION = {
    'image_width': 32,
    'image_height': 24,
    'camera_name': 'test',
    'camera_matrix': {'rows': 3, 'cols': 3, 'data': [30.0, 0, 15, 0, 31.0, 12, 0, 0, 1]},
    'distortion_model': 'plumb_bob',
    'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.1, -0.2, 0.01, 0.02, 0.0]},
    'rectification_matrix': {'rows': 3, 'cols': 3, 'data': [1.0, 0, 0, 0, 1, 0, 0, 0, 1]},
    'projection_matrix': {
        'rows': 3, 'cols': 4, 'data': [28.0, 0, 14, 0, 0, 29, 11, 0, 0, 0, 1, 0],
    },
}  # fmt: skip


def test_a_calibration_file_comes_out_as_it_is(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    write_pictures(tmp_path / 'pictures', 1)
    (tmp_path / 'camera.yaml').write_text(yaml.safe_dump(CALIBRATION))
    infos = listener.subscribe(CameraInfo, 'camera/camera_info')
    camera = start_command(
        'camera', f'images:{tmp_path}/pictures', '--camera-info', tmp_path / 'camera.yaml',
        '--loop',
    )  # fmt: skip
    listener.spin_until(lambda: infos, 30, [camera])
    info = infos[0]
    assert info.distortion_model == 'plumb_bob'
    for field, key in (
        ('k', 'camera_matrix'),
        ('d', 'distortion_coefficients'),
        ('r', 'rectification_matrix'),
        ('p', 'projection_matrix'),
    ):
        np.testing.assert_array_equal(getattr(info, field), CALIBRATION[key]['data'])


def test_a_video_plays_once_at_its_own_rate(
    tmp_path: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    greys = (20, 80, 140, 200)
    for grey in greys:
        writer.write(np.full((48, 64, 3), (grey, 0, 255 - grey), np.uint8))  # BGR
    writer.release()
    images = listener.subscribe(Image, 'camera/image_raw')
    camera = start_command('camera', f'video:{path}', '--wait', 20)
    listener.spin_until(lambda: len(images) == 4, 30, [camera])
    assert camera.wait(10) == 0
    for message, grey in zip(images, greys):
        # Motion JPEG loses a little.
        assert np.abs(pixels(message).mean((0, 1)) - (255 - grey, 0, grey)).max() < 4
    intervals = np.diff([stamp_ns(message) for message in images]) * 1e-9
    assert np.all(intervals > 0.095)


@pytest.mark.parametrize(
    ('arguments', 'code', 'complaint'),
    [
        (['video:/nowhere.mp4'], 1, 'video:/nowhere.mp4 is not a file'),
        (['images:/nowhere'], 1, 'images:/nowhere is not a folder'),
        (['bag:/nowhere'], 1, 'there is no bag at /nowhere'),
        (['device:97'], 1, 'device:97 cannot be opened'),
        (['telepathy'], 1, "'telepathy' names no camera source: use rooms, video:PATH"),
        (['rooms', '--rate', '0'], 2, '0 is not a positive number'),
        (['rooms', '--fov-deg', '70'], 2, 'rooms have a camera of their own'),
        (['bag:/nowhere', '--size', '64x48'], 2, 'a bag is played as it was recorded'),
        (['rooms', '--size', '64'], 2, "'64' is not a size such as 640x480"),
        (['images:.', '--camera-info', '/nowhere.yaml'], 1, 'No such file'),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    start_command: Callable[..., Any], arguments: list[str], code: int, complaint: str
) -> None:
    camera = start_command('camera', *arguments)
    assert camera.wait(30) == code
    assert complaint in camera.output
    assert 'Traceback' not in camera.output
