# SPDX-License-Identifier: Apache-2.0
"""Atrous spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn, Tensor


def _unit(in_channels: int, channels: int, kernel: int = 1, rate: int = 1) -> nn.Sequential:
    padding = rate * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class ASPP(nn.Module):
    """
    A 1x1, three dilated 3x3 and one image-wide branch, concatenated and projected.

    Source: "Rethinking Atrous Convolution for Semantic Image Segmentation", section 3.3. With
    ``pooled_norm`` off, the image-wide branch, one value per channel, has a bias instead of a
    BatchNorm, so that it can train on a batch of one image.
    """

    def __init__(
        self, in_channels: int, channels: int, rates: Sequence[int], pooled_norm: bool = True
    ) -> None:
        super().__init__()
        self.point = _unit(in_channels, channels)
        self.dilated = nn.ModuleList(_unit(in_channels, channels, 3, rate) for rate in rates)
        self.pooled: nn.Module = _unit(in_channels, channels)
        if not pooled_norm:
            self.pooled = nn.Sequential(nn.Conv2d(in_channels, channels, 1), nn.ReLU(True))
        self.project = nn.Sequential(
            *_unit((2 + len(rates)) * channels, channels), nn.Dropout(0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, channels, h, w)."""
        whole = self.pooled(x.mean((2, 3), keepdim=True))  # (B, C, 1, 1)
        branches = [self.point(x), *(branch(x) for branch in self.dilated)]
        return self.project(torch.cat([*branches, whole.expand_as(branches[0])], 1))
