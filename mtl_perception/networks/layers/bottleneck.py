# SPDX-License-Identifier: Apache-2.0
"""The bottleneck residual block of ResNet-50."""

from __future__ import annotations

from torch import nn, Tensor
from torch.nn import functional


class Bottleneck(nn.Module):
    """
    1x1 - 3x3 - 1x1 with BatchNorm after each and a four times narrower middle, plus the input.

    The input passes a 1x1 convolution with BatchNorm where the width changes. Source: "Deep
    Residual Learning for Image Recognition", figure 5 right.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, channels, h, w)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.norm3(self.conv3(y)) + self.shortcut(x))
