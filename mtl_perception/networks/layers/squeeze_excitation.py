# SPDX-License-Identifier: Apache-2.0
"""Squeeze-and-excitation: a gate per channel, computed from the global mean."""

from __future__ import annotations

from torch import nn, Tensor
from torch.nn import functional


class SqueezeExcitation(nn.Module):
    """
    Multiply each channel by sigmoid(W2 relu(W1 mean(x))), hidden width channels // reduction.

    With ``bias``, sigmoid(W2 relu(W1 mean(x) + b1) + b2). Source: "Squeeze-and-Excitation
    Networks", section 3, which has no biases.
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = False) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.excite = nn.Conv2d(hidden, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Gate (B, channels, h, w), same shape out."""
        mean = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * self.excite(functional.relu(self.squeeze(mean))).sigmoid()
