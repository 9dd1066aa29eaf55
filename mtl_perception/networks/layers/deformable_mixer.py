# SPDX-License-Identifier: Apache-2.0
"""The deformable mixer: channel mixing, then each channel group read where it finds something."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mtl_perception.networks.layers.deformable_sampling import deformable_sample
from mtl_perception.networks.layers.precision import precise_type
import torch
from torch import nn, Tensor
from torch.nn import functional

GROUPS = 32


class OffsetHead(nn.Module):
    """
    One 3x3 convolution to a shift per group of channels and pixel.

    Weights and bias start at zero, so that a fresh mixer samples every pixel at its own place.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.offset = nn.Conv2d(channels, 2 * groups, 3, padding=1)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to offsets (B, 2*groups, H, W) in pixels, (dy, dx) per group."""
        return self.offset(x)


class ReleasedOffsetHead(nn.Module):
    """
    The offsets of DeMT's released code: a shift per channel from absolute coordinates.

    A 3x3 convolution (weights zero at the start) gives nine row and nine column coordinates of a
    3x3 neighbourhood, counted from 1; a grouped 3x3 convolution turns the rows into the offsets of
    the first half of the channels and the columns into those of the second half, so that row
    coordinates also move columns and the other way round. Kept for its published numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.neighbourhood = nn.Conv2d(channels, 18, 3, padding=1)
        nn.init.zeros_(self.neighbourhood.weight)
        self.offset = nn.Conv2d(18, 2 * channels, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to offsets (B, 2*C, H, W) in pixels, (dy, dx) per channel."""
        height, width = x.shape[-2:]
        # Coordinates reach hundreds, where half precision counts in steps of a quarter pixel.
        precise = precise_type(x.dtype)
        rows = torch.arange(1, height + 1, dtype=precise, device=x.device)
        columns = torch.arange(1, width + 1, dtype=precise, device=x.device)
        tap = torch.arange(-1, 2, dtype=precise, device=x.device)
        row_grid = rows.view(1, height, 1) + tap.repeat_interleave(3).view(9, 1, 1)
        column_grid = columns.view(1, 1, width) + tap.repeat(3).view(9, 1, 1)
        grid = torch.cat(
            (row_grid.expand(9, height, width), column_grid.expand(9, height, width))
        )  # (18, H, W)
        position = self.neighbourhood(x).to(precise) + grid
        with _without_autocast(x.device.type):
            return functional.conv2d(
                position,
                self.offset.weight.to(precise),
                self.offset.bias.to(precise),
                padding=1,
                groups=2,
            )


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    # Only devices that compute have autocast; shapes alone can be traced on 'meta'.
    return nullcontext() if device == 'meta' else torch.autocast(device, enabled=False)


class DeformableMixer(nn.Module):
    """
    1x1 - GELU - BatchNorm, then plus [deformed 1x1 - GELU - BatchNorm] of the result.

    Source: "DeMT", section 3.2 (deformable mixer encoder).
    """

    def __init__(self, channels: int, released_offsets: bool = False) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)
        self.mix_norm = nn.BatchNorm2d(channels)
        self.offsets: nn.Module = (
            ReleasedOffsetHead(channels) if released_offsets else OffsetHead(channels, GROUPS)
        )
        self.deformed = nn.Conv2d(channels, channels, 1)
        self.deformed_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape."""
        mixed = self.mix_norm(functional.gelu(self.mix(x)))
        moved = self.deformed(deformable_sample(mixed, self.offsets(mixed)))
        return mixed + self.deformed_norm(functional.gelu(moved))
