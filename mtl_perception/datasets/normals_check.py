# SPDX-License-Identifier: Apache-2.0
"""Catch normals that are stored in other axes than declared, by the depth of the same frame."""

from __future__ import annotations

from itertools import permutations, product

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.values import Array
import numpy as np

# How much the mean cosine must gain with other axes. Normals that are only smoother, or from
# another method, gain nothing; 0.1 is a sixth of a room's side walls seen mirrored.
_GAIN = 0.1
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
        If they agree clearly better in other axes; the message names these.

    """
    expected = normals_from_depth(depth, camera)
    valid = np.isfinite(expected[..., 0]) & np.isfinite(normals[..., 0])
    if int(valid.sum()) < _FEWEST_PIXELS:
        return
    # Mean product of each true with each seen component: all that 48 ways to name axes need.
    products = expected[valid].astype(np.float64).T @ normals[valid] / valid.sum()
    declared = float(np.trace(products))

    def rank(candidate: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[float, int]:
        order, signs = candidate
        changes = sum(order[k] != k or signs[k] != 1 for k in range(3))
        return round(_agreement(products, order, signs), 2), -changes

    order, signs = max(product(permutations(range(3)), product((1, -1), repeat=3)), key=rank)
    best = _agreement(products, order, signs)
    if best - declared > _GAIN:
        words = ','.join(_renamed(axis, order, signs) for axis in axes)
        msg = (
            f'{where}: these normals agree with the depth to a mean cosine of {declared:.2f} as '
            f'{",".join(axes)}, but {best:.2f} as {words}; open the dataset with '
            f'normals_axes={words}'
        )
        raise DatasetError(msg)


def _agreement(products: Array, order: tuple[int, ...], signs: tuple[int, ...]) -> float:
    """Return the mean cosine if corrected[k] = signs[k] * seen[order[k]]."""
    return float(sum(signs[k] * products[k, order[k]] for k in range(3)))


def _renamed(axis: str, order: tuple[int, ...], signs: tuple[int, ...]) -> str:
    """Return where the stored direction `axis` really points."""
    place = next(index for index, words in enumerate(_WORDS) if axis in words)
    target = order.index(place)
    positive = (_WORDS[place].index(axis) == 1) == (signs[target] == 1)
    return _WORDS[target][int(positive)]
