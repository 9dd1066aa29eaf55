# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back, against readers that are slow and plain."""

from __future__ import annotations

from array import array
import struct
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.image_codec import ImageCodecError
import numpy as np
import pytest

pytest.importorskip('rclpy')
from builtin_interfaces.msg import Time
from mtl_perception.ros.codec import (
    camera_info_message,
    CloudMessage,
    image_message,
    ImageMessage,
    rgb_from_compressed,
    rgb_from_image,
)
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

pytestmark = pytest.mark.ros
HEADER = Header(stamp=Time(sec=12, nanosec=34), frame_id='optical')


def make_image(
    encoding: str, height: int, width: int, step: int, data: bytes, *, big: bool = False
) -> Image:
    message = Image(header=HEADER, encoding=encoding, height=height, width=width, step=step)
    message.is_bigendian = int(big)
    message.data = array('B', data)
    return message


def slow_rgb(message: Image) -> np.ndarray:
    """Read pixel after pixel by what sensor_msgs/image_encodings says."""
    order = {
        'rgb8': (0, 1, 2), 'bgr8': (2, 1, 0), '8UC3': (2, 1, 0), 'rgba8': (0, 1, 2),
        'bgra8': (2, 1, 0), '8UC4': (2, 1, 0), 'mono8': (0, 0, 0), '8UC1': (0, 0, 0),
    }  # fmt: skip
    sizes = {'rgb8': 3, 'bgr8': 3, '8UC3': 3, 'rgba8': 4, 'bgra8': 4, '8UC4': 4}
    wide = {'mono16': (1, (0, 0, 0)), 'rgb16': (3, (0, 1, 2)), 'bgr16': (3, (2, 1, 0)),
            'rgba16': (4, (0, 1, 2)), 'bgra16': (4, (2, 1, 0))}
    data = bytes(message.data)
    rgb = np.zeros((message.height, message.width, 3), np.uint8)
    for row in range(message.height):
        for column in range(message.width):
            if message.encoding in wide:
                channels, offsets = wide[message.encoding]
                start = row * message.step + 2 * channels * column
                kind = f'{">" if message.is_bigendian else "<"}{channels}H'
                values = struct.unpack_from(kind, data, start)
                rgb[row, column] = [values[offset] // 256 for offset in offsets]
            else:
                start = row * message.step + sizes.get(message.encoding, 1) * column
                rgb[row, column] = [data[start + offset] for offset in order[message.encoding]]
    return rgb


@settings(max_examples=60, deadline=None)
@given(
    encoding=st.sampled_from(
        ['rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', '8UC4', 'mono8', '8UC1',
         'mono16', 'rgb16', 'bgr16', 'rgba16', 'bgra16']
    ),
    height=st.integers(1, 6),
    width=st.integers(1, 7),
    padding=st.integers(0, 9),
    big=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_plain_encodings_with_padding(
    encoding: str, height: int, width: int, padding: int, big: bool, seed: int
) -> None:
    size = {
        'mono8': 1, '8UC1': 1, 'mono16': 2, 'rgba8': 4, 'bgra8': 4, '8UC4': 4,
        'rgb16': 6, 'bgr16': 6, 'rgba16': 8, 'bgra16': 8,
    }.get(encoding, 3)  # fmt: skip
    step = width * size + padding
    data = np.random.default_rng(seed).integers(0, 256, height * step, dtype=np.uint8).tobytes()
    message = make_image(encoding, height, width, step, data, big=big)
    rgb = rgb_from_image(message)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, slow_rgb(message))


def test_rgb8_is_a_view_on_the_message() -> None:
    message = make_image('rgb8', 2, 2, 8, bytes(range(16)))
    rgb = rgb_from_image(message)
    message.data[8 + 3] = 200
    assert rgb[1, 1, 0] == 200


@pytest.mark.parametrize(
    ('pattern', 'corners'),
    [('rggb', 'rggb'), ('bggr', 'bggr'), ('gbrg', 'gbrg'), ('grbg', 'grbg')],
)
@pytest.mark.parametrize(('bits', 'big'), [(8, False), (16, False), (16, True)])
@pytest.mark.parametrize('padding', [0, 6])
def test_bayer_mosaics_of_one_colour(
    pattern: str, corners: str, bits: int, big: bool, padding: int
) -> None:
    pytest.importorskip('rosbags.image')
    colour = {'r': 200, 'g': 120, 'b': 40}
    mosaic = np.empty((8, 10), np.uint16)
    for index, letter in enumerate(corners):
        mosaic[index // 2 :: 2, index % 2 :: 2] = colour[letter]
    if bits == 8:
        rows = mosaic.astype(np.uint8)
    else:
        rows = (mosaic * 257).astype('>u2' if big else '<u2')
    step = rows.strides[0] + padding
    data = b''.join(row.tobytes() + b'\xff' * padding for row in rows)
    rgb = rgb_from_image(make_image(f'bayer_{pattern}{bits}', 8, 10, step, data, big=big))
    # OpenCV copies its neighbours into the outermost pixels; inside the colour is exact.
    np.testing.assert_allclose(rgb[2:-2, 2:-2], np.broadcast_to((200, 120, 40), (4, 6, 3)), atol=1)


def rgb_of_yuv(y: float, u: float, v: float) -> tuple[float, float, float]:
    """Return the colour by ITU-R BT.601, studio range."""
    luma = 1.164 * (y - 16)
    return (
        luma + 1.596 * (v - 128),
        luma - 0.813 * (v - 128) - 0.391 * (u - 128),
        luma + 2.018 * (u - 128),
    )


@pytest.mark.parametrize(('encoding', 'order'), [('yuv422', 'uyvy'), ('yuv422_yuy2', 'yuyv')])
def test_yuv_by_the_formula(encoding: str, order: str) -> None:
    pytest.importorskip('rosbags.image')
    y, u, v = 150, 90, 170
    pixel_pair = bytes({'y': y, 'u': u, 'v': v}[letter] for letter in order)
    data = b''.join(pixel_pair * 3 + b'\x00\x00' for _ in range(4))
    rgb = rgb_from_image(make_image(encoding, 4, 6, 14, data))
    colour = rgb_of_yuv(y, u, v)
    np.testing.assert_allclose(rgb, np.broadcast_to(colour, (4, 6, 3)), atol=1.5)


@pytest.mark.parametrize('encoding', ['nv12', 'nv21', 'nv24'])
@pytest.mark.parametrize('padding', [0, 6])
def test_planar_yuv_pixel_by_pixel(encoding: str, padding: int) -> None:
    # Bytes of the planes by hand: luma rows, then chroma pairs, padding at the end of each row.
    generator = np.random.default_rng(5)
    height, width, cell = 4, 6, 1 if encoding == 'nv24' else 2
    y = generator.integers(60, 190, (height, width))
    u, v = generator.integers(100, 156, (2, height // cell, width // cell))
    first, second = (v, u) if encoding == 'nv21' else (u, v)
    data = b''.join(bytes(row.tolist()) + b'\xff' * padding for row in y)
    for row in range(height // cell):
        pairs = [value for pair in zip(first[row], second[row]) for value in map(int, pair)]
        data += bytes(pairs) + b'\xff' * (padding * (3 - cell))
    rgb = rgb_from_image(make_image(encoding, height, width, width + padding, data))
    assert rgb.shape == (height, width, 3)
    for row, column in np.ndindex(height, width):
        there = row // cell, column // cell
        expected = rgb_of_yuv(y[row, column], u[there], v[there])
        np.testing.assert_allclose(rgb[row, column], expected, atol=1.5)


@pytest.mark.parametrize(
    ('encoding', 'height', 'width', 'step', 'count', 'words'),
    [
        ('rgb9', 4, 4, 12, 48, "'rgb9' is unknown; publish rgb8"),
        ('', 4, 4, 12, 48, "encoding ''"),
        ('32FC1', 4, 4, 16, 64, "'32FC1' is not a colour image"),
        ('16UC1', 4, 4, 8, 32, "'16UC1' is not a colour image"),
        ('rgb8', 4, 4, 11, 44, 'step 11 is shorter than a row'),
        ('rgb8', 4, 4, 0, 0, 'step 0 is shorter'),
        ('rgb8', 4, 4, 13, 48, 'holds 48 bytes, but step 13 x height 4 is 52'),
        ('rgb8', 5, 4, 12, 48, 'holds 48 bytes, but step 12 x height 5 is 60'),
        ('rgb8', 3, 4, 12, 48, 'holds 48 bytes, but step 12 x height 3 is 36'),
        ('rgb8', 4, 100000, 12, 48, '100000 pixels of rgb8 take 300000 bytes'),
        ('rgb8', 0, 4, 12, 0, '4x0 pixels is empty'),
        ('rgb8', 4, 0, 0, 0, '0x4 pixels is empty'),
        ('mono8', 4, 4, 4, 0, 'holds 0 bytes'),
        ('bayer_rggb8', 4, 4, 3, 12, 'step 3 is shorter'),
        ('bayer_rggb16', 4, 4, 4, 16, 'step 4 is shorter'),
        ('yuv422', 4, 4, 4, 16, 'step 4 is shorter'),
        ('yuv422', 4, 4, 8, 31, 'holds 31 bytes'),
        ('nv12', 4, 4, 4, 16, 'holds 16 bytes, but step 4 x height 6 is 24'),
        ('nv12', 3, 4, 4, 18, '4x3 pixels cannot be nv12: both must be even'),
        ('nv21', 4, 4, 3, 18, 'step 3 is shorter'),
        ('nv24', 4, 4, 4, 24, 'holds 24 bytes, but step 4 x height 12 is 48'),
        ('nv24', 0, 4, 4, 0, '4x0 pixels is empty'),
    ],
)
def test_a_lie_is_refused_with_its_values(
    encoding: str, height: int, width: int, step: int, count: int, words: str
) -> None:
    with pytest.raises(ImageCodecError) as caught:
        rgb_from_image(make_image(encoding, height, width, step, bytes(count)))
    assert words in str(caught.value)


def install_bridge(monkeypatch: pytest.MonkeyPatch, bridge: type) -> None:
    """Make `from cv_bridge import CvBridge` give `bridge`."""
    from types import ModuleType

    module = ModuleType('cv_bridge')
    module.CvBridge = bridge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)


class FailingBridge:
    """A cv_bridge that imports, but was built for another NumPy."""

    def imgmsg_to_cv2(self, message: Any, encoding: str) -> Any:
        raise RuntimeError('no such conversion')


def test_what_no_converter_can_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install_bridge(monkeypatch, FailingBridge)
    monkeypatch.setitem(sys.modules, 'rosbags.image', None)
    with pytest.raises(ImageCodecError, match=r"'yuv422' could not be converted.*no such"):
        rgb_from_image(make_image('yuv422', 2, 2, 4, bytes(8)))


def test_where_cv_bridge_fails_rosbags_image_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('rosbags.image')
    install_bridge(monkeypatch, FailingBridge)
    y, u, v = 120, 140, 100
    rgb = rgb_from_image(make_image('yuv422', 2, 2, 4, bytes([u, y, v, y] * 2)))
    colour = rgb_of_yuv(y, u, v)
    np.testing.assert_allclose(rgb, np.broadcast_to(colour, (2, 2, 3)), atol=1.5)


def test_cv_bridge_is_preferred_and_given_plain_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Bridge:
        def imgmsg_to_cv2(self, message: Any, encoding: str) -> np.ndarray:
            seen.append((message, encoding))
            return np.zeros((message.height, message.width, 3), np.uint8)

    install_bridge(monkeypatch, Bridge)
    rgb_from_image(make_image('bayer_rggb8', 2, 2, 3, bytes([1, 2, 9, 3, 4, 9])))
    message, encoding = seen[0]
    assert encoding == 'rgb8'
    assert (message.step, message.header.frame_id) == (2, 'optical')
    assert bytes(message.data) == bytes([1, 2, 3, 4])


def test_without_a_converter_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)
    monkeypatch.setitem(sys.modules, 'rosbags.image', None)
    with pytest.raises(ImageCodecError, match='ros-<distro>-cv-bridge'):
        rgb_from_image(make_image('bayer_rggb8', 2, 2, 2, bytes(4)))


def test_compressed_images() -> None:
    import cv2

    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    _, png = cv2.imencode('.png', pixels[..., ::-1])
    message = CompressedImage(header=HEADER, format='png', data=array('B', png.tobytes()))
    np.testing.assert_array_equal(rgb_from_compressed(message), pixels)
    for bad in (b'', png.tobytes()[:20], b'not an image'):
        with pytest.raises(ImageCodecError, match='bytes of a compressed image'):
            rgb_from_compressed(CompressedImage(format='png', data=array('B', bad)))


@pytest.mark.parametrize(
    ('encoding', 'scalar', 'channels'),
    [('mono8', np.uint8, ()), ('rgb8', np.uint8, (3,)), ('32FC1', np.float32, ()),
     ('32FC3', np.float32, (3,))],
)  # fmt: skip
def test_an_image_survives_the_wire(encoding: str, scalar: Any, channels: tuple) -> None:
    values = np.random.default_rng(1).normal(100, 50, (4, 6, *channels)).astype(scalar)
    if scalar is np.float32:
        values[0, 0] = np.nan
    # Every second column of a wider array: what is not contiguous has to be packed.
    wide = np.repeat(values, 2, axis=1)
    message = image_message(HEADER, encoding, wide[:, ::2])
    received = deserialize_message(serialize_message(message), Image)
    assert received.header == HEADER
    assert (received.encoding, received.is_bigendian) == (encoding, 0)
    assert received.step == 6 * int(np.prod(channels, initial=1)) * np.dtype(scalar).itemsize
    assert bytes(received.data) == values.tobytes()


def test_a_cloud_message_is_written_in_place_and_resized() -> None:
    rosbags = pytest.importorskip('rosbags.typesys')
    writer = CloudMessage()
    for height, width in ((2, 3), (2, 3), (4, 1)):
        points = writer.points((height, width, 8))
        values = np.random.default_rng(height).normal(size=points.shape).astype(np.float32)
        points[...] = values
        writer.message.header = HEADER
        # rosbags reads the bytes with its own reader.
        store = rosbags.get_typestore(rosbags.Stores.ROS2_HUMBLE)
        raw = serialize_message(writer.message)
        read = store.deserialize_cdr(raw, 'sensor_msgs/msg/PointCloud2')
        assert (read.height, read.width, read.point_step) == (height, width, 32)
        assert (read.row_step, read.is_dense) == (32 * width, False)
        assert [one.name for one in read.fields][3:] == [
            'rgb', 'normal_x', 'normal_y', 'normal_z', 'label',
        ]  # fmt: skip
        assert read.data.tobytes() == values.tobytes()


def test_the_camera_info_of_a_rectified_image_reads_back_as_its_camera() -> None:
    camera = CameraModel(640, 480, 501.5, 502.5, 320.25, 241.75)
    message = camera_info_message(HEADER, camera)
    received = deserialize_message(serialize_message(message), CameraInfo)
    model = CameraModel.from_camera_info(received)
    assert model.is_rectified
    assert model.rectified() == camera
    assert list(received.d) == [0.0] * 5


def test_an_image_message_is_filled_in_place_and_again() -> None:
    """Pixels written into it, or taken over, are its bytes; another size starts afresh."""
    kept = ImageMessage('32FC3')
    pixels = kept.pixels((2, 3, 3), np.float32)
    pixels[...] = np.arange(18).reshape(2, 3, 3)
    kept.fill(pixels)
    message = kept.message
    assert (message.height, message.width, message.step) == (2, 3, 36)
    assert message.encoding == '32FC3'
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), np.arange(18))
    other = np.full((2, 3, 3), 7, np.float32)
    kept.fill(other)
    assert kept.pixels((2, 3, 3), np.float32) is pixels
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), 7)
    kept.fill(np.ones((4, 1, 3), np.float32)[::2])
    assert (message.height, message.width, message.step) == (2, 1, 12)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.float32), 1)
