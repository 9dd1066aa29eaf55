# SPDX-License-Identifier: Apache-2.0
"""Thin lines of a mask to one pixel, keeping how they hang together."""

from __future__ import annotations

from mtl_perception.values import Array
import numpy as np
import numpy.typing as npt

# The neighbours of a pixel, clockwise from north: bit 0 is N, bit 1 NE, ... bit 7 NW.
_NEIGHBOURS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def _deletable(code: int, step: int) -> bool:
    """
    Say whether a pixel with these neighbours may go in this half step (0 or 1).

    Source: Guo and Hall, "Parallel thinning with two-subiteration algorithms", CACM 1989.
    """
    n, ne, e, se, s, sw, w, nw = (bool(code >> bit & 1) for bit in range(8))
    crossings = sum((not a) and (b or c) for a, b, c in (
        (n, ne, e), (e, se, s), (s, sw, w), (w, nw, n)))  # fmt: skip
    first = sum((nw or n, ne or e, se or s, sw or w))
    second = sum((n or ne, e or se, s or sw, w or nw))
    if crossings != 1 or not 2 <= min(first, second) <= 3:
        return False
    return not ((n or ne or not se) and e) if step == 0 else not ((s or sw or not nw) and w)


_TABLES = tuple(
    np.array([_deletable(code, step) for code in range(256)]) for step in (0, 1)
)


def thin(mask: Array) -> npt.NDArray[np.uint8]:
    """Return `mask` (H, W), non-zero = set, as lines of one pixel, 0 or 1."""
    thinned = np.pad(mask != 0, 1).astype(np.uint8)
    inner = (slice(1, -1), slice(1, -1))
    height, width = mask.shape[:2]
    changed = True
    while changed:
        changed = False
        for table in _TABLES:
            code = np.zeros((height, width), np.uint8)
            for bit, (dy, dx) in enumerate(_NEIGHBOURS):
                rows, columns = slice(1 + dy, 1 + dy + height), slice(1 + dx, 1 + dx + width)
                code |= thinned[rows, columns] << bit
            gone = table[code] & (thinned[inner] == 1)
            if gone.any():
                thinned[inner][gone] = 0
                changed = True
    return thinned[inner].copy()
