# SPDX-License-Identifier: Apache-2.0
"""Cross-task attention between every ordered pair of tasks, and the exchange made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtl_perception.networks.layers.resize import pad_to_multiple
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
        pooled = functional.max_pool2d(pad_to_multiple(source, self.scale), self.scale)
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

    Both attentions read g = ReLU(conv3x3(source)). Self-attention is a gate of half the width,
    conv3x3(g) * sigmoid(conv3x3(g)), whose two convolutions run as one.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.extract = nn.Conv2d(channels, channels, 3, padding=1)
        self.attend_self = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.attend_cross = CorrelationAttention(channels, scale)
        self.project = _unit(channels // 2 + channels, channels)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Map the target and the source (B, C, H, W) to the directed feature, same shape."""
        extracted = functional.relu(self.extract(source), inplace=True)
        gate, feature = self.attend_self(extracted).chunk(2, 1)
        own = gate.sigmoid() * feature
        return self.project(torch.cat([own, self.attend_cross(target, extracted)], 1))


class MultiTaskExchange(nn.Module):
    """
    mTEB: rewrite the targets' features from those of all other tasks.

    f_t + ReLU(BN(1x1(concat over s != t of d_{s->t}))), with weights of its own for every
    ordered pair, the others always in task order. The 1x1 convolution over the concatenation is
    added up source by source, so that one directed feature lives at a time. Source: "Cross-task
    Attention Mechanism for Dense Multi-task Learning", section 3 (multi-task exchange block).
    """

    def __init__(
        self, channels: int, targets: Sequence[str], sources: Sequence[str], scale: int
    ) -> None:
        super().__init__()
        self.targets = tuple(targets)
        self.pairs = nn.ModuleDict()
        self.fuse = nn.ModuleDict()
        self.activate = nn.ModuleDict()
        for target in self.targets:
            others = [source for source in sources if source != target]
            if others:
                self.pairs[target] = nn.ModuleDict(
                    {source: PairExchange(channels, scale) for source in others}
                )
                self.fuse[target] = nn.ModuleDict(
                    {source: nn.Conv2d(channels, channels, 1, bias=False) for source in others}
                )
                self.activate[target] = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(True))

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the sources' features (B, C, H, W) to one such map per target."""
        exchanged = {target: features[target] for target in self.targets}
        for target, pairs in self.pairs.items():
            own = features[target]
            total: Tensor | None = None
            for source, pair in pairs.items():
                part = self.fuse[target][source](pair(own, features[source]))
                total = part if total is None else total + part
            exchanged[target] = own + self.activate[target](total)
        return exchanged
