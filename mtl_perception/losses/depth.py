# SPDX-License-Identifier: Apache-2.0
"""Depth errors: L1 in metres as published, or L1 in log-depth."""

from __future__ import annotations

from mtl_perception.networks.decoding import decode_depth
import torch
from torch import Tensor

# DenseMTL's inverse depth: 65536 / (100 z + 1), so that 1 m is 649 and 10 m is 65.
_INVERSE_RANGE = 65536.0
_INVERSE_PER_M = 100.0
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


def depth_inverse_berhu_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Reverse Huber error of the inverse depth 65536 / (100 z + 1) over the valid pixels (DenseMTL).

    r up to c = a fifth of the batch's largest error, (r^2 + c^2) / (2 c) beyond it. The released
    code divides by all pixels and trains on invalid ones in three of its datasets; here invalid
    pixels do not exist.

    :param raw: log-depth float32 (B, 1, H, W)
    :param target: depth (B, H, W) metres, positive; NaN = invalid
    :returns: scalar; zero, with a gradient, where no pixel is valid
    """
    valid = torch.isfinite(target) & (target > 0)
    safe = torch.where(valid, target, torch.ones_like(target))
    depth = decode_depth(raw, _LOSS_RANGE_M)
    difference = _INVERSE_RANGE / (_INVERSE_PER_M * depth + 1)
    difference = difference - _INVERSE_RANGE / (_INVERSE_PER_M * safe + 1)
    error = torch.where(valid, difference.abs(), torch.zeros_like(difference))
    limit = (0.2 * error.max().detach()).clamp(min=1e-6)
    beyond = (error.square() + limit.square()) / (2 * limit)
    return _mean_over(torch.where(error <= limit, error, beyond), valid)
