# SPDX-License-Identifier: Apache-2.0
"""Bringing maps to the size that another map or a pooling needs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Resize ``x`` (B, C, h, w) to the height and width of ``reference``, half-pixel centres."""
    size = reference.shape[-2:]
    if x.shape[-2:] == size:
        return x
    return functional.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """
    Repeat the last row and column of (B, C, h, w) until both sides divide by ``multiple``.

    Pooling afterwards covers the whole map, as with ceil_mode, for which some engines have no
    converter; the maximum of a block is the same.
    """
    right, below = -x.shape[-1] % multiple, -x.shape[-2] % multiple
    if not (right or below):
        return x
    return functional.pad(x, (0, right, 0, below), mode='replicate')
