# SPDX-License-Identifier: Apache-2.0
"""A 1x1 convolution over all levels of a pyramid, brought to the finest level."""

from __future__ import annotations

from collections.abc import Sequence

from mtl_perception.networks.layers.resize import resize_like
from torch import nn, Tensor


class PyramidProjection(nn.Module):
    """
    Enlarge all levels to the finest, concatenate them, and project them with one 1x1 convolution.

    A 1x1 convolution and a bilinear enlargement commute, so each level is projected at its own
    size and the enlarged results are added: the same map for a fraction of the arithmetic.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, bias: bool = True) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Conv2d(width, channels, 1, bias=bias and index == 0)
            for index, width in enumerate(in_channels)
        )
        # One convolution over the concatenation would see all levels' channels as its inputs.
        bound = sum(in_channels) ** -0.5
        for level in self.levels:
            for parameter in level.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map levels (B, in_channels[i], h_i, w_i), finest first, to (B, channels, h_0, w_0)."""
        total = self.levels[0](features[0])
        for level, feature in zip(self.levels[1:], features[1:]):
            total = total + resize_like(level(feature), features[0])
        return total
