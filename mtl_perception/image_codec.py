# SPDX-License-Identifier: Apache-2.0
"""Turn the bytes of a ROS image message into arrays, with NumPy and OpenCV alone."""

from __future__ import annotations

import re
import struct
from typing import Any, Final

import cv2
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.rvl import decode_rvl
import numpy as np
from numpy.typing import NDArray

# The named encodings of sensor_msgs/image_encodings.hpp that a plain view can read: scalar
# type and channels. The OpenCV-like names ('16UC1', '32FC3') follow the rule below instead.
_NAMED: Final = {
    'rgb8': ('u1', 3),
    'bgr8': ('u1', 3),
    'rgba8': ('u1', 4),
    'bgra8': ('u1', 4),
    'mono8': ('u1', 1),
    'mono16': ('u2', 1),
    'rgb16': ('u2', 3),
    'bgr16': ('u2', 3),
    'rgba16': ('u2', 4),
    'bgra16': ('u2', 4),
}
_GENERIC: Final = re.compile(r'(8U|8S|16U|16S|32S|32F|64F)C([1-9]\d*)?')
_SCALARS: Final = {
    '8U': 'u1', '8S': 'i1', '16U': 'u2', '16S': 'i2', '32S': 'i4', '32F': 'f4', '64F': 'f8',
}
_TO_RGB: Final = {
    'bgr8': cv2.COLOR_BGR2RGB,
    '8UC3': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    '8UC4': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
    '8UC1': cv2.COLOR_GRAY2RGB,
}
# Encodings of sixteen bits become those of eight by their upper bytes.
_EIGHT_BITS: Final = {
    f'{order}16': f'{order}8' for order in ('mono', 'rgb', 'bgr', 'rgba', 'bgra')
}
# A plane of luma above one of chroma pairs; `decode_planes` reads them.
PLANAR_ENCODINGS: Final = ('nv12', 'nv21', 'nv24')

# What compressed_depth_image_transport puts before the picture: its format, a float for the
# scale of inverse depth and one for its offset.
_DEPTH_HEADER: Final = struct.Struct('<iff')
# And what follows it before RVL: columns and rows.
_RVL_SIZE: Final = struct.Struct('<ii')
_MOST_PIXELS: Final = 1 << 26  # beyond any depth camera: a size made of damaged bytes


class ImageCodecError(MtlPerceptionError):
    """An image message whose bytes cannot be read as it claims."""


def image_layout(encoding: str) -> tuple[np.dtype[Any], int] | None:
    """
    Return the scalar type and the channels of a plainly stored encoding.

    None for an encoding that needs more than a view (Bayer, YUV, ...) or that is unknown:
    the caller then asks cv_bridge or rosbags-image.
    """
    if encoding in _NAMED:
        scalar, channels = _NAMED[encoding]
        return np.dtype(scalar), channels
    if match := _GENERIC.fullmatch(encoding):
        return np.dtype(_SCALARS[match[1]]), int(match[2] or 1)
    return None


def decode_image(
    encoding: str,
    height: int,
    width: int,
    step: int,
    data: Any,
    is_bigendian: bool | int = False,
) -> NDArray[Any]:
    """
    Read the fields of a sensor_msgs/Image as an array, without a copy where possible.

    `data` is anything with the buffer protocol. Returns (H, W) or (H, W, C) in the machine's
    byte order and in the encoding's own channel order; a view on `data` unless its bytes have
    to be swapped. Source: sensor_msgs/msg/Image (`data` holds step * height bytes).

    Raises
    ------
    ImageCodecError
        The encoding is not a plain one (see `image_layout`), or height, width, step and the
        number of bytes contradict each other.

    """
    layout = image_layout(encoding)
    if layout is None:
        raise ImageCodecError(
            f'image encoding {encoding!r} cannot be read as plain rows; '
            f'known are {", ".join(_NAMED)} and the OpenCV names such as 16UC1 and 32FC1'
        )
    scalar, channels = layout
    if height <= 0 or width <= 0:
        raise ImageCodecError(f'image of {width}x{height} pixels is empty; it must be positive')
    row_bytes = width * channels * scalar.itemsize
    if step < row_bytes:
        raise ImageCodecError(
            f'image step {step} is shorter than a row: '
            f'{width} pixels of {encoding} take {row_bytes} bytes'
        )
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size != step * height:
        raise ImageCodecError(
            f'image holds {buffer.size} bytes, but step {step} x height {height} '
            f'is {step * height}'
        )
    shape = (height, width) if channels == 1 else (height, width, channels)
    strides = (step, channels * scalar.itemsize, scalar.itemsize)[: len(shape)]
    stored = scalar.newbyteorder('>' if is_bigendian else '<')
    array: NDArray[Any] = np.ndarray(shape, stored, buffer, strides=strides)
    return array if stored == scalar else array.astype(scalar)


def to_rgb(image: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    """
    Convert what `decode_image` returned to (H, W, 3) uint8 RGB; rgb8 passes as it is.

    8UC1, 8UC3 and 8UC4 are taken as grey, BGR and BGRA, as OpenCV and RViz do. mono16, rgb16
    and their like keep their upper bytes.

    Raises
    ------
    ImageCodecError
        The encoding carries no colour (for example 32FC1).

    """
    if encoding in _EIGHT_BITS:
        image, encoding = (image >> 8).astype(np.uint8), _EIGHT_BITS[encoding]
    if encoding == 'rgb8':
        return image
    if encoding not in _TO_RGB:
        raise ImageCodecError(
            f'image encoding {encoding!r} is not a colour image; '
            f'expected one of rgb8, {", ".join((*_TO_RGB, *_EIGHT_BITS))}'
        )
    return np.asarray(cv2.cvtColor(image, _TO_RGB[encoding]), np.uint8)


def decode_planes(
    encoding: str, height: int, width: int, step: int, data: Any
) -> NDArray[np.uint8]:
    """
    Read a sensor_msgs/Image of `PLANAR_ENCODINGS` to (H, W, 3) uint8 RGB.

    `height` rows of `step` bytes hold luma. nv12 (U first) and nv21 (V first) then hold a pair
    of chroma for each 2x2 pixels in height / 2 rows of the same step, nv24 (U first) one for
    each pixel in rows of twice the step. Colours are ITU-R BT.601, studio range, as OpenCV
    reads all YUV. Source: sensor_msgs/image_encodings.hpp (getHeightScaling), V4L2.

    Raises
    ------
    ImageCodecError
        If the size is empty, or odd for nv12 and nv21, or contradicts the bytes.

    """
    is_full = encoding == 'nv24'
    if not is_full and (width % 2 or height % 2):
        raise ImageCodecError(
            f'image of {width}x{height} pixels cannot be {encoding}: both must be even'
        )
    luma_rows, chroma_rows = height, 2 * height if is_full else height // 2
    # The checks of size, step and number of bytes are those of rows one below the other.
    rows = decode_image('mono8', luma_rows + chroma_rows, width, step, data)
    if not is_full:
        code = cv2.COLOR_YUV2RGB_NV12 if encoding == 'nv12' else cv2.COLOR_YUV2RGB_NV21
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(rows), code), np.uint8)
    luma = rows[:height]
    chroma = np.frombuffer(data, np.uint8)[height * step :].reshape(height, 2 * step)
    # OpenCV has no nv24, but YUV 4:2:2 whose pixel pairs are one pixel each is the same.
    pairs = np.stack((luma, chroma[:, 0 : 2 * width : 2], luma, chroma[:, 1 : 2 * width : 2]), -1)
    doubled = cv2.cvtColor(pairs.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_YUY2)
    return np.ascontiguousarray(doubled[:, ::2])


def to_metres(image: NDArray[Any], encoding: str) -> NDArray[np.float32]:
    """
    Convert what `decode_image` returned to depth (H, W) float32 in metres, NaN = invalid.

    16UC1 and mono16 are millimetres with 0 = invalid; 32FC1 and 64FC1 are metres, of which
    zero, negative and non-finite ones are invalid. Source: REP-118, REP-117.

    Raises
    ------
    ImageCodecError
        The encoding cannot carry depth.

    """
    if encoding in ('16UC1', '16UC', 'mono16'):
        depth = image.astype(np.float32) / np.float32(1000.0)
    elif encoding in ('32FC1', '32FC', '64FC1', '64FC'):
        depth = image.astype(np.float32)
    else:
        raise ImageCodecError(
            f'image encoding {encoding!r} is not a depth image; expected 16UC1 (millimetres) '
            'or 32FC1 (metres)'
        )
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def decode_compressed(data: Any) -> NDArray[np.uint8]:
    """
    Decode the JPEG or PNG bytes of a sensor_msgs/CompressedImage to (H, W, 3) uint8 RGB.

    An orientation tag in the file is ignored: the CameraInfo describes the stored pixels.

    Raises
    ------
    ImageCodecError
        The bytes are empty, cut short beyond repair, or not an image.

    """
    buffer = np.frombuffer(data, np.uint8)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(buffer, flags) if buffer.size else None
    except cv2.error as error:
        raise ImageCodecError(f'compressed image cannot be decoded: {error.err}') from error
    if image is None:
        raise ImageCodecError(f'{buffer.size} bytes of a compressed image are not a JPEG or PNG')
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def decode_compressed_depth(data: Any, format_name: str) -> NDArray[np.float32]:
    """
    Decode a compressedDepth sensor_msgs/CompressedImage to depth (H, W) in metres, NaN = invalid.

    `format_name` is the message's format: '16UC1; compressedDepth png', where the PNG after
    the 12 bytes of header holds millimetres; or '32FC1; compressedDepth png', where it holds
    quantised inverse depth q = a / z + b with a and b in the header, 0 = invalid. With `rvl` for
    `png`, columns and rows (int32) and RVL code (`mtl_perception.rvl`) take the PNG's place.
    Source: compressed_depth_image_transport.

    Raises
    ------
    ImageCodecError
        The bytes are too few, no 16 bit PNG or no RVL, or the format is another.

    """
    encoding = format_name.partition(';')[0].strip()
    buffer = np.frombuffer(data, np.uint8)
    if encoding not in ('16UC1', 'mono16', '32FC1'):
        raise ImageCodecError(
            f'compressed depth of format {format_name!r} cannot be decoded; known are '
            "'16UC1; compressedDepth' and '32FC1; compressedDepth', png or rvl"
        )
    is_rvl = 'rvl' in format_name.lower()
    picture = _rvl_picture(buffer) if is_rvl else _png_picture(buffer)
    if encoding != '32FC1':
        return to_metres(picture, '16UC1')
    _, scale, offset = _DEPTH_HEADER.unpack_from(buffer.data)
    with np.errstate(divide='ignore', invalid='ignore'):
        depth = np.float32(scale) / (picture.astype(np.float32) - np.float32(offset))
    depth[picture == 0] = np.nan
    return to_metres(depth, '32FC1')


def _rvl_picture(buffer: NDArray[np.uint8]) -> NDArray[np.uint16]:
    start = _DEPTH_HEADER.size + _RVL_SIZE.size
    if buffer.size < start:
        raise ImageCodecError(
            f'{buffer.size} bytes of compressed depth are less than the {start} of its header'
        )
    columns, rows = _RVL_SIZE.unpack_from(buffer.data, _DEPTH_HEADER.size)
    if columns <= 0 or rows <= 0 or columns * rows > _MOST_PIXELS:
        raise ImageCodecError(f'compressed depth of {columns}x{rows} pixels cannot be')
    try:
        return decode_rvl(buffer[start:], columns * rows).reshape(rows, columns)
    except ValueError as error:
        raise ImageCodecError(f'compressed depth is damaged: {error}') from error


def _png_picture(buffer: NDArray[np.uint8]) -> NDArray[np.uint16]:
    picture = None
    try:
        if buffer.size > _DEPTH_HEADER.size:
            picture = cv2.imdecode(buffer[_DEPTH_HEADER.size :], cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageCodecError(f'compressed depth cannot be decoded: {error.err}') from error
    if picture is None or picture.dtype != np.uint16 or picture.ndim != 2:
        raise ImageCodecError(
            f'{buffer.size} bytes of compressed depth are not {_DEPTH_HEADER.size} bytes of '
            'header and a 16 bit PNG'
        )
    return picture
