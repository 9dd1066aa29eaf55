# SPDX-License-Identifier: Apache-2.0
"""The rosbag2 of rendered rooms, read back by rosbags."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.datasets.bag_writer import BagWriter, quaternion_of, write_rooms_bag
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.rooms_command import main
from mtl_perception.simulation.rooms import rooms_frames
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

TOPICS = {
    '/camera/color/image_raw': ('sensor_msgs/msg/Image', 'rgb8'),
    '/camera/color/camera_info': ('sensor_msgs/msg/CameraInfo', ''),
    '/camera/aligned_depth_to_color/image_raw': ('sensor_msgs/msg/Image', '32FC1'),
    '/ground_truth/semantic/image_raw': ('sensor_msgs/msg/Image', 'mono8'),
    '/ground_truth/normals/image_raw': ('sensor_msgs/msg/Image', '32FC3'),
    '/ground_truth/edges/image_raw': ('sensor_msgs/msg/Image', 'mono8'),
    '/odom': ('nav_msgs/msg/Odometry', ''),
    '/tf': ('tf2_msgs/msg/TFMessage', ''),
}


def rotation_of(x: float, y: float, z: float, w: float) -> np.ndarray:
    """Return the matrix of a quaternion: the sandwich product, written out."""
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ])


@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_quaternions_give_the_rotation_back(values):
    """Against the textbook formula, half turns among them."""
    rotation = rotation_of(*(np.array(values) / np.linalg.norm(values)))
    found = quaternion_of(rotation)
    assert np.isclose(np.linalg.norm(found), 1)
    np.testing.assert_allclose(rotation_of(*found), rotation, atol=1e-9)


def test_the_bag_holds_the_frames(tmp_path):
    """Every topic, stamp and number against the renderer's own frames."""
    bag = tmp_path / 'walk'
    arguments = ['--frames', '3', '--seed', '6', '--size', '40x30', '--bag', '--out', str(bag)]
    assert main(arguments) == 0
    expected = list(rooms_frames(6, 3, size=(40, 30), frames_per_world=3, rate_hz=30.0))
    with AnyReader([bag]) as reader:
        assert {c.topic: c.msgtype for c in reader.connections} == {
            topic: kind for topic, (kind, _) in TOPICS.items()}
        found: dict[str, list] = {topic: [] for topic in TOPICS}
        for connection, stamp, raw in reader.messages():
            found[connection.topic].append(
                (stamp, reader.deserialize(raw, connection.msgtype)))
    images = {
        '/camera/color/image_raw': lambda s: s.image,
        '/camera/aligned_depth_to_color/image_raw': lambda s: s.targets['depth'],
        '/ground_truth/semantic/image_raw': lambda s: s.targets['semantic'],
        '/ground_truth/normals/image_raw': lambda s: s.targets['normals'],
        '/ground_truth/edges/image_raw': lambda s: s.targets['edges'] * 255,
    }
    stamps = [stamp for stamp, _ in found['/odom']]
    np.testing.assert_allclose(np.diff(stamps), 1e9 / 30, atol=1)
    for topic, messages in found.items():
        assert [stamp for stamp, _ in messages] == stamps
        for (stamp, message), sample in zip(messages, expected):
            header = message.transforms[0].header if topic == '/tf' else message.header
            assert header.stamp.sec * 10**9 + header.stamp.nanosec == stamp
            if topic in images:
                truth = images[topic](sample)
                assert message.encoding == TOPICS[topic][1]
                assert header.frame_id == 'camera_color_optical_frame'
                array = message.data.view(truth.dtype).reshape(truth.shape)
                np.testing.assert_array_equal(array, truth)
                assert (message.height, message.width) == truth.shape[:2]
                assert message.step == truth.nbytes // truth.shape[0]
            elif topic == '/camera/color/camera_info':
                # Our reader of CameraInfo is tested by itself.
                assert CameraModel.from_camera_info(message).rectified() == sample.camera
                np.testing.assert_array_equal(message.p.reshape(3, 4)[:, :3],
                                              message.k.reshape(3, 3))
            else:
                pose = message.pose.pose if topic == '/odom' else message.transforms[0].transform
                child = (message if topic == '/odom' else message.transforms[0]).child_frame_id
                assert (header.frame_id, child) == ('odom', 'camera_color_optical_frame')
                position = pose.position if topic == '/odom' else pose.translation
                turn = pose.orientation if topic == '/odom' else pose.rotation
                np.testing.assert_allclose(
                    (position.x, position.y, position.z), sample.pose[:3, 3])
                np.testing.assert_allclose(
                    rotation_of(turn.x, turn.y, turn.z, turn.w), sample.pose[:3, :3], atol=1e-9)


def test_an_existing_path_is_left_alone(tmp_path):
    """Nothing is overwritten."""
    with pytest.raises(DatasetError, match='exists'):
        write_rooms_bag(tmp_path, 0, 1, frames_per_world=1)


def test_arrays_without_encoding_are_refused(tmp_path):
    """The message names topic and type."""
    with BagWriter(tmp_path / 'bag') as writer, pytest.raises(DatasetError, match='float64'):
        writer.image('/x', 0, np.zeros((2, 2)))
