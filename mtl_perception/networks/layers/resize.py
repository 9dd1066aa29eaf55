# SPDX-License-Identifier: Apache-2.0
"""Bilinear resizing to the size of another map."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Resize ``x`` (B, C, h, w) to the height and width of ``reference``, half-pixel centres."""
    size = reference.shape[-2:]
    if x.shape[-2:] == size:
        return x
    return functional.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False)
