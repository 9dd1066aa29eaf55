# SPDX-License-Identifier: Apache-2.0
"""Cross-task attention between every ordered pair of tasks, and the exchange made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn, Tensor
from torch.nn import functional


def _unit(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class CorrelationAttention(nn.Module):
    """
    Let the target's own features ask where the source has something to say.

    Query: the target at every ``scale``-th pixel; key and value: the source, max-pooled over
    ``scale`` x ``scale``. softmax(Q^T K / sqrt(C)) over the source's positions, enlarged again
    by repetition, times a gate per channel that starts at zero. Source: "Cross-task Attention
    Mechanism for Dense Multi-task Learning", section 3.1, correlation-guided attention.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.query = _unit(channels, channels)
        self.key = _unit(channels, channels)
        self.value = _unit(channels, channels)
        self.gate = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Map target and source (B, C, H, W) to what the target found, same shape."""
        height, width = target.shape[-2:]
        small = target[..., :: self.scale, :: self.scale]
        pooled = functional.max_pool2d(source, self.scale, ceil_mode=True)
        query = self.query(small).flatten(2).transpose(1, 2)  # (B, n, C)
        key = self.key(pooled).flatten(2).transpose(1, 2)
        value = self.value(pooled).flatten(2).transpose(1, 2)
        # The fused kernel never holds the n x n weights; four dimensions are what it expects.
        found = functional.scaled_dot_product_attention(
            query[:, None], key[:, None], value[:, None]
        )[:, 0]
        found = found.transpose(1, 2).unflatten(2, small.shape[-2:])  # (B, C, h, w)
        large = functional.interpolate(found, scale_factor=float(self.scale), mode='nearest')
        return self.gate * large[..., :height, :width]


class PairExchange(nn.Module):
    """
    What one target takes from one source: d = ReLU(BN(1x1([self-attention, cross-attention]))).

    Self-attention is a gate, conv3x3(g) * sigmoid(conv3x3(g)), of half the width. Both read g,
    the source's extracted features. The two 3x3 convolutions run as one.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.attend_self = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.attend_cross = CorrelationAttention(channels, scale)
        self.project = _unit(channels // 2 + channels, channels)

    def forward(self, target: Tensor, extracted: Tensor) -> Tensor:
        """Map the target and the source's extract (B, C, H, W) to the directed feature."""
        gate, feature = self.attend_self(extracted).chunk(2, 1)
        own = gate.sigmoid() * feature
        return self.project(torch.cat([own, self.attend_cross(target, extracted)], 1))


class MultiTaskExchange(nn.Module):
    """
    mTEB: rewrite the targets' features from those of all other tasks.

    f_t + ReLU(BN(1x1(concat over s != t of d_{s->t}))), with weights of its own for every
    ordered pair, the others always in task order. The 3x3 extractions that read the same source
    run as one convolution. Source: "Cross-task Attention Mechanism for Dense Multi-task
    Learning", section 3 (multi-task exchange block).
    """

    def __init__(
        self, channels: int, targets: Sequence[str], sources: Sequence[str], scale: int
    ) -> None:
        super().__init__()
        self.channels = channels
        self.targets = tuple(targets)
        self.receivers = {
            source: tuple(target for target in self.targets if target != source)
            for source in sources
        }
        self.extract = nn.ModuleDict(
            {
                source: nn.Conv2d(channels, channels * len(to), 3, padding=1)
                for source, to in self.receivers.items()
                if to
            }
        )
        self.pairs = nn.ModuleDict()
        self.fuse = nn.ModuleDict()
        for target in self.targets:
            others = [source for source in sources if source != target]
            if others:
                self.pairs[target] = nn.ModuleDict(
                    {source: PairExchange(channels, scale) for source in others}
                )
                self.fuse[target] = _unit(channels * len(others), channels)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the sources' features (B, C, H, W) to one such map per target."""
        extracts: dict[str, dict[str, Tensor]] = {target: {} for target in self.targets}
        for source, convolution in self.extract.items():
            parts = functional.relu(convolution(features[source])).split(self.channels, 1)
            for target, part in zip(self.receivers[source], parts):
                extracts[target][source] = part
        exchanged = {target: features[target] for target in self.targets}
        for target, pairs in self.pairs.items():
            directed = [
                pair(features[target], extracts[target][source]) for source, pair in pairs.items()
            ]
            exchanged[target] = features[target] + self.fuse[target](torch.cat(directed, 1))
        return exchanged
