# SPDX-License-Identifier: Apache-2.0
"""Attention between tasks: at each pixel, or over the reduced maps of all tasks."""

from __future__ import annotations

import torch
from torch import nn, Tensor
from torch.nn import functional


class TaskAttention(nn.Module):
    """
    Multi-head attention from query maps to the maps of all tasks, then Linear and LayerNorm.

    softmax(Q K^T / sqrt(d)) V per head, output projection, then the small MLP of DeMT. Where the
    keys come from is the forward's choice: the same pixel of every task (`at_each_pixel`), or
    every position of the reduced maps (`over_positions`). Never another image of the batch.
    Source: "DeMT", sections 3.3 and 3.4 (task interaction and task query blocks).
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.mix = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.project.bias)

    def at_each_pixel(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """
        Let Q queries of a pixel attend to the T tokens of that pixel.

        ``queries`` (B, N, Q, C), ``tokens`` (B, N, T, C) over N pixels; returns (B, N, Q, C).
        """
        return self._attend(queries.flatten(0, 1), tokens.flatten(0, 1)).view(queries.shape)

    def over_positions(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Let queries (B, L, C) attend to all tokens (B, M, C) of the same image: (B, L, C)."""
        return self._attend(queries, tokens)

    def linear(self, tokens: Tensor) -> Tensor:
        """Return what is left when each token sees itself alone: values, projected (..., C)."""
        return self._mix(self.project(self.value(tokens)))

    def _attend(self, queries: Tensor, tokens: Tensor) -> Tensor:
        length, channels = queries.shape[1], queries.shape[2]
        shape = (-1, self.heads, channels // self.heads)
        query = self.query(queries).unflatten(-1, shape[1:]).transpose(1, 2)  # (B, h, L, d)
        key = self.key(tokens).unflatten(-1, shape[1:]).transpose(1, 2)
        value = self.value(tokens).unflatten(-1, shape[1:]).transpose(1, 2)
        found = functional.scaled_dot_product_attention(query, key, value)
        return self._mix(self.project(found.transpose(1, 2).reshape(-1, length, channels)))

    def _mix(self, tokens: Tensor) -> Tensor:
        return self.norm(self.mix(tokens))


def stack_tokens(features: list[Tensor]) -> Tensor:
    """Turn T maps (B, C, H, W) into tokens (B, H*W, T, C)."""
    return torch.stack([feature.flatten(2).transpose(1, 2) for feature in features], 2)
