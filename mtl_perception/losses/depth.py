# SPDX-License-Identifier: Apache-2.0
"""Depth errors: L1 in metres as published, L1 in log-depth with or without its slope."""

from __future__ import annotations

from mtl_perception.networks.decoding import decode_depth
import torch
from torch import Tensor

# DenseMTL's inverse depth: 65536 / (100 z + 1), so that 1 m is 649 and 10 m is 65.
_INVERSE_RANGE = 65536.0
_INVERSE_PER_M = 100.0
# Only keeps exp() finite on an untrained network; the deployed range is the bundle's.
_LOSS_RANGE_M = (1e-3, 1e3)
# Every pixel, then every second, fourth and eighth: fine relief and whole walls.
_GRADIENT_STRIDES = (1, 2, 4, 8)


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


def depth_log_gradient_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    `depth_log_l1_loss` plus the mean absolute error of the slope of log-depth.

    The slope is the difference of horizontal and of vertical neighbours at four strides, each
    counted where both are valid (Li and Snavely, MegaDepth, CVPR 2018, section 4.2; their sum
    over scales, here normalised by valid pairs). A smooth depth that is right on average has
    wrong surfaces; this makes the surfaces count.

    :param raw: log-depth float32 (B, 1, H, W)
    :param target: depth (B, H, W) metres, positive; NaN = invalid
    :returns: scalar; zero, with a gradient, where no pixel is valid
    """
    valid = torch.isfinite(target) & (target > 0)
    error = raw[:, 0] - torch.where(valid, target, torch.ones_like(target)).log()
    total = depth_log_l1_loss(raw, target)
    for stride in _GRADIENT_STRIDES:
        own, known = error[:, ::stride, ::stride], valid[:, ::stride, ::stride]
        across = (own[:, :, 1:] - own[:, :, :-1]).abs()
        down = (own[:, 1:] - own[:, :-1]).abs()
        total = total + _mean_over(across, known[:, :, 1:] & known[:, :, :-1])
        total = total + _mean_over(down, known[:, 1:] & known[:, :-1])
    return total


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
