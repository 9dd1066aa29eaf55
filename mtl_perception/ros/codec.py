# SPDX-License-Identifier: Apache-2.0
"""Messages to arrays and back: the one place that knows how bytes lie in a ROS message."""

from __future__ import annotations

from array import array
import math
import re
import sys
from types import SimpleNamespace
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.geometry.cloud import CLOUD_FIELDS
from mtl_perception.image_codec import (
    decode_compressed,
    decode_image,
    decode_planes,
    image_layout,
    ImageCodecError,
    PLANAR_ENCODINGS,
    to_rgb,
)
from mtl_perception.output_topics import Pinhole
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

_IS_BIGENDIAN = sys.byteorder == 'big'
_POINT_FIELD_TYPES = {'f4': PointField.FLOAT32, 'u4': PointField.UINT32}
# Bytes per pixel of what only cv_bridge or rosbags-image can turn into colour.
_PACKED = re.compile(r'bayer_(?:rggb|bggr|gbrg|grbg)(8|16)|(yuv422(?:_yuy2)?|uyvy|yuyv)')


def rgb_from_image(message: Image) -> npt.NDArray[np.uint8]:
    """
    Return the pixels of a sensor_msgs/Image as (H, W, 3) RGB; rgb8 is a view, not a copy.

    Bayer patterns and YUV 4:2:2 go through cv_bridge, or rosbags-image where that fails.

    Raises
    ------
    ImageCodecError
        If the message contradicts itself or its encoding cannot become RGB.

    """
    if message.encoding in PLANAR_ENCODINGS:
        return decode_planes(
            message.encoding, message.height, message.width, message.step, message.data
        )
    if image_layout(message.encoding) is None:
        return _rgb_from_rare(message)
    pixels = decode_image(
        message.encoding, message.height, message.width, message.step, message.data,
        message.is_bigendian,
    )  # fmt: skip
    return to_rgb(pixels, message.encoding)


def rgb_from_compressed(message: CompressedImage) -> npt.NDArray[np.uint8]:
    """
    Return the pixels of a sensor_msgs/CompressedImage (JPEG or PNG) as (H, W, 3) RGB.

    Raises
    ------
    ImageCodecError
        If the bytes are not a whole image.

    """
    return decode_compressed(message.data)


def _rgb_from_rare(message: Image) -> npt.NDArray[np.uint8]:
    match = _PACKED.fullmatch(message.encoding)
    if match is None:
        msg = (
            f'image encoding {message.encoding!r} is unknown; publish rgb8, bgr8, rgba8, bgra8, '
            'mono8, the same with 16, nv12, nv21, nv24, a Bayer pattern or YUV 4:2:2'
        )
        raise ImageCodecError(msg)
    scalar = '16UC1' if match[1] == '16' else '8UC1'
    # Two bytes a pixel either way in YUV 4:2:2; the checks of step and size are decode_image's.
    width = message.width * (1 if match[1] else 2)
    rows = decode_image(
        scalar, message.height, width, message.step, message.data, message.is_bigendian
    )
    # Without padding and in our own byte order: cv_bridge and rosbags-image trust these fields.
    plain = SimpleNamespace(
        header=message.header,
        encoding=message.encoding,
        height=message.height,
        width=message.width,
        step=width * rows.itemsize,
        is_bigendian=int(_IS_BIGENDIAN),
        data=rows.reshape(-1).view(np.uint8),
    )
    problems = []
    for name, load in (('cv_bridge', _cv_bridge), ('rosbags-image', _rosbags_image)):
        try:
            return np.asarray(load()(plain, 'rgb8'), np.uint8)
        except ModuleNotFoundError:
            continue
        # Both raise what OpenCV, Boost or NumPy gave them, and a cv_bridge built for NumPy 1
        # fails in its own ways beside NumPy 2: the other may still be able to.
        except Exception as error:
            problems.append(f'{name}: {error}')
    if not problems:
        msg = (
            'Bayer and YUV 4:2:2 images need cv_bridge or rosbags-image: install '
            'ros-<distro>-cv-bridge, or pip install rosbags-image'
        )
        raise ImageCodecError(msg)
    msg = (
        f'image encoding {message.encoding!r} could not be converted to rgb8 '
        f'({"; ".join(problems)}); publish rgb8'
    )
    raise ImageCodecError(msg)


def _cv_bridge() -> Any:
    from cv_bridge import CvBridge

    return CvBridge().imgmsg_to_cv2


def _rosbags_image() -> Any:
    from rosbags.image import message_to_cvimage

    return message_to_cvimage


def fill(message: Image | PointCloud2, values: npt.NDArray[Any]) -> None:
    """
    Give a fresh message the bytes of a C-contiguous array.

    `frombytes` into the message's own array is the only way that no distribution checks
    element by element, which takes a hundred times longer (Humble always does).
    """
    message.data.frombytes(values.data.cast('B'))


def image_message(header: Header, encoding: str, values: npt.NDArray[Any]) -> Image:
    """Return an Image of `values` (H, W) or (H, W, C); the encoding must be that of the array."""
    values = np.ascontiguousarray(values)
    message = Image()
    message.header = header
    message.height, message.width = values.shape[:2]
    message.encoding = encoding
    message.is_bigendian = int(_IS_BIGENDIAN)
    message.step = values.strides[0]
    fill(message, values)
    return message


class ImageMessage:
    """An Image whose bytes are written in place, frame after frame; see `CloudMessage`."""

    def __init__(self, encoding: str) -> None:
        self.message = Image(encoding=encoding, is_bigendian=int(_IS_BIGENDIAN))
        self._pixels = np.empty(0, np.uint8)

    def pixels(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the message's own buffer as (h, w) or (h, w, c), to be filled."""
        if self._pixels.shape != shape or self._pixels.dtype != dtype:
            row = math.prod(shape[1:]) * np.dtype(dtype).itemsize
            self.message.data = array('B', bytes(shape[0] * row))
            self.message.height, self.message.width = shape[:2]
            self.message.step = row
            self._pixels = np.frombuffer(self.message.data, dtype).reshape(shape)
        return self._pixels

    def fill(self, values: npt.NDArray[Any]) -> None:
        """Take over an image, unless it was written into `pixels` to begin with."""
        if values is not self._pixels:
            np.copyto(self.pixels(values.shape, values.dtype), values)


class CloudMessage:
    """
    A PointCloud2 whose bytes are written in place, frame after frame.

    A cloud at 640x480 is 10 MB: filling a buffer of its own first would cost a third more.
    `publish` serialises, so the message may be changed as soon as it returns.
    """

    def __init__(self) -> None:
        self.message = PointCloud2()
        self.message.fields = [
            PointField(name=name, offset=4 * index, datatype=_POINT_FIELD_TYPES[kind], count=1)
            for index, (name, kind) in enumerate(CLOUD_FIELDS)
        ]
        self.message.is_bigendian = _IS_BIGENDIAN
        self.message.point_step = 4 * len(CLOUD_FIELDS)
        self.message.is_dense = False  # invalid points are NaN

    def points(self, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
        """Return the message's own buffer as (h, w, 8) float32, to be filled."""
        height, width, fields = shape
        if (self.message.height, self.message.width) != (height, width):
            self.message.data = array('B', bytes(4 * height * width * fields))
            self.message.height, self.message.width = height, width
            self.message.row_step = self.message.point_step * width
        return np.frombuffer(self.message.data, np.float32).reshape(shape)


def camera_info_message(header: Header, camera: CameraModel) -> CameraInfo:
    """Return the CameraInfo of a rectified image: K and P of the pinhole, no distortion."""
    message = CameraInfo()
    message.header = header
    message.width, message.height = camera.width, camera.height
    pinhole = Pinhole.of(camera)
    message.distortion_model = pinhole.distortion_model
    message.d, message.k, message.r, message.p = (
        list(values) for values in (pinhole.d, pinhole.k, pinhole.r, pinhole.p)
    )
    return message
