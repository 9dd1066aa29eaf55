# SPDX-License-Identifier: Apache-2.0
"""The basic residual block of ResNet-18 and HRNet."""

from __future__ import annotations

from torch import nn, Tensor
from torch.nn import functional


class BasicBlock(nn.Module):
    """
    3x3 - BatchNorm - ReLU - 3x3 - BatchNorm, plus the input, then ReLU.

    The input passes a 1x1 convolution with BatchNorm where the width changes. Source: "Deep
    Residual Learning for Image Recognition", figure 5 left.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, channels, h, w)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
