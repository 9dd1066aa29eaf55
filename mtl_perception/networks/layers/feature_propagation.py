# SPDX-License-Identifier: Apache-2.0
"""Feature propagation: what all tasks know at one scale, handed to the next finer scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtl_perception.networks.layers.basic_block import BasicBlock
from mtl_perception.networks.layers.squeeze_excitation import SqueezeExcitation
import torch
from torch import nn, Tensor


class FeaturePropagation(nn.Module):
    """
    Mix the features of K tasks into one shared map and add its gated copy to each task.

    The concatenated features G are weighed by a softmax mask, reduced to one shared map S of
    ``channels``, and every task receives SE_t(S) + F_t. Source: "MTI-Net", section 3.3.

    ``softmax_over='tasks'`` lets tasks compete for each channel and pixel, as the paper means.
    ``softmax_over='adjacent_channels'`` is what the released code computes: K neighbouring
    channels of the task-major concatenation compete, mostly within one task. The gates then have
    biases, as released.
    """

    def __init__(
        self, channels: int, names: Sequence[str], softmax_over: str = 'tasks'
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.channels = channels
        self.softmax_over = softmax_over
        width = channels * len(self.names)
        inner = max(1, width // 4)
        self.mask = nn.Sequential(
            BasicBlock(width, inner), BasicBlock(inner, inner), nn.Conv2d(inner, width, 1)
        )
        self.shared = BasicBlock(width, channels)
        released = softmax_over == 'adjacent_channels'
        self.gates = nn.ModuleDict(
            {name: SqueezeExcitation(channels, bias=released) for name in self.names}
        )

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the tasks' features (B, channels, h, w) to as many of the same shape."""
        joined = torch.cat([features[name] for name in self.names], 1)  # (B, K*C, h, w)
        batch, _, height, width = joined.shape
        count = len(self.names)
        mask = self.mask(joined)
        if self.softmax_over == 'tasks':
            mask = mask.view(batch, count, self.channels, height, width).softmax(1)
        else:
            mask = mask.view(batch, self.channels, count, height, width).softmax(2)
        shared = self.shared(joined * mask.reshape(joined.shape))  # (B, C, h, w)
        return {name: self.gates[name](shared) + features[name] for name in self.names}
