# SPDX-License-Identifier: Apache-2.0
"""Write rosbag2 recordings (MCAP) without ROS: images, camera_info, odometry, transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mtl_perception.bags.message_writer import MessageWriter
from mtl_perception.camera import CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.files import atomic_directory
from mtl_perception.simulation.rooms import FIELD_OF_VIEW_DEG, rooms_frames
from mtl_perception.values import Sample
import numpy as np
import numpy.typing as npt

OPTICAL_FRAME = 'camera_color_optical_frame'
WORLD_FRAME = 'odom'
_ENCODINGS = {('uint8', 2): 'mono8', ('uint8', 3): 'rgb8', ('float32', 2): '32FC1',
              ('float32', 3): '32FC3', ('uint16', 2): '16UC1'}
_START_NS = 1_700_000_000_000_000_000


def quaternion_of(rotation: npt.NDArray[np.float64]) -> tuple[float, float, float, float]:
    """
    Return the unit quaternion (x, y, z, w), w >= 0, of a rotation (3, 3).

    The largest component is found first, so that nothing is divided by a small number
    (Shepperd, "Quaternion from rotation matrix", 1978).
    """
    m = rotation
    squares = np.array([
        1 + m[0, 0] - m[1, 1] - m[2, 2], 1 - m[0, 0] + m[1, 1] - m[2, 2],
        1 - m[0, 0] - m[1, 1] + m[2, 2], 1 + m[0, 0] + m[1, 1] + m[2, 2],
    ])
    sums = {(0, 1): m[0, 1] + m[1, 0], (0, 2): m[0, 2] + m[2, 0], (1, 2): m[1, 2] + m[2, 1],
            (0, 3): m[2, 1] - m[1, 2], (1, 3): m[0, 2] - m[2, 0], (2, 3): m[1, 0] - m[0, 1]}
    largest = int(np.argmax(squares))
    products = [
        squares[largest] if index == largest else sums[min(index, largest), max(index, largest)]
        for index in range(4)
    ]
    quaternion = np.array(products) / np.linalg.norm(products)
    if quaternion[3] < 0:
        quaternion = -quaternion
    x, y, z, w = (float(value) for value in quaternion)
    return x, y, z, w


class BagWriter(MessageWriter):
    """
    A recording of a rendered camera; a context manager. Topics are opened by the first message.

    Raises
    ------
    DatasetError
        If an array has a type that no image encoding stands for.

    """

    def image(
        self, topic: str, stamp_ns: int, image: npt.NDArray[Any], frame_id: str = OPTICAL_FRAME
    ) -> None:
        """Write sensor_msgs/Image: rgb8, mono8, 16UC1, 32FC1 or 32FC3 by the array's type."""
        encoding = _ENCODINGS.get((image.dtype.name, image.ndim))
        if encoding is None:
            raise DatasetError(
                f'{topic}: no image encoding for {image.dtype} of {image.ndim} dimensions'
            )
        self.write_image(topic, stamp_ns, self.header(stamp_ns, frame_id), encoding, image)

    def camera_info(
        self, topic: str, stamp_ns: int, camera: CameraModel, frame_id: str = OPTICAL_FRAME
    ) -> None:
        """Write sensor_msgs/CameraInfo of a rectified camera: K, P, D = 0, R = 1."""
        self.write_camera_info(topic, stamp_ns, self.header(stamp_ns, frame_id), camera)

    def pose(
        self, topic: str, stamp_ns: int, pose: npt.NDArray[np.float64],
        parent: str = WORLD_FRAME, child: str = OPTICAL_FRAME,
    ) -> None:
        """Write a pose (4, 4), child -> parent, as nav_msgs/Odometry and on /tf."""
        x, y, z = (float(value) for value in pose[:3, 3])
        qx, qy, qz, qw = quaternion_of(pose[:3, :3])
        rotation = self.make('geometry_msgs/msg/Quaternion', x=qx, y=qy, z=qz, w=qw)
        vector = 'geometry_msgs/msg/Vector3'
        zero = self.make(vector, x=0.0, y=0.0, z=0.0)
        header = self.header(stamp_ns, parent)
        name = 'nav_msgs/msg/Odometry'
        self.write(topic, name, stamp_ns, self.make(
            name, header=header, child_frame_id=child,
            pose=self.make(
                'geometry_msgs/msg/PoseWithCovariance', covariance=np.zeros(36),
                pose=self.make(
                    'geometry_msgs/msg/Pose', orientation=rotation,
                    position=self.make('geometry_msgs/msg/Point', x=x, y=y, z=z),
                ),
            ),
            twist=self.make(
                'geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                twist=self.make('geometry_msgs/msg/Twist', linear=zero, angular=zero),
            ),
        ))
        transform = self.make(
            'geometry_msgs/msg/TransformStamped', header=header, child_frame_id=child,
            transform=self.make(
                'geometry_msgs/msg/Transform', rotation=rotation,
                translation=self.make(vector, x=x, y=y, z=z),
            ),
        )
        name = 'tf2_msgs/msg/TFMessage'
        self.write('/tf', name, stamp_ns, self.make(name, transforms=[transform]))

    def sample(self, stamp_ns: int, sample: Sample) -> None:
        """
        Write one labelled frame on the topics that `write_rooms_bag` documents.

        Raises
        ------
        DatasetError
            If the sample lacks its camera or pose.

        """
        if sample.camera is None or sample.pose is None:
            raise DatasetError(f'{sample.name}: a recording needs a camera and a pose')
        self.image('/camera/color/image_raw', stamp_ns, sample.image)
        self.camera_info('/camera/color/camera_info', stamp_ns, sample.camera)
        depth = sample.targets['depth']
        self.image('/camera/aligned_depth_to_color/image_raw', stamp_ns, depth)
        # Edges as the live topics have them: probability times 255.
        truth = {**sample.targets, 'edges': sample.targets['edges'] * np.uint8(255)}
        for name in ('semantic', 'normals', 'edges'):
            self.image(f'/ground_truth/{name}/image_raw', stamp_ns, truth[name])
        self.pose('/odom', stamp_ns, sample.pose)


def write_rooms_bag(
    path: Path, seed: int, frames: int, *, size: tuple[int, int] = (320, 240),
    field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG,
    frames_per_world: int, rate_hz: float = 30.0, on_frame: Callable[[], None] = lambda: None,
) -> None:
    """
    Render a walk into a rosbag2 (MCAP); `path` is the directory that appears when finished.

    Topics: /camera/color/image_raw (rgb8), /camera/color/camera_info,
    /camera/aligned_depth_to_color/image_raw (32FC1 metres, NaN invalid),
    /ground_truth/semantic/image_raw (mono8), /ground_truth/normals/image_raw (32FC3),
    /ground_truth/edges/image_raw (mono8, 0 or 255), /odom (optical frame in odom), /tf.

    Raises
    ------
    DatasetError
        If the path exists.

    """
    if path.exists():
        raise DatasetError(f'{path} exists; choose another --out or remove it')
    samples: Iterable[Sample] = rooms_frames(
        seed, frames, size=size, field_of_view_deg=field_of_view_deg,
        frames_per_world=frames_per_world, rate_hz=rate_hz,
    )
    with atomic_directory(path) as target:
        # The bag's own directory must not exist when rosbags opens it.
        inner = target / 'bag'
        writer = BagWriter(inner)
        with writer:
            for number, sample in enumerate(samples):
                writer.sample(_START_NS + round(number * 1e9 / rate_hz), sample)
                on_frame()
        for file in inner.iterdir():
            file.rename(target / file.name)
        inner.rmdir()
