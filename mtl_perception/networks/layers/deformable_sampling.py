# SPDX-License-Identifier: Apache-2.0
"""Deformable sampling: read every group of channels at its own shifted position."""

from __future__ import annotations

from mtl_perception.networks.layers.precision import precise_type
import torch
from torch import Tensor
from torch.nn import functional


def deformable_sample(x: Tensor, offset: Tensor) -> Tensor:
    """
    Sample ``x`` (B, C, H, W) at each pixel plus its offset, bilinearly, zeros outside.

    ``offset`` (B, 2*G, H, W) holds a (dy, dx) pair in pixels for each of the G groups of C / G
    neighbouring channels. Source: "Deformable Convolutional Networks", section 2.1, with a 1x1
    kernel. Positions are computed and read in single precision at least: a half-precision grid
    is off by whole pixels. One grid_sample, so that every engine has it.
    """
    batch, channels, height, width = x.shape
    groups = offset.shape[1] // 2
    precise = precise_type(x.dtype)
    rows = torch.arange(height, dtype=precise, device=x.device).view(1, 1, height, 1)
    columns = torch.arange(width, dtype=precise, device=x.device).view(1, 1, 1, width)
    pairs = offset.to(precise).view(batch, groups, 2, height, width)
    y = pairs[:, :, 0] + rows  # (B, G, H, W)
    z = pairs[:, :, 1] + columns
    # grid_sample counts from pixel edges: -1 is the left border, +1 the right
    grid = torch.stack(((2 * z + 1) / width - 1, (2 * y + 1) / height - 1), -1)
    sampled = functional.grid_sample(
        x.to(precise).reshape(batch * groups, channels // groups, height, width),
        grid.view(batch * groups, height, width, 2),
        mode='bilinear',
        padding_mode='zeros',
        align_corners=False,
    )
    return sampled.view(batch, channels, height, width).to(x.dtype)
