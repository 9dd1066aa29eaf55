# SPDX-License-Identifier: Apache-2.0
"""SegFormer's all-MLP fusion of a pyramid into one map."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_perception.networks.layers.pyramid_projection import PyramidProjection
from torch import nn, Tensor


class AllMLP(nn.Module):
    """
    A linear layer per level, all levels at the finest size, 1x1 - BatchNorm - ReLU.

    Source: "SegFormer", section 3.2. The 1x1 convolution runs before the enlargement, which
    commutes with it.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.fuse = PyramidProjection([channels] * len(in_channels), channels, bias=False)
        self.activate = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map levels (B, in_channels[i], h_i, w_i), finest first, to (B, channels, h_0, w_0)."""
        embedded = [layer(feature) for layer, feature in zip(self.linear, features)]
        return self.activate(self.fuse(embedded))
