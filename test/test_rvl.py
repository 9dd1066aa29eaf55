# SPDX-License-Identifier: Apache-2.0
"""RVL code against a slow encoder after the paper, and against what is worked out by hand."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.image_codec import decode_compressed_depth, ImageCodecError
from mtl_perception.rvl import decode_rvl
import numpy as np
import pytest


def encode(pixels: list[int]) -> bytes:
    """Encode as Wilson (2017) describes it, number by number and group by group."""
    groups: list[int] = []

    def put(number: int) -> None:
        while True:
            rest = number >> 3
            groups.append(number & 7 | (8 if rest else 0))
            if not rest:
                return
            number = rest

    position = last = 0
    while position < len(pixels):
        zeros = position
        while zeros < len(pixels) and pixels[zeros] == 0:
            zeros += 1
        others = zeros
        while others < len(pixels) and pixels[others] != 0:
            others += 1
        put(zeros - position)
        put(others - zeros)
        for pixel in pixels[zeros:others]:
            difference = pixel - last
            put(2 * difference if difference >= 0 else -2 * difference - 1)
            last = pixel
        position = others
    groups += [0] * (-len(groups) % 8)
    words = [
        int(''.join(f'{group:x}' for group in groups[start : start + 8]), 16)
        for start in range(0, len(groups), 8)
    ]
    return struct.pack(f'<{len(words)}I', *words)


def test_a_word_worked_out_by_hand() -> None:
    """2 zeros, 1 other: 1000 folds to 2000 = 0o3720, in groups 0, 2, 7 that go on, and 3."""
    assert decode_rvl(struct.pack('<I', 0x218AF300), 3).tolist() == [0, 0, 1000]


pixels = st.lists(
    st.one_of(st.just(0), st.integers(1, 9), st.integers(990, 1010), st.integers(0, 65535)),
    min_size=1, max_size=200,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(pixels)
def test_equals_what_was_encoded(values: list[int]) -> None:
    assert decode_rvl(encode(values), len(values)).tolist() == values


@settings(max_examples=100, deadline=None)
@given(pixels, st.data())
def test_damaged_code_is_refused_or_gives_as_many_pixels(
    values: list[int], data: st.DataObject
) -> None:
    code = bytearray(encode(values))
    code[data.draw(st.integers(0, len(code) - 1))] ^= data.draw(st.integers(1, 255))
    code = code[: data.draw(st.integers(0, len(code)))]
    damaged = bytes(code)
    cut = len(damaged) < len(encode(values)) // 2
    try:
        found = decode_rvl(damaged, len(values))
    except ValueError:
        return
    assert found.shape == (len(values),)
    assert not cut or found.tolist() != values


def message(depth: np.ndarray, a: float = 0, b: float = 0) -> bytes:
    """Header of compressed_depth_image_transport, columns, rows, code."""
    code = encode(depth.ravel().tolist())
    return struct.pack('<iffii', 1, a, b, depth.shape[1], depth.shape[0]) + code


def test_messages_in_millimetres_and_as_inverse_depth() -> None:
    random = np.random.default_rng(0)
    stored = random.integers(400, 9000, (24, 32), dtype=np.uint16)
    stored[random.random((24, 32)) < 0.3] = 0
    expected = np.where(stored > 0, stored / 1000, np.nan)
    metres = decode_compressed_depth(message(stored), '16UC1; compressedDepth rvl')
    np.testing.assert_allclose(metres, expected, rtol=1e-6)
    inverse = decode_compressed_depth(message(stored, 1e4, 2.0), '32FC1; compressedDepth rvl')
    expected = np.where(stored > 0, 1e4 / (stored - 2.0), np.nan)
    np.testing.assert_allclose(inverse, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ('data', 'sentence'),
    [
        (bytes(15), '15 bytes'),
        (struct.pack('<iffii', 1, 0, 0, 0, 5), '0x5 pixels'),
        (struct.pack('<iffii', 1, 0, 0, 1 << 20, 1 << 20), '1048576x1048576 pixels'),
        (struct.pack('<iffii', 1, 0, 0, 4, 4), 'end at pixel 0 of 16'),
        (message(np.ones((4, 4), np.uint16))[:12] + struct.pack('<ii', 8, 8)
         + encode([1] * 16), 'does not fit|end at pixel'),
        (struct.pack('<iffii', 1, 0, 0, 4, 4) + b'\xff' * 8 + bytes(4), 'longer than 32 bits'),
    ],
)  # fmt: skip
def test_what_is_no_rvl_is_refused(data: bytes, sentence: str) -> None:
    with pytest.raises(ImageCodecError, match=sentence):
        decode_compressed_depth(data, '16UC1; compressedDepth rvl')
