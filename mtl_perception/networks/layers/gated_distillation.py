# SPDX-License-Identifier: Apache-2.0
"""Gated distillation: each task receives gated messages from all other tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn, Tensor


class _Distillation(nn.Module):
    """Who receives from whom, and one convolution per source that makes all its messages."""

    def __init__(
        self, channels: int, targets: Sequence[str], sources: Sequence[str], parts: int
    ) -> None:
        super().__init__()
        self.channels = channels
        self.targets = tuple(targets)
        self.receivers = {
            source: tuple(target for target in self.targets if target != source)
            for source in sources
        }
        self.messages = nn.ModuleDict(
            {
                source: nn.Conv2d(channels, parts * channels * len(to), 3, padding=1, bias=False)
                for source, to in self.receivers.items()
                if to
            }
        )


class GatedDistillation(_Distillation):
    """
    D_t = F_t + sum over a != t of conv3x3(F_a) * sigmoid(conv3x3(F_a)), gate from the source.

    Every ordered pair (target, source) has its own two 3x3 convolutions without bias. All
    convolutions that read the same source run as one, which is the same sum with fewer passes.
    Source: "MTI-Net", section 3.2 (multi-modal distillation).
    """

    def __init__(self, channels: int, targets: Sequence[str], sources: Sequence[str]) -> None:
        super().__init__(channels, targets, sources, parts=2)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the sources' features (B, channels, h, w) to one such map per target."""
        distilled = {target: features[target] for target in self.targets}
        for source, convolution in self.messages.items():
            parts = convolution(features[source]).split(self.channels, 1)
            for index, target in enumerate(self.receivers[source]):
                message, gate = parts[2 * index], parts[2 * index + 1]
                distilled[target] = distilled[target] + message * gate.sigmoid()
        return distilled


class TargetGatedDistillation(_Distillation):
    """
    D_t = F_t + sigmoid(conv3x3(F_t)) * sum over a != t of conv3x3(F_a), gate from the receiver.

    The receiving task decides where to listen: one gate per task, one message convolution per
    ordered pair, none with bias. Source: "PAD-Net", section 3.3, distillation module C.
    """

    def __init__(self, channels: int, targets: Sequence[str], sources: Sequence[str]) -> None:
        super().__init__(channels, targets, sources, parts=1)
        self.gates = nn.ModuleDict(
            {
                target: nn.Conv2d(channels, channels, 3, padding=1, bias=False)
                for target in self.targets
                if any(target in to for to in self.receivers.values())
            }
        )

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the sources' features (B, channels, h, w) to one such map per target."""
        heard: dict[str, Tensor] = {}
        for source, convolution in self.messages.items():
            parts = convolution(features[source]).split(self.channels, 1)
            for message, target in zip(parts, self.receivers[source]):
                heard[target] = heard[target] + message if target in heard else message
        distilled = {target: features[target] for target in self.targets}
        for target, message in heard.items():
            gate = self.gates[target](features[target]).sigmoid()
            distilled[target] = features[target] + gate * message
        return distilled
