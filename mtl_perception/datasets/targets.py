# SPDX-License-Identifier: Apache-2.0
"""Stored numbers as targets in the conventions of `mtl_perception.values`."""

from __future__ import annotations

from mtl_perception.datasets.errors import DatasetError, LabelRangeError
from mtl_perception.tasks import LabelSet
from mtl_perception.values import Array, UNLABELLED
import numpy as np
import numpy.typing as npt

# Directions in the optical frame: x right, y down, z forward.
_DIRECTIONS = {
    'right': (1, 0, 0),
    'left': (-1, 0, 0),
    'down': (0, 1, 0),
    'up': (0, -1, 0),
    'forward': (0, 0, 1),
    'backward': (0, 0, -1),
}


def axes_matrix(axes: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """
    Return the (3, 3) matrix whose row is the direction of a stored channel.

    `axes` names the positive direction of each channel, such as ('right', 'up', 'backward');
    backward is towards the camera.

    Raises
    ------
    DatasetError
        If a word is unknown or the three do not span space.

    """
    if len(axes) == 3 and all(axis in _DIRECTIONS for axis in axes):
        matrix = np.array([_DIRECTIONS[axis] for axis in axes], np.float32)
        if abs(np.linalg.det(matrix)) == 1:
            return matrix
    msg = (
        f'normals_axes {",".join(axes)!r}: name the direction of each of the three channels, '
        f'one of right/left, one of down/up, one of forward/backward'
    )
    raise DatasetError(msg)


def decode_normals(stored: Array, axes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """
    Return stored normals (H, W, 3) as unit normals in the optical frame, NaN = none.

    uint8 means n = 2 byte / 255 - 1. A vector shorter than 0.5 is no normal: a zero vector
    never comes back as zero from bytes.
    """
    normals = stored.astype(np.float32)
    if stored.dtype == np.uint8:
        normals = normals * np.float32(2.0 / 255.0) - np.float32(1.0)
    normals = normals @ axes
    length = np.sqrt(np.einsum('hwc,hwc->hw', normals, normals))
    length[~(length >= 0.5)] = np.nan
    normals /= length[..., None]
    return normals


def decode_depth(
    stored: Array, unit_m: float, invalid: tuple[int, ...] = ()
) -> npt.NDArray[np.float32]:
    """
    Return stored depth (H, W) in metres along Z, NaN = invalid.

    Zero, negative and non-finite values are invalid, and those in `invalid`.
    """
    depth = stored.astype(np.float32) * np.float32(unit_m)
    depth[~(np.isfinite(depth) & (depth > 0)) | np.isin(stored, invalid)] = np.nan
    return depth


def decode_mask(stored: Array) -> npt.NDArray[np.uint8]:
    """Return a stored mask (H, W), 0 to 255 or 0.0 to 1.0, as 0 and 1: above one half."""
    half = 127.5 if stored.dtype == np.uint8 and stored.max(initial=0) > 1 else 0.5
    return (stored > half).astype(np.uint8)


def check_labels(labels: Array, label_set: LabelSet, where: str) -> npt.NDArray[np.uint8]:
    """
    Return `labels` (H, W) as uint8.

    Raises
    ------
    LabelRangeError
        If one is neither a class of `label_set` nor 255.

    """
    wrong = (labels < 0) | ((labels >= len(label_set)) & (labels != UNLABELLED))
    if wrong.any():
        msg = (
            f'{where}: holds label {labels[wrong][0]}, but {label_set.name} has '
            f'{len(label_set)} classes (and 255 for unlabelled)'
        )
        raise LabelRangeError(msg)
    return labels.astype(np.uint8)
