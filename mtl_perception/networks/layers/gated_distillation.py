# SPDX-License-Identifier: Apache-2.0
"""Gated distillation: each task receives gated messages from all other tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn, Tensor


class GatedDistillation(nn.Module):
    """
    D_t = F_t + sum over a != t of conv3x3(F_a) * sigmoid(conv3x3(F_a)), gate from the source.

    Every ordered pair (target, source) has its own two 3x3 convolutions without bias. All
    convolutions that read the same source run as one, which is the same sum with fewer passes.
    Source: "MTI-Net", section 3.2 (multi-modal distillation).
    """

    def __init__(self, channels: int, targets: Sequence[str], sources: Sequence[str]) -> None:
        super().__init__()
        self.channels = channels
        self.targets = tuple(targets)
        self.receivers = {
            source: tuple(target for target in self.targets if target != source)
            for source in sources
        }
        self.messages = nn.ModuleDict(
            {
                source: nn.Conv2d(channels, 2 * channels * len(to), 3, padding=1, bias=False)
                for source, to in self.receivers.items()
                if to
            }
        )

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the sources' features (B, channels, h, w) to one such map per target."""
        distilled = {target: features[target] for target in self.targets}
        for source, convolution in self.messages.items():
            parts = convolution(features[source]).split(self.channels, 1)
            for index, target in enumerate(self.receivers[source]):
                message, gate = parts[2 * index], parts[2 * index + 1]
                distilled[target] = distilled[target] + message * gate.sigmoid()
        return distilled
