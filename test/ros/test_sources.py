# SPDX-License-Identifier: Apache-2.0
"""Sources without topics: pictures, an unplugged camera, calibrations, the DDS profile."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
import shutil
from types import SimpleNamespace
from typing import Any
import xml.etree.ElementTree as ElementTree

import cv2
from hypothesis import given
from hypothesis import strategies as st
from mtl_perception.calibration_file import load_calibration
from mtl_perception.camera import CameraError
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.ros import dds
from mtl_perception.ros.arguments import split_ros_arguments
from mtl_perception.ros.errors import RosError
from mtl_perception.ros.sources import open_source, SourceOptions
import mtl_perception.ros.sources.device as device_module
from mtl_perception.ros.sources.device import DeviceSource
import numpy as np
import pytest
import yaml


def picture(value: int, width: int = 8, height: int = 6) -> Any:
    return np.full((height, width, 3), (value, value + 1, value + 2), np.uint8)  # BGR


def test_a_picture_that_cannot_be_decoded_is_named_and_passed_over(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'b.png'), picture(20))
    cv2.imwrite(str(tmp_path / 'a.png'), picture(10))
    (tmp_path / 'aa.jpg').write_bytes(b'\xff\xd8 cut off')
    told: list[str] = []
    with open_source(f'images:{tmp_path}', SourceOptions(), told.append) as source:
        frames = list(source.frames())
    assert [sample.name for sample in frames] == ['a', 'b']
    assert frames[0].image[0, 0].tolist() == [12, 11, 10]  # RGB
    assert told == [f'picture {tmp_path}/aa.jpg cannot be decoded and is passed over']


def test_a_folder_without_a_whole_picture_is_an_error_even_when_looping(tmp_path: Path) -> None:
    (tmp_path / 'a.jpg').write_bytes(b'cut off')
    source = open_source(f'images:{tmp_path}', SourceOptions(loop=True), lambda text: None)
    with source, pytest.raises(RosError, match='no picture that can be decoded'):
        list(source.frames())


def test_a_looping_video_begins_again(tmp_path: Path) -> None:
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (64, 48))
    for value in (0, 100, 200):
        writer.write(picture(value, 64, 48))
    writer.release()
    with open_source(f'video:{path}', SourceOptions(loop=True), print) as source:
        assert source.rate_hz == 25
        frames = list(itertools.islice(source.frames(), 7))
    means = [float(sample.image.mean()) for sample in frames]
    np.testing.assert_allclose(means, [1, 101, 201, 1, 101, 201, 1], atol=3)


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'video.mp4').write_bytes(bytes(1000))
    with pytest.raises(RosError, match='cannot be opened: OpenCV knows neither'):
        open_source(f'video:{tmp_path}/video.mp4', SourceOptions(), print)


class Camera:
    """Stands for cv2.VideoCapture of a camera that is unplugged after its second frame."""

    def __init__(self, frames: list[Any] | None) -> None:
        self._frames = frames
        self.settings: dict[int, float] = {}

    def isOpened(self) -> bool:
        return self._frames is not None

    def set(self, key: int, value: float) -> None:
        self.settings[key] = value

    def read(self) -> tuple[bool, Any]:
        if not self._frames:
            return False, None
        return True, self._frames.pop(0)

    def release(self) -> None:
        self._frames = None


def test_an_unplugged_camera_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(device_module, 'time', SimpleNamespace(sleep=waits.append))
    plugged = [Camera([picture(10), picture(20)]), Camera(None), Camera([picture(30)])]
    opened: list[Camera] = []

    def open_camera(index: int) -> Camera:
        assert index == 2
        opened.append(plugged.pop(0))
        return opened[-1]

    told: list[str] = []
    options = SourceOptions(size=(8, 6))
    with DeviceSource(2, options, told.append, open_camera) as source:
        frames = list(itertools.islice(source.frames(), 5))
    values = [None if sample is None else int(sample.image[0, 0, 2]) for sample in frames]
    assert values == [10, 20, None, None, 30]
    assert waits == [device_module.RETRY_S] * 2
    assert told.count('device:2 gives no frame; trying to open it again') == 2
    assert told[-1] == 'device:2 is back'
    assert opened[0].settings[cv2.CAP_PROP_FRAME_WIDTH] == 8
    assert opened[0].settings[cv2.CAP_PROP_BUFFERSIZE] == 1


@given(
    st.integers(2, 2000), st.integers(2, 2000), st.floats(1, 179),
    st.integers(2, 2000), st.integers(2, 2000),
)  # fmt: skip
def test_the_field_of_view_spans_the_image(
    width: int, height: int, fov_deg: float, new_width: int, new_height: int
) -> None:
    camera = SourceOptions(fov_deg=fov_deg).camera(width, height)
    assert camera is not None
    scaled = camera.scaled(new_width, new_height)
    # The rays through the left and right border of the image enclose the angle, at any size.
    for model in (camera, scaled):
        left = math.atan2(model.cx + 0.5, model.fx)
        right = math.atan2(model.width - 0.5 - model.cx, model.fx)
        assert math.degrees(left + right) == pytest.approx(fov_deg)
        assert left == pytest.approx(right)
    assert camera.fx == camera.fy


def calibration(**changes: Any) -> dict[str, Any]:
    return {
        'image_width': 8,
        'image_height': 6,
        'camera_matrix': {'data': [5.0, 0, 3.5, 0, 5, 2.5, 0, 0, 1]},
        'distortion_model': 'plumb_bob',
        'distortion_coefficients': {'data': [0.0] * 5},
        'rectification_matrix': {'data': [1.0, 0, 0, 0, 1, 0, 0, 0, 1]},
        'projection_matrix': {'data': [5.0, 0, 3.5, 0, 0, 5, 2.5, 0, 0, 0, 1, 0]},
        **changes,
    }


@pytest.mark.parametrize(
    ('content', 'complaint'),
    [
        ('{', 'is not YAML'),
        ('just words', 'holds no fields'),
        ({'image_width': 8}, "lacks the field 'camera_matrix'"),
        (calibration(camera_matrix={'data': [1.0] * 8}), 'camera_matrix.data has 8 values'),
        (calibration(camera_matrix={'data': [0.0] * 9}), 'focal lengths'),
        (calibration(camera_matrix={'data': [math.nan] * 9}), 'must be finite'),
        (
            calibration(distortion_model='fish', distortion_coefficients={'data': [0.1] * 5}),
            "distortion model 'fish' is unknown",
        ),
        (calibration(image_width='wide'), 'cannot be used'),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(
    tmp_path: Path, content: Any, complaint: str
) -> None:
    file = tmp_path / 'camera.yaml'
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(CameraError, match=complaint) as caught:
        load_calibration(file)
    assert str(file) in str(caught.value)


def test_a_calibration_of_another_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'camera.yaml'
    file.write_text(yaml.safe_dump(calibration()))
    options = SourceOptions(calibration=load_calibration(file))
    assert options.sample(picture(1), 'one').camera == options.calibration
    with pytest.raises(RosError, match='the calibration is for 8x6 pixels but the source gives'):
        options.sample(picture(1, 16, 12), 'two')


@pytest.mark.parametrize('text', ['', 'room', 'video:', 'device:one', 'device:-1', 'bag'])
def test_what_names_no_source_is_refused(text: str) -> None:
    with pytest.raises(MtlPerceptionError, match='names no camera source'):
        open_source(text, SourceOptions(), print)


@pytest.mark.parametrize(
    ('argv', 'own', 'ros'),
    [
        ([], [], []),
        (['rooms', '--rate', '1'], ['rooms', '--rate', '1'], []),
        (
            ['rooms', '--ros-args', '-r', 'a:=b', '--', '--loop'],
            ['rooms', '--loop'],
            ['--ros-args', '-r', 'a:=b', '--'],
        ),
        (['--ros-args', '-p', 'x:=1'], [], ['--ros-args', '-p', 'x:=1']),
    ],
)
def test_ros_arguments_are_split_from_our_own(
    argv: list[str], own: list[str], ros: list[str]
) -> None:
    assert split_ros_arguments(argv) == (own, ros)


@pytest.mark.ros
def test_the_split_of_arguments_is_that_of_rclpy() -> None:
    utilities = pytest.importorskip('rclpy.utilities')
    for argv in (
        ['rooms', '--ros-args', '-r', 'a:=b', '--', '--loop'],
        ['a', '--ros-args', '-p', 'x:=1', '--', 'b', '--ros-args', '-p', 'y:=2'],
    ):
        assert split_ros_arguments(argv)[0] == utilities.remove_ros_args(['program', *argv])[1:]


SHARED_MEMORY_SIZES = {dds.LARGE_MESSAGES: 64 * 2**20, dds.SMALL_SHARED_MEMORY: 12 * 2**20}


@pytest.mark.parametrize('name', SHARED_MEMORY_SIZES)
def test_a_profile_has_room_for_a_cloud(name: str) -> None:
    names = {'dds': 'http://www.eprosima.com'}
    root = ElementTree.parse(dds.config_file(name)).getroot()
    transports = root.findall('.//dds:transport_descriptor', names)
    shared, udp = transports
    assert shared.findtext('dds:type', None, names) == 'SHM'
    assert udp.findtext('dds:type', None, names) == 'UDPv4'
    segment = int(shared.findtext('dds:segment_size', '', names))
    message = int(shared.findtext('dds:maxMessageSize', '', names))
    assert segment == SHARED_MEMORY_SIZES[name]
    assert 640 * 480 * 32 + 1000 < message <= segment  # Fast DDS refuses messages above it
    used = [element.text for element in root.findall('.//dds:userTransports/*', names)]
    assert used == [one.findtext('dds:transport_id', None, names) for one in transports]


@pytest.mark.parametrize(
    ('free', 'name'),
    [(24 * 2**30, dds.LARGE_MESSAGES), (64 * 2**20, dds.SMALL_SHARED_MEMORY)],
)
def test_the_profile_fits_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, name: str
) -> None:
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=free))
    environment: dict[str, str] = {}
    assert dds.use_large_message_profile(environment) == dds.config_file(name)
    assert environment == {'FASTDDS_DEFAULT_PROFILES_FILE': str(dds.config_file(name))}


def test_the_profile_of_the_user_stays_and_humble_has_another_name() -> None:
    for variable in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        environment = {variable: '/my/profile.xml'}
        assert dds.use_large_message_profile(environment) is None
        assert environment == {variable: '/my/profile.xml'}
    humble = {'ROS_DISTRO': 'humble'}
    dds.use_large_message_profile(humble)
    assert set(humble) == {'ROS_DISTRO', 'FASTRTPS_DEFAULT_PROFILES_FILE'}


@pytest.mark.parametrize(
    'layout',
    [
        ('lib/python3.12/site-packages', 'share/mtl_perception'),  # colcon, venv
        ('local/lib/python3.10/dist-packages', 'local/share/mtl_perception'),  # pip on Debian
        ('', ''),  # a clone
    ],
)
def test_the_installed_profile_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: tuple[str, str]
) -> None:
    code, share = (tmp_path / part for part in layout)
    (code / 'mtl_perception' / 'ros').mkdir(parents=True)
    (share / 'config').mkdir(parents=True)
    (share / 'config' / dds.LARGE_MESSAGES).touch()
    (share / 'package.xml').touch()
    monkeypatch.setattr(dds, '__file__', str(code / 'mtl_perception' / 'ros' / 'dds.py'))
    assert dds.config_file(dds.LARGE_MESSAGES) == share / 'config' / dds.LARGE_MESSAGES
    (share / 'package.xml').unlink()
    with pytest.raises(RosError, match='was not found above'):
        dds.config_file(dds.LARGE_MESSAGES)


@pytest.mark.parametrize('seed', range(5))
def test_quaternions_are_those_of_scipy(seed: int) -> None:
    pytest.importorskip('nav_msgs')
    transform = pytest.importorskip('scipy.spatial.transform')
    from mtl_perception.ros.odometry import quaternion

    rotations = transform.Rotation.random(50, random_state=seed)
    for rotation in rotations:
        expected = rotation.as_quat(canonical=True)
        np.testing.assert_allclose(quaternion(rotation.as_matrix()), expected, atol=1e-9)




def test_what_stays_on_this_machine_says_so_in_each_distributions_words() -> None:
    """Humble knows ROS_LOCALHOST_ONLY, later ones the discovery range; a choice made stays."""
    humble, later = {'ROS_DISTRO': 'humble'}, {'ROS_DISTRO': 'kilted'}
    open_range = {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}
    for environment in (humble, later, open_range):
        dds.stay_on_this_machine(environment)
    assert humble['ROS_LOCALHOST_ONLY'] == '1'
    assert later['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert open_range == {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'SUBNET'}
