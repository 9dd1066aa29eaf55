# SPDX-License-Identifier: Apache-2.0
"""
Subscribes to all outputs with plain rclpy, checks them, and prints a JSON report.

It stands for somebody else's program: nothing of mtl_perception is imported here, and what is
checked is what the topics promise in words. Stamps are told as the raw bytes of the header.

Arguments: camera image topic (sensor_msgs/CompressedImage), seconds to listen at most, number
of frames to check.
"""

from __future__ import annotations

import json
import sys
import time

import cv2
import numpy as np
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String

ENCODINGS = {
    'semantic/image_raw': ('mono8', np.uint8, 1),
    'semantic/confidence': ('32FC1', np.float32, 1),
    'semantic_color/image_raw': ('rgb8', np.uint8, 3),
    'depth/image_rect': ('32FC1', np.float32, 1),
    'normals/image_raw': ('32FC3', np.float32, 3),
    'normals_color/image_raw': ('rgb8', np.uint8, 3),
    'edges/image_raw': ('mono8', np.uint8, 1),
}
FIELDS = [
    ('x', 0, 7), ('y', 4, 7), ('z', 8, 7), ('rgb', 12, 7),
    ('normal_x', 16, 7), ('normal_y', 20, 7), ('normal_z', 24, 7), ('label', 28, 6),
]  # fmt: skip


def header_bytes(raw: bytes) -> str:
    """Return the CDR bytes of the std_msgs/Header that a message begins with."""
    length = int.from_bytes(raw[12:16], 'little')
    return raw[4 : 16 + length].hex()


def array(message: Image) -> np.ndarray:
    scalar, channels = next(
        (scalar, channels)
        for encoding, scalar, channels in ENCODINGS.values()
        if encoding == message.encoding
    )
    assert message.step == message.width * channels * np.dtype(scalar).itemsize
    assert not message.is_bigendian
    values = np.frombuffer(message.data, scalar)
    shape = (message.height, message.width, channels)
    return values.reshape(shape if channels > 1 else shape[:2])


def check_frame(image: CompressedImage, infos: list[CameraInfo], frame: dict[str, object]) -> int:
    """Check one frame and return how many points of its cloud have a position."""
    rgb = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    height, width = rgb.shape[:2]
    maps = {}
    for topic, (encoding, _, _) in ENCODINGS.items():
        message = frame[topic]
        assert message.header == image.header, topic
        assert message.encoding == encoding, (topic, message.encoding)
        assert (message.width, message.height) == (width, height), topic
        maps[topic] = array(message)
    depth, normals = maps['depth/image_rect'], maps['normals/image_raw']
    labels = maps['semantic/image_raw']
    assert np.all(np.isnan(depth) | (depth > 0))
    assert np.all(np.isnan(normals) | (np.abs(normals) <= 1 + 1e-6))
    length = np.linalg.norm(normals, axis=-1)
    assert np.nanmax(np.abs(length - 1)) < 1e-3
    confidence = maps['semantic/confidence']
    assert np.all((confidence >= 0) & (confidence <= 1))
    pairs = np.unique(np.dstack((labels, maps['semantic_color/image_raw'])).reshape(-1, 4), axis=0)
    assert len(pairs) == len(np.unique(labels)), 'a class has two colours'

    info = frame['depth/camera_info']
    assert info.header == image.header
    # The recording is not distorted, so K stays; the images are said to be rectified.
    given = infos[-1]
    assert not any(given.d)
    assert list(info.k) == list(given.k)
    assert list(info.p) == [*given.k[:3], 0, *given.k[3:6], 0, *given.k[6:], 0]
    assert not any(info.d)

    cloud = frame['points']
    assert cloud.header == image.header
    assert [(field.name, field.offset, field.datatype) for field in cloud.fields] == FIELDS
    assert all(field.count == 1 for field in cloud.fields)
    assert (cloud.width, cloud.height, cloud.point_step) == (width, height, 32)
    assert cloud.row_step == 32 * width
    assert not cloud.is_dense
    assert not cloud.is_bigendian
    floats = np.frombuffer(cloud.data, '<f4').reshape(height, width, 8)
    words = np.frombuffer(cloud.data, '<u4').reshape(height, width, 8)
    v, u = np.mgrid[:height, :width]
    fx, _, cx, _, fy, cy = (float(value) for value in info.k[:6])
    z = depth.astype(np.float64)
    expected = np.dstack(((u - cx) / fx * z, (v - cy) / fy * z, z))
    np.testing.assert_allclose(floats[..., :3], expected, rtol=1e-6, atol=1e-6)
    packed = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    np.testing.assert_array_equal(words[..., 3], packed)
    np.testing.assert_array_equal(floats[..., 4:7], normals)
    np.testing.assert_array_equal(words[..., 7], labels)
    return int(np.isfinite(floats[..., 0]).sum())


def main() -> None:
    image_topic, seconds, wanted = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    camera_info_topic = image_topic.removesuffix('/image_raw/compressed') + '/camera_info'
    rclpy.init()
    node = rclpy.create_node('plain_subscriber')
    raw: dict[str, dict[str, bytes]] = {}
    kinds = {
        image_topic: CompressedImage,
        **dict.fromkeys(ENCODINGS, Image),
        'depth/camera_info': CameraInfo,
        'points': PointCloud2,
    }
    for topic, kind in kinds.items():
        raw[topic] = {}

        def keep(data: bytes, kept: dict[str, bytes] = raw[topic]) -> None:
            kept[header_bytes(data)] = data

        node.create_subscription(kind, topic, keep, QoSProfile(depth=5), raw=True)
    infos: list[CameraInfo] = []
    node.create_subscription(CameraInfo, camera_info_topic, infos.append, 10)
    classes: list[list[str]] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    try:
        from vision_msgs.msg import LabelInfo
    except ModuleNotFoundError:
        node.create_subscription(
            String, 'semantic/label_names',
            lambda message: classes.append(
                [entry['class_name'] for entry in json.loads(message.data)['class_map']]
            ),
            latched,
        )
    else:
        node.create_subscription(
            LabelInfo, 'semantic/label_info',
            lambda message: classes.append([entry.class_name for entry in message.class_map]),
            latched,
        )
    print('listening', flush=True)
    deadline = time.monotonic() + seconds
    complete: set[str] = set()
    while time.monotonic() < deadline and len(complete) < wanted:
        rclpy.spin_once(node, timeout_sec=0.1)
        complete = set.intersection(*(set(messages) for messages in raw.values()))
    valid = 0
    for header in sorted(complete)[:wanted]:
        frame = {
            topic: deserialize_message(messages[header], kinds[topic])
            for topic, messages in raw.items()
        }
        valid += check_frame(frame.pop(image_topic), infos, frame)
    report = {
        'frames': len(complete),
        'valid_points': valid,
        'headers': {topic: sorted(messages) for topic, messages in raw.items()},
        'classes': classes[0],
    }
    print('report', json.dumps(report), flush=True)
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
