# SPDX-License-Identifier: Apache-2.0
"""Surface normal errors: L1 of the normalised prediction as published, or cosine distance."""

from __future__ import annotations

from mtl_perception.networks.decoding import decode_normals
import torch
from torch import Tensor


def _masked(raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit prediction, target with zeros for NaN, and validity (B, 1, H, W)."""
    valid = torch.isfinite(target).all(dim=1, keepdim=True)
    safe = torch.where(valid, target, torch.zeros_like(target))
    return decode_normals(raw), safe, valid


def normals_l1_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Mean absolute difference over the elements (three a pixel) of the valid pixels (MTI-Net).

    DeMT divides by pixels instead, which is three times as much at an equal weight.

    :param raw: vectors float32 (B, 3, H, W)
    :param target: unit normals (B, 3, H, W), NaN = invalid
    :returns: scalar; zero, with a gradient, where no pixel is valid
    """
    prediction, safe, valid = _masked(raw, target)
    error = (prediction - safe).abs() * valid
    return error.sum() / (3 * valid.sum()).clamp(min=1)


def normals_cosine_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Mean of 1 - cosine of the angle over the valid pixels (DenseMTL).

    :param raw: vectors float32 (B, 3, H, W)
    :param target: unit normals (B, 3, H, W), NaN = invalid
    :returns: scalar; zero, with a gradient, where no pixel is valid
    """
    prediction, safe, valid = _masked(raw, target)
    error = (1 - (prediction * safe).sum(dim=1, keepdim=True)) * valid
    return error.sum() / valid.sum().clamp(min=1)
