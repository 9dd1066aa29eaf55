# SPDX-License-Identifier: Apache-2.0
"""Depth errors: L1 in metres as published, or L1 in log-depth."""

from __future__ import annotations

from mtl_perception.networks.decoding import decode_depth
import torch
from torch import Tensor

# Only keeps exp() finite on an untrained network; the deployed range is the bundle's.
_LOSS_RANGE_M = (1e-3, 1e3)


def _mean_over(error: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, error, torch.zeros_like(error)).sum() / valid.sum().clamp(min=1)


def depth_l1_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Mean absolute error in metres over the valid pixels (PAD-Net, MTI-Net, DeMT).

    :param raw: log-depth float32 (B, 1, H, W)
    :param target: depth (B, H, W) metres, NaN = invalid
    :returns: scalar; zero, with a gradient, where no pixel is valid
    """
    valid = torch.isfinite(target)
    safe = torch.where(valid, target, torch.ones_like(target))
    return _mean_over((decode_depth(raw, _LOSS_RANGE_M) - safe).abs(), valid)


def depth_log_l1_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Mean absolute error in log-depth over the valid pixels: a relative error.

    A robot asks for the same percentage near and far; L1 in metres spends its gradient on the
    far wall.

    :param raw: log-depth float32 (B, 1, H, W)
    :param target: depth (B, H, W) metres, positive; NaN = invalid
    :returns: scalar; zero, with a gradient, where no pixel is valid
    """
    valid = torch.isfinite(target) & (target > 0)
    safe = torch.where(valid, target, torch.ones_like(target))
    return _mean_over((raw[:, 0] - safe.log()).abs(), valid)
