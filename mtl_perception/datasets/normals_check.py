# SPDX-License-Identifier: Apache-2.0
"""Catch normals that are stored in other axes than declared, by the depth of the same frame."""

from __future__ import annotations

from itertools import permutations, product

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.values import Array
import numpy as np

# Normals that are only smoother or from another method stay well below this median angle.
_LARGEST_MEDIAN_DEG = 35.0
_FEWEST_PIXELS = 1000
_WORDS = (('left', 'right'), ('up', 'down'), ('backward', 'forward'))


def check_axes(
    normals: Array, depth: Array, camera: CameraModel, axes: tuple[str, ...], where: str
) -> None:
    """
    Compare `normals`, decoded with `axes`, with those of the depth image.

    Raises
    ------
    DatasetError
        If they disagree by more than 35 degrees in the median while other axes agree; the
        message names these.

    """
    expected = normals_from_depth(depth, camera)
    valid = np.isfinite(expected[..., 0]) & np.isfinite(normals[..., 0])
    if int(valid.sum()) < _FEWEST_PIXELS:
        return
    seen, true = normals[valid], expected[valid]
    declared = _median_deg(seen, true)
    if declared <= _LARGEST_MEDIAN_DEG:
        return
    best, order, signs = min(
        (_median_deg(seen[:, order] * np.array(signs, np.float32), true), order, signs)
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    )
    if best <= _LARGEST_MEDIAN_DEG:
        # Channel c of the file was taken for one direction of the optical frame, in which it
        # should have gone to another place with another sign.
        words = [_renamed(axis, order, signs) for axis in axes]
        msg = (
            f'{where}: these normals disagree with the depth by {declared:.0f} degrees (median) '
            f'as {",".join(axes)}, but only by {best:.0f} as {",".join(words)}; open the '
            f'dataset with normals_axes={",".join(words)}'
        )
        raise DatasetError(msg)


def _median_deg(first: Array, second: Array) -> float:
    cosine = np.clip((first * second).sum(-1), -1.0, 1.0)
    return float(np.degrees(np.median(np.arccos(cosine))))


def _renamed(axis: str, order: tuple[int, ...], signs: tuple[int, ...]) -> str:
    """Return where the stored direction `axis` really points."""
    place = next(index for index, words in enumerate(_WORDS) if axis in words)
    # corrected[k] = signs[k] * seen[order[k]]
    target = order.index(place)
    positive = (_WORDS[place].index(axis) == 1) == (signs[target] == 1)
    return _WORDS[target][int(positive)]
