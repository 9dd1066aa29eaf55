# SPDX-License-Identifier: Apache-2.0
"""Image bytes against NumPy's own packing, for every encoding, byte order and padding."""

from __future__ import annotations

from array import array as byte_array

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.image_codec import (
    decode_compressed,
    decode_image,
    image_layout,
    ImageCodecError,
    to_metres,
    to_rgb,
)
import numpy as np
import pytest

ENCODINGS = {
    'rgb8': ('u1', 3), 'bgr8': ('u1', 3), 'rgba8': ('u1', 4), 'bgra8': ('u1', 4),
    'mono8': ('u1', 1), 'mono16': ('u2', 1), 'rgb16': ('u2', 3),
    'bgra16': ('u2', 4), '8UC1': ('u1', 1), '8SC2': ('i1', 2), '16UC1': ('u2', 1),
    '16SC3': ('i2', 3), '32SC1': ('i4', 1), '32FC1': ('f4', 1),
    '32FC3': ('f4', 3), '64FC1': ('f8', 1), '16UC': ('u2', 1), '8UC12': ('u1', 12),
}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from(sorted(ENCODINGS)),
    height=st.integers(1, 6),
    width=st.integers(1, 7),
    padding=st.integers(0, 5),
    big=st.booleans(),
    holder=st.sampled_from([bytes, bytearray, lambda data: byte_array('B', data), memoryview]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_was_packed_comes_back(
    encoding: str, height: int, width: int, padding: int, big: bool, holder: type, seed: int
) -> None:
    scalar, channels = ENCODINGS[encoding]
    shape = (height, width) if channels == 1 else (height, width, channels)
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(scalar)
    order = '>' if big else '<'
    rows = [
        row.astype(order + scalar).tobytes() + b'\xee' * padding
        for row in values.reshape(height, -1)
    ]
    step = len(rows[0])
    result = decode_image(encoding, height, width, step, holder(b''.join(rows)), big)
    assert result.dtype == np.dtype(scalar)
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, values)
    assert image_layout(encoding) == (np.dtype(scalar), channels)


def test_native_bytes_are_not_copied() -> None:
    data = np.arange(24, dtype=np.uint8)
    view = decode_image('rgb8', 2, 3, 12, data)
    assert np.shares_memory(view, data)


@pytest.mark.parametrize(
    ('fields', 'reason'),
    [
        (('rgb8', 0, 3, 9, b''), '3x0'),
        (('rgb8', 2, 0, 9, bytes(18)), '0x2'),
        (('rgb8', -2, 3, 9, bytes(18)), '3x-2'),
        (('rgb8', 2, 3, 8, bytes(16)), 'step 8'),
        (('rgb8', 2, 3, 9, bytes(17)), '17 bytes'),
        (('rgb8', 2, 3, 9, bytes(19)), '19 bytes'),
        (('rgb8', 2, 3, 9, b''), '0 bytes'),
        (('rgb8', 2**31, 2**31, 2**33, bytes(9)), '9 bytes'),
        (('32FC1', 2, 3, 9, bytes(18)), 'step 9'),
        (('bayer_rggb8', 2, 3, 3, bytes(6)), 'bayer_rggb8'),
        (('32FC0', 2, 3, 0, b''), '32FC0'),
        (('', 2, 3, 9, bytes(18)), "''"),
    ],
)
def test_contradictions_are_refused(fields: tuple, reason: str) -> None:
    with pytest.raises(ImageCodecError, match=reason):
        decode_image(*fields)


def test_every_colour_encoding_becomes_rgb() -> None:
    red, green, blue = (np.full((2, 3), value, np.uint8) for value in (10, 20, 30))
    alpha = np.full((2, 3), 99, np.uint8)
    colour = np.stack((red, green, blue), axis=-1)
    for encoding, planes in {
        'rgb8': (red, green, blue),
        'bgr8': (blue, green, red),
        '8UC3': (blue, green, red),
        'rgba8': (red, green, blue, alpha),
        'bgra8': (blue, green, red, alpha),
        '8UC4': (blue, green, red, alpha),
    }.items():
        np.testing.assert_array_equal(to_rgb(np.stack(planes, axis=-1), encoding), colour)
    grey = np.repeat(green[..., None], 3, axis=-1)
    np.testing.assert_array_equal(to_rgb(green, 'mono8'), grey)
    np.testing.assert_array_equal(to_rgb(green, '8UC1'), grey)
    wide = green.astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(to_rgb(wide, 'mono16'), grey)
    with pytest.raises(ImageCodecError, match='32FC1'):
        to_rgb(np.zeros((2, 3), np.float32), '32FC1')


def test_padded_rows_become_rgb_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    padded = np.zeros((4, 20), np.uint8)
    padded[:, :15] = pixels.reshape(4, 15)
    view = decode_image('bgr8', 4, 5, 20, padded.tobytes())
    np.testing.assert_array_equal(to_rgb(view, 'bgr8'), pixels[..., ::-1])


def test_depth_in_metres() -> None:
    millimetres = np.array([[0, 1, 1234, 65535]], np.uint16)
    np.testing.assert_allclose(to_metres(millimetres, '16UC1'), [[np.nan, 0.001, 1.234, 65.535]])
    metres = np.array([[0.0, -1.0, np.inf, -np.inf, np.nan, 2.5]], np.float32)
    expected = [[np.nan] * 5 + [2.5]]
    np.testing.assert_array_equal(to_metres(metres, '32FC1'), expected)
    np.testing.assert_array_equal(to_metres(metres.astype(np.float64), '64FC1'), expected)
    assert to_metres(millimetres, 'mono16').dtype == np.float32
    with pytest.raises(ImageCodecError, match='rgb8'):
        to_metres(np.zeros((1, 1, 3), np.uint8), 'rgb8')


def test_compressed_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    png = cv2.imencode('.png', pixels[..., ::-1])[1]
    np.testing.assert_array_equal(decode_compressed(png), pixels)
    np.testing.assert_array_equal(decode_compressed(png.tobytes()), pixels)
    grey = cv2.imencode('.png', pixels[..., 0])[1]
    np.testing.assert_array_equal(decode_compressed(grey), np.repeat(pixels[..., :1], 3, -1))
    for bad in (b'', b'\xff\xd8', b'text', png.tobytes()[:20]):
        with pytest.raises(ImageCodecError):
            decode_compressed(bad)
