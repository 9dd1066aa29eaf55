# SPDX-License-Identifier: Apache-2.0
"""The rendered camera over real topics: its ground truth fits its image, info and odometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip('rclpy')
pytest.importorskip('embreex')
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image

pytestmark = pytest.mark.ros

SCALARS = {'rgb8': np.uint8, 'mono8': np.uint8, '32FC1': np.float32, '32FC3': np.float32}
TOPICS = {
    'camera/image_raw': 'rgb8',
    'ground_truth/depth/image_rect': '32FC1',
    'ground_truth/semantic/image_raw': 'mono8',
    'ground_truth/semantic_color/image_raw': 'rgb8',
    'ground_truth/normals/image_raw': '32FC3',
    'ground_truth/normals_color/image_raw': 'rgb8',
    'ground_truth/edges/image_raw': 'mono8',
}


def array(message: Image) -> np.ndarray:
    values = np.frombuffer(message.data, SCALARS[message.encoding])
    return values.reshape(message.height, message.width, -1).squeeze()


def key(message: Any) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


@pytest.fixture
def frames(listener: Any, start_command: Callable[..., Any]) -> dict[str, dict[Any, Any]]:
    """Return by topic the messages of the stamps that every topic has, at least three."""
    heard = {topic: listener.subscribe(Image, topic) for topic in TOPICS}
    for topic in ('camera/camera_info', 'ground_truth/depth/camera_info'):
        heard[topic] = listener.subscribe(CameraInfo, topic)
    heard['odom'] = listener.subscribe(Odometry, 'odom')
    camera = start_command(
        'camera', 'rooms', '--size', '160x120', '--rate', 4, '--seed', 3, '--wait', 30
    )

    def common() -> set[tuple[int, int]]:
        return set.intersection(*({key(one) for one in messages} for messages in heard.values()))

    listener.spin_until(lambda: len(common()) >= 3, 60, [camera])
    assert camera.interrupt() == 0
    stamps = sorted(common())[:3]
    return {
        topic: {key(one): one for one in messages if key(one) in stamps}
        for topic, messages in heard.items()
    }


def test_ground_truth_belongs_to_the_image(frames: dict[str, dict[Any, Any]]) -> None:
    clouds = []
    for stamp, image in frames['camera/image_raw'].items():
        here = {topic: messages[stamp] for topic, messages in frames.items()}
        for topic, encoding in TOPICS.items():
            assert here[topic].encoding == encoding
            assert (here[topic].width, here[topic].height) == (160, 120)
            assert here[topic].header == image.header
        info = here['camera/camera_info']
        assert info.header == image.header
        assert here['ground_truth/depth/camera_info'] == info
        depth = array(here['ground_truth/depth/image_rect'])
        normals = array(here['ground_truth/normals/image_raw'])
        labels = array(here['ground_truth/semantic/image_raw'])
        colours = array(here['ground_truth/semantic_color/image_raw'])
        edges = array(here['ground_truth/edges/image_raw'])
        assert set(np.unique(edges)) == {0, 255}
        # One colour for each class, another for each other class.
        pairs = np.unique(np.dstack((labels, colours)).reshape(-1, 4), axis=0)
        assert len(pairs) == len(np.unique(labels)) == len(np.unique(pairs[:, 1:], axis=0))
        valid = np.isfinite(depth)
        assert valid.mean() > 0.9
        v, u = np.mgrid[:120, :160]
        fx, _, cx, _, fy, cy = info.k[:6]
        points = np.dstack(((u - cx) / fx * depth, (v - cy) / fy * depth, depth))
        # Normals face the camera, and most neighbours lie in their plane.
        facing = np.sum(normals * points, axis=-1)[valid]
        assert np.all(facing < 1e-3)
        step = points[:, 1:] - points[:, :-1]
        off = np.abs(np.sum(step * normals[:, :-1], axis=-1)) / np.linalg.norm(step, axis=-1)
        assert np.nanmedian(off) < 0.02
        odometry = here['odom']
        assert odometry.header.stamp == image.header.stamp
        assert odometry.header.frame_id == 'odom'
        assert odometry.child_frame_id == image.header.frame_id
        p, q = odometry.pose.pose.position, odometry.pose.pose.orientation
        rotation = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
        origin = np.array([p.x, p.y, p.z])
        clouds.append((points @ rotation.T + origin, rotation, origin, labels))
    # The floor (class 1) of every frame lies in one horizontal plane of the world, and a second
    # frame sees the same surfaces as the first: pose, depth and intrinsics agree.
    heights = np.concatenate([points[labels == 1][:, 2] for points, _, _, labels in clouds])
    assert heights.size > 100
    assert np.ptp(np.percentile(heights, (5, 95))) < 0.05
    info = next(iter(frames['camera/camera_info'].values()))
    first, (_, rotation, origin, _) = clouds[0][0], clouds[1]
    seen = (first.reshape(-1, 3) - origin) @ rotation
    seen = seen[np.isfinite(seen[:, 2]) & (seen[:, 2] > 0.1)]
    u = np.rint(info.k[0] * seen[:, 0] / seen[:, 2] + info.k[2]).astype(int)
    v = np.rint(info.k[4] * seen[:, 1] / seen[:, 2] + info.k[5]).astype(int)
    inside = (u >= 0) & (u < 160) & (v >= 0) & (v < 120)
    depth = array(list(frames['ground_truth/depth/image_rect'].values())[1])
    assert inside.mean() > 0.5
    error = np.abs(depth[v[inside], u[inside]] - seen[inside, 2])
    # Rounding to pixels costs more than the 5 mm that exact resampling would leave.
    assert np.nanmedian(error) < 0.02
