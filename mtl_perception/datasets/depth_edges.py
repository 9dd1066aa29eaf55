# SPDX-License-Identifier: Apache-2.0
"""Where measured depth jumps from one surface to another."""

from __future__ import annotations

from typing import Any

from mtl_perception.values import Array, UNLABELLED
import numpy as np
import numpy.typing as npt

# A jump: 1/z of the far surface is this part less than the near one's, beyond what the slope of
# either predicts. Structured light has 1 % noise at 4 m.
_JUMP = 0.05
# Structured light and stereo err by a constant part of 1/z; from here on (1/m) that is more than
# the noise above.
_LEAST_INVERSE = 0.2
# Added per pixel of a hole between the two: a slope is known less well over a distance.
_JUMP_PER_HOLE_PX = 0.005
# The shadow of an object 0.6 m away in front of a far wall is this wide at 640 pixels.
_WIDEST_HOLE_PX = 64
_SLOPE_PX = 4
_BLUR_PX = 2  # sensors spread a jump over so many pixels


def depth_jump_edges(depth: Array) -> npt.NDArray[np.uint8]:
    """
    Find the borders of surfaces that lie in front of others, from measured depth.

    `depth` is (H, W) in metres along Z, NaN = invalid. Returns (H, W) uint8: 1 at a jump, two
    pixels wide; 255 where depth is invalid; else 0. Along each row and column the inverse
    depth of a pixel is compared with that of the next valid one: inverse depth is linear in the
    pixel coordinates on a plane, so a floor seen at a grazing angle has no jumps. Where a hole
    lies between (the shadow that structured light casts), the border is that of the nearer
    surface.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        inverse = 1.0 / depth.astype(np.float32)
    valid = np.isfinite(inverse) & (inverse > 0)
    inverse[~valid] = 0.0
    jumps = _jumps_along_rows(inverse, valid) | _jumps_along_rows(inverse.T, valid.T).T
    edges = np.where(valid, 0, UNLABELLED).astype(np.uint8)
    edges[jumps] = 1
    return edges


def _jumps_along_rows(inverse: Array, valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the near pixel of each jump, and its neighbour towards the far one."""
    strength = np.zeros(inverse.shape, np.float32)  # at the right pixel of a pair
    slopes = _slopes(inverse, valid)
    both = valid[:, 1:] & valid[:, :-1]
    share = _share(inverse[:, :-1], inverse[:, 1:], slopes[0][:, :-1], slopes[1][:, 1:], 1)
    strength[:, 1:] = np.where(both & (share > _JUMP), share, 0)
    # Pairs with a hole between them: few, so they are picked out.
    columns = np.arange(inverse.shape[1])
    last = np.maximum.accumulate(np.where(valid, columns, -1), axis=1)
    rows, right = np.nonzero(valid[:, 1:] & ~valid[:, :-1] & (last[:, :-1] >= 0))
    right += 1
    left = last[rows, right - 1]
    gap = right - left
    share = _share(
        inverse[rows, left], inverse[rows, right], slopes[0][rows, left], slopes[1][rows, right],
        gap,
    )
    is_jump = (share > _JUMP + _JUMP_PER_HOLE_PX * (gap - 1)) & (gap <= _WIDEST_HOLE_PX + 1)
    strength[rows, right] = np.where(is_jump, share, 0)

    strongest = strength.copy()
    for shift in range(1, _BLUR_PX + 1):
        np.maximum(strongest[:, shift:], strength[:, :-shift], out=strongest[:, shift:])
        np.maximum(strongest[:, :-shift], strength[:, shift:], out=strongest[:, :-shift])
    rows, right = np.nonzero((strength > 0) & (strength == strongest))
    left = last[rows, right - 1]
    near_is_right = inverse[rows, right] > inverse[rows, left]
    jumps = np.zeros(inverse.shape, bool)
    jumps[rows, np.where(near_is_right, right, left)] = True
    jumps[rows, np.where(near_is_right, right - 1, left + 1)] = True
    return jumps


def _share(left: Array, right: Array, left_slope: Array, right_slope: Array, gap: Any) -> Array:
    """
    Return how far a pair is from both surfaces' planes, as a part of the nearer's inverse depth.

    The better of two predictions counts: where only one side's slope is right, there is a crease.
    """
    step = right - left
    excess = np.minimum(np.abs(step - gap * left_slope), np.abs(step - gap * right_slope))
    return np.asarray(excess / np.maximum(np.maximum(left, right), np.float32(_LEAST_INVERSE)))


def _slopes(inverse: Array, valid: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return the change of inverse depth per pixel to the left and to the right; 0 = unknown."""
    to_left, to_right = np.zeros_like(inverse), np.zeros_like(inverse)
    change = (inverse[:, _SLOPE_PX:] - inverse[:, :-_SLOPE_PX]) / np.float32(_SLOPE_PX)
    change[~(valid[:, _SLOPE_PX:] & valid[:, :-_SLOPE_PX])] = 0
    to_left[:, _SLOPE_PX:] = change
    to_right[:, :-_SLOPE_PX] = change
    return to_left, to_right
