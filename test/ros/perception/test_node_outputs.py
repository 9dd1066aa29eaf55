# SPDX-License-Identifier: Apache-2.0
"""What the node publishes for a good frame, value by value, over real topics."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import struct
from typing import Any

from mtl_perception.tasks import load_label_set
import numpy as np
import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')

IMAGES = {
    'semantic/image_raw': ('mono8', np.uint8, ()),
    'semantic/confidence': ('32FC1', np.float32, ()),
    'semantic_color/image_raw': ('rgb8', np.uint8, (3,)),
    'depth/image_rect': ('32FC1', np.float32, ()),
    'normals/image_raw': ('32FC3', np.float32, (3,)),
    'normals_color/image_raw': ('rgb8', np.uint8, (3,)),
    'edges/image_raw': ('mono8', np.uint8, ()),
}


def stamp_of(message: Any) -> tuple[int, int, str]:
    header = message.header
    return header.stamp.sec, header.stamp.nanosec, header.frame_id


def pixels_of(message: Any, scalar: Any, channels: tuple[int, ...]) -> np.ndarray:
    shape = (message.height, message.width, *channels)
    assert message.step == np.dtype(scalar).itemsize * int(np.prod(shape[1:]))
    return np.frombuffer(bytes(message.data), scalar).reshape(shape)


def expected_maps(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the fake engine makes of an image at reference focal length."""
    red, green, blue = (pixels[..., channel].astype(np.float64) for channel in range(3))
    labels = np.where(red < 250, red % 18, 255).astype(np.uint8)
    x, y = (green - 128) / 200, (blue - 128) / 200
    normals = np.stack((x, y, -np.sqrt(1 - x * x - y * y)), axis=-1)
    return {
        'semantic/image_raw': labels,
        'semantic/confidence': green / 255,
        'depth/image_rect': 0.5 + blue / 64,
        'normals/image_raw': normals,
        'normals_color/image_raw': 127.5 + 127.5 * normals * [1, -1, -1],
        'edges/image_raw': 255 - red,
    }


def test_every_output_of_a_frame_is_right(start_perception: Callable[..., Any]) -> None:
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2
    from std_msgs.msg import String

    try:
        from vision_msgs.msg import LabelInfo
    except ImportError:
        LabelInfo = None

    perception = start_perception()
    heard = {topic: perception.subscribe(Image, topic) for topic in IMAGES}
    infos = perception.subscribe(CameraInfo, 'depth/camera_info')
    clouds = perception.subscribe(PointCloud2, 'points')
    from rclpy.qos import DurabilityPolicy, QoSProfile

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    names = perception.listener.subscribe(
        *((String, 'semantic/label_names') if LabelInfo is None else
          (LabelInfo, 'semantic/label_info')),
        latched,
    )  # fmt: skip
    perception.send_until(lambda: all(heard.values()) and infos and clouds and names)

    frame = perception.camera.send()
    wanted = stamp_of(frame)

    def find(messages: list[Any]) -> Any:
        return next((one for one in messages if stamp_of(one) == wanted), None)

    perception.listener.spin_until(
        lambda: all(find(one) for one in (*heard.values(), infos, clouds)),
        10,
        [perception.process],
    )
    pixels = np.frombuffer(bytes(frame.data), np.uint8).reshape(48, 64, 3)
    expected = expected_maps(pixels)
    maps = {}
    for topic, (encoding, scalar, channels) in IMAGES.items():
        message = find(heard[topic])
        assert (message.encoding, message.is_bigendian) == (encoding, 0), topic
        maps[topic] = pixels_of(message, scalar, channels)
        if topic in expected:
            tolerance = 0.5001 if 'color' in topic else 1e-5
            np.testing.assert_allclose(maps[topic], expected[topic], atol=tolerance)

    if LabelInfo is None:
        document = json.loads(names[0].data)
        by_id = {entry['class_id']: entry['class_name'] for entry in document['class_map']}
        fixed = document['label_set']['colours']
    else:
        by_id = {entry.class_id: entry.class_name for entry in names[0].class_map}
        fixed = load_label_set('rooms').colours
    assert (by_id[0], by_id[6], by_id[255], len(by_id)) == ('wall', 'chair', 'unlabelled', 19)
    colours = np.zeros((256, 3), np.uint8)
    colours[:18] = fixed
    labels = maps['semantic/image_raw']
    for row, column in np.ndindex(labels.shape):
        shown = maps['semantic_color/image_raw'][row, column]
        assert tuple(shown) == tuple(colours[labels[row, column]])

    info = find(infos)
    assert list(info.k) == [50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1]
    assert list(info.p) == [50.0, 0, 31.5, 0, 0, 50.0, 23.5, 0, 0, 0, 1, 0]
    assert list(info.d) == [0.0] * 5
    check_cloud(find(clouds), maps, pixels, info)


def check_cloud(
    cloud: Any, maps: dict[str, np.ndarray], pixels: np.ndarray, info: Any
) -> None:
    """Read the cloud byte by byte and recompute each point from the images."""
    assert (cloud.height, cloud.width, cloud.point_step) == (48, 64, 32)
    assert (cloud.row_step, cloud.is_bigendian, cloud.is_dense) == (64 * 32, False, False)
    layout = [(entry.name, entry.offset, entry.datatype, entry.count) for entry in cloud.fields]
    float32, uint32 = 7, 6
    names = ('x', 'y', 'z', 'rgb', 'normal_x', 'normal_y', 'normal_z')
    assert layout == [
        *((name, 4 * index, float32, 1) for index, name in enumerate(names)),
        ('label', 28, uint32, 1),
    ]
    data = bytes(cloud.data)
    for v, u in np.ndindex(48, 64):
        x, y, z, rgb, nx, ny, nz, label = struct.unpack_from('<3fI3fI', data, (v * 64 + u) * 32)
        assert z == maps['depth/image_rect'][v, u]
        assert x == pytest.approx(z * (u - info.k[2]) / info.k[0], abs=1e-6)
        assert y == pytest.approx(z * (v - info.k[5]) / info.k[4], abs=1e-6)
        red, green, blue = (int(value) for value in pixels[v, u])
        assert rgb == red << 16 | green << 8 | blue
        assert (nx, ny, nz) == tuple(maps['normals/image_raw'][v, u])
        assert label == maps['semantic/image_raw'][v, u]


def test_only_what_is_heard_is_built(
    start_perception: Callable[..., Any], tmp_path: Path
) -> None:
    from sensor_msgs.msg import Image

    runs = tmp_path / 'runs'
    perception = start_perception(FAKE_RUNS=runs)
    perception.send_until(lambda: perception.diagnostics and int(perception.values['unheard']) > 5)
    assert not runs.exists()
    assert perception.values['received'] == '0'
    assert perception.status.message == 'idle: nobody subscribes to an output'
    assert perception.status.level == b'\x00'

    edges = perception.subscribe(Image, 'edges/image_raw')
    perception.send_until(lambda: len(edges) >= 3)
    assert runs.exists()
    topics = {'semantic/image_raw', 'points', 'depth/image_rect'}
    assert all(perception.listener.node.count_publishers(topic) == 1 for topic in topics)


def test_a_compressed_image_is_decoded(
    start_perception: Callable[..., Any], camera_on: Callable[..., Any]
) -> None:
    import cv2
    from sensor_msgs.msg import CompressedImage, Image

    camera = camera_on(image_type=CompressedImage, image_topic='front/color/compressed')
    perception = start_perception(
        '-r', 'image:=front/color', '-p', 'image_transport:=compressed', camera=camera
    )
    edges = perception.subscribe(Image, 'edges/image_raw')
    depths = perception.subscribe(Image, 'depth/image_rect')
    pixels = camera.picture()
    _, png = cv2.imencode('.png', pixels[..., ::-1])

    def send() -> bool:
        header = camera.header()
        camera.infos.publish(camera.info(header))
        camera.images.publish(
            CompressedImage(header=header, format='rgb8; png compressed', data=png.tobytes())
        )
        perception.listener.spin_for(0.05)
        return bool(edges and depths)

    perception.listener.spin_until(send, 20, [perception.process])
    assert stamp_of(edges[-1])[2] == camera.frame_id
    np.testing.assert_array_equal(pixels_of(edges[-1], np.uint8, ()), 255 - pixels[..., 0])


LENS = [-0.3, 0.05, 0.001, 0.0, 0.0]


@pytest.mark.parametrize(
    ('is_rectified', 'distortion'),
    [(False, LENS), (True, LENS), (True, [0.0] * 5)],
    ids=['raw', 'rectified', 'rectified without D'],
)
def test_a_distorted_camera_is_rectified_once(
    start_perception: Callable[..., Any], is_rectified: bool, distortion: list[float]
) -> None:
    import cv2
    from sensor_msgs.msg import CameraInfo, Image

    perception = start_perception('-p', f'image_is_rectified:={str(is_rectified).lower()}')
    camera = perception.camera
    edges = perception.subscribe(Image, 'edges/image_raw')
    infos = perception.subscribe(CameraInfo, 'depth/camera_info')
    ramp = np.repeat(np.linspace(0, 249, 64).astype(np.uint8)[None], 48, axis=0)
    pixels = np.stack((ramp, ramp, ramp), axis=-1)
    pinhole = (45.0, 46.0, 30.0, 22.0)

    def send() -> bool:
        image = camera.image(pixels)
        fx, fy, cx, cy = pinhole
        projection = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        camera.send(image, camera.info(image.header, d=distortion, p=projection))
        perception.listener.spin_for(0.05)
        return bool(edges and infos)

    perception.listener.spin_until(send, 20, [perception.process])
    assert list(infos[-1].d) == [0.0] * 5
    assert (infos[-1].k[0], infos[-1].k[4], infos[-1].k[2], infos[-1].k[5]) == pinhole
    if is_rectified:  # by image_proc, say: nothing is left to do
        assert pixels_of(edges[-1], np.uint8, ())[10, 40] == 255 - ramp[0, 40]
        return
    # Where pixel (40, 10) of the rectified image lies in the raw one, by OpenCV's projection.
    ray = np.array([[(40 - 30.0) / 45, (10 - 22.0) / 46, 1.0]])
    matrix = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
    raw, _ = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), matrix, np.array(distortion))
    red = np.interp(raw[0, 0, 0], np.arange(64), ramp[0])
    assert pixels_of(edges[-1], np.uint8, ())[10, 40] == pytest.approx(255 - red, abs=2)
