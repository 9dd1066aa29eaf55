# SPDX-License-Identifier: Apache-2.0
"""
RVL, the run-length code of depth images, decoded with NumPy.

Source: Wilson, "Fast Lossless Depth Image Compression", ISS 2017. Pixels are runs of zeros and
of non-zeros in turn: how many zeros, how many others, then the difference of each of those to
the last non-zero pixel, folded to 0, -1, 1, -2, ... A number is written in groups of three bits,
the lowest first, each with a fourth bit that says whether another group follows; eight groups
fill a word of 32 bits (little-endian) from the top.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FOLLOWS = 8  # the bit of a group that announces another
_LONGEST = 11  # groups of a number of 32 bits


def decode_rvl(data: Any, count: int) -> NDArray[np.uint16]:
    """
    Return `count` pixels from `data`, anything with the buffer protocol.

    Raises
    ------
    ValueError
        If the data end before the last pixel, or are no RVL of this many pixels.

    """
    numbers = _numbers(np.frombuffer(data, np.uint8))
    kept = np.zeros(count, np.bool_)
    folded = []
    pixel = position = 0
    while pixel < count:
        if position + 2 > len(numbers):
            msg = f'the data end at pixel {pixel} of {count}'
            raise ValueError(msg)
        zeros, others = (int(value) for value in numbers[position : position + 2])
        position += 2
        pixel += zeros
        if pixel + others > count or position + others > len(numbers) or not zeros + others:
            msg = f'a run of {zeros} zeros and {others} others does not fit at pixel {pixel}'
            raise ValueError(msg)
        kept[pixel : pixel + others] = True
        folded.append(numbers[position : position + others])
        pixel += others
        position += others
    result = np.zeros(count, np.uint16)
    steps = np.concatenate(folded) if folded else np.zeros(0, np.int64)
    # A pixel has 16 bits; what damage adds up to beyond them is cut off.
    result[kept] = np.cumsum((steps >> 1) ^ -(steps & 1)).astype(np.uint16)
    return result


def _numbers(data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return every number that is written out to its last group."""
    whole = data[: len(data) // 4 * 4].reshape(-1, 4)[:, ::-1].reshape(-1)
    groups = np.stack((whole >> 4, whole & 15), axis=-1).reshape(-1)
    last = np.flatnonzero(groups < _FOLLOWS)
    if not len(last):
        return np.zeros(0, np.int64)
    first = np.concatenate(([0], last[:-1] + 1))
    lengths = last - first + 1
    if lengths.max() > _LONGEST:
        msg = f'a number of {lengths.max()} groups is longer than 32 bits'
        raise ValueError(msg)
    used = groups[: last[-1] + 1].astype(np.int64) & (_FOLLOWS - 1)
    shifts = 3 * (np.arange(len(used)) - np.repeat(first, lengths))
    return np.asarray(np.add.reduceat(used << shifts, first), np.int64)
