# SPDX-License-Identifier: Apache-2.0
"""Image messages as the arrays that travel between the rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
from mtl_perception.bags.errors import BagError
from mtl_perception.image_codec import (
    decode_compressed,
    decode_compressed_depth,
    decode_image,
    decode_planes,
    image_layout,
    PLANAR_ENCODINGS,
    to_metres,
    to_rgb,
)
from mtl_perception.values import UNLABELLED
import numpy as np
import numpy.typing as npt


def decode_colour(message: Any) -> npt.NDArray[np.uint8]:
    """
    Return a sensor_msgs Image or CompressedImage as (H, W, 3) uint8 RGB.

    Raises
    ------
    ImageCodecError, BagError
        If the bytes are no colour image.

    """
    if not hasattr(message, 'encoding'):
        return decode_compressed(message.data)
    if image_layout(message.encoding) is not None:
        return to_rgb(_array(message), message.encoding)
    if message.encoding in PLANAR_ENCODINGS:
        return decode_planes(
            message.encoding, message.height, message.width, message.step, message.data
        )
    from rosbags.image import ImageError, message_to_cvimage

    try:
        return np.asarray(message_to_cvimage(message, 'rgb8'), np.uint8)
    # A size that lies ends in OpenCV or NumPy, which raise errors of their own.
    except (ImageError, cv2.error, ValueError, TypeError, IndexError) as error:
        msg = f'image encoding {message.encoding!r} cannot be decoded: {error}'
        raise BagError(msg) from error


def decode_target(kind: str, message: Any) -> npt.NDArray[Any]:
    """
    Return a sensor_msgs/Image as the target of a task kind (see `mtl_perception.values`).

    depth is 16UC1 or 32FC1, or a CompressedImage of compressedDepth; labels are mono8 or 16UC1
    ids; normals are 32FC3; edges are mono8, from 128 on an edge.

    Raises
    ------
    ImageCodecError, BagError
        If the bytes or the encoding cannot be that.

    """
    if not hasattr(message, 'encoding'):
        if kind != 'depth':
            msg = f'a CompressedImage of format {message.format!r} cannot hold {kind}'
            raise BagError(msg)
        return decode_compressed_depth(message.data, message.format)
    array = _array(message)
    if kind == 'depth':
        return to_metres(array, message.encoding)
    scalar, channels, convert = _TARGETS[kind]
    if array.dtype.kind != scalar or array.shape[2:] != channels:
        msg = f'image encoding {message.encoding!r} cannot hold {kind}'
        raise BagError(msg)
    return convert(array)


def _labels(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.minimum(array, UNLABELLED).astype(np.uint8)


def _normals(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return array.astype(np.float32)


def _edges(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return (array >= 128).astype(np.uint8)


# By kind: NumPy's kind of scalar, the shape of a pixel, and what makes it a target.
_Convert = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
_TARGETS: dict[str, tuple[str, tuple[int, ...], _Convert]] = {
    'semantic': ('u', (), _labels),
    'normals': ('f', (3,), _normals),
    'edges': ('u', (), _edges),
}


def _array(message: Any) -> npt.NDArray[Any]:
    return decode_image(
        message.encoding,
        message.height,
        message.width,
        message.step,
        message.data,
        message.is_bigendian,
    )
