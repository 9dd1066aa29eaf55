# SPDX-License-Identifier: Apache-2.0
"""Cross-attention from one task's map to the reduced maps of all the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtl_perception.networks.layers.resize import pad_to_multiple
import torch
from torch import nn, Tensor
from torch.nn import functional


def block_means(feature: Tensor, side: int) -> Tensor:
    """Average (B, C, H, W) over blocks of ``side`` x ``side`` pixels; the last row repeats."""
    return functional.avg_pool2d(pad_to_multiple(feature, side), side)


class ReducedCrossAttention(nn.Module):
    """
    softmax(Q K^T / sqrt(d)) V: every pixel of a task asks all positions of all other tasks.

    Keys and values come from reduced maps (`block_means`) and have weights of their own for every
    source; the softmax runs over the tokens of all sources at once, so that places and tasks
    compete. Multi-head, with an output projection.
    """

    def __init__(self, channels: int, sources: Sequence[str], heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.key_value = nn.ModuleDict(
            {source: nn.Conv2d(channels, 2 * channels, 1) for source in sources}
        )
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, target: Tensor, sources: Mapping[str, Tensor]) -> Tensor:
        """Map the target (B, C, H, W) and the sources' (B, C, h, w) to what was found there."""
        keys, values = [], []
        for name, layer in self.key_value.items():
            key, value = layer(sources[name]).chunk(2, 1)
            keys.append(self._split(key))
            values.append(self._split(value))
        found = functional.scaled_dot_product_attention(
            self._split(self.query(target)), torch.cat(keys, 2), torch.cat(values, 2)
        )  # (B, heads, H*W, d)
        return self.project(found.transpose(2, 3).reshape(target.shape))

    def _split(self, feature: Tensor) -> Tensor:
        """Turn a map (B, C, H, W) into tokens per head (B, heads, H*W, C / heads)."""
        # PyTorch's fused attention takes tokens whose values lie side by side, and no others.
        return feature.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3).contiguous()
