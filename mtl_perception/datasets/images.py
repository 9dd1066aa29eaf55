# SPDX-License-Identifier: Apache-2.0
"""Read the files of datasets as arrays, and name a file that is missing, cut short or odd."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
from mtl_perception.datasets.errors import DatasetError
import numpy as np
import numpy.typing as npt

_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8\xff'
# What a whole file ends with; a few bytes may follow.
_ENDS = {_PNG: b'IEND\xaeB`\x82', _JPEG: b'\xff\xd9'}
_TAIL = 4096
_BIT_DEPTH, _COLOUR_TYPE = slice(24, 25), slice(25, 26)  # in the header of a PNG
_PALETTE = b'\x03'
_FEW_BITS = (b'\x01', b'\x02', b'\x04')


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f'{path} cannot be read: {error.strerror}'
        raise DatasetError(msg) from error
    # OpenCV fills what is missing of a cut file with grey and says so on stderr only.
    for start, end in _ENDS.items():
        if data.startswith(start) and end not in data[-_TAIL:]:
            msg = f'{path} is cut short ({len(data)} bytes): fetch it again'
            raise DatasetError(msg)
    return data


def _decode(path: Path, data: bytes, flags: int) -> npt.NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error as error:
        msg = f'{path} cannot be decoded: {error.err}'
        raise DatasetError(msg) from error
    if image is None:
        msg = f'{path} ({len(data)} bytes) is no image that OpenCV can decode'
        raise DatasetError(msg)
    return np.asarray(image)


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """
    Read a photograph as (H, W, 3) uint8 RGB.

    An orientation tag is ignored: labels and intrinsics are for the stored pixels.

    Raises
    ------
    DatasetError
        If the file is missing, cut short or no image.

    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(path, _read_bytes(path), flags)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_stored(path: Path) -> npt.NDArray[Any]:
    """
    Read an image as its numbers: 8 or 16 bit, (H, W), or (H, W, 3) in the order R, G, B.

    Raises
    ------
    DatasetError
        If the file is missing, cut short or no image.

    """
    image = _decode(path, _read_bytes(path), cv2.IMREAD_UNCHANGED)
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])


def read_labels(path: Path) -> npt.NDArray[Any]:
    """
    Read a label image (H, W), 8 or 16 bit; of a palette PNG the indices, not the colours.

    Raises
    ------
    DatasetError
        If the file is missing, cut short, no image or no label image.

    """
    data = _read_bytes(path)
    if data.startswith(_PNG) and data[_COLOUR_TYPE] == _PALETTE:
        # OpenCV expands palettes to colours.
        from PIL import Image

        try:
            return np.asarray(Image.open(BytesIO(data)))
        # Pillow has an error for each way in which a PNG can be broken.
        except Exception as error:
            msg = f'{path} cannot be decoded: {error}'
            raise DatasetError(msg) from error
    if data.startswith(_PNG) and data[_BIT_DEPTH] in _FEW_BITS:
        # OpenCV stretches them to 0..255.
        msg = f'{path} is a grey PNG of {data[_BIT_DEPTH][0]} bits; save labels with 8 or 16 bits'
        raise DatasetError(msg)
    labels = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if labels.ndim != 2:
        msg = f'{path} has {labels.shape[2]} channels; a label image has one number per pixel'
        raise DatasetError(msg)
    return labels


def read_array(path: Path) -> npt.NDArray[Any]:
    """
    Read a NumPy file of numbers.

    Raises
    ------
    DatasetError
        If the file is missing, cut short or holds anything but numbers.

    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        msg = f'{path} cannot be read as a NumPy array of numbers: {error}'
        raise DatasetError(msg) from error
    return np.asarray(array)
