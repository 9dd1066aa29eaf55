# SPDX-License-Identifier: Apache-2.0
"""MTI-Net: multi-modal distillation at four scales, with feature propagation between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TYPE_CHECKING

from mtl_perception.networks.heads import HighResolutionHead, prediction_layer
from mtl_perception.networks.layers.basic_block import BasicBlock
from mtl_perception.networks.layers.feature_propagation import FeaturePropagation
from mtl_perception.networks.layers.gated_distillation import GatedDistillation
from mtl_perception.networks.layers.resize import resize_like
from mtl_perception.networks.network import Encoder, MTI_NET_HRNET_MOMENTUM, Network
from mtl_perception.networks.outputs import Outputs
import torch
from torch import nn, Tensor

if TYPE_CHECKING:
    from mtl_perception.tasks import Task


class InitialPrediction(nn.Module):
    """One scale's first features and first raw map of every task, no weights shared."""

    def __init__(self, in_channels: int, channels: int, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                task.name: nn.Sequential(
                    BasicBlock(in_channels, channels), BasicBlock(channels, channels)
                )
                for task in tasks
            }
        )
        self.predict = nn.ModuleDict(
            {task.name: prediction_layer(channels, task) for task in tasks}
        )

    def forward(self, x: Tensor, propagated: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Map the level (B, C, h, w) and the coarser scale's maps to features per task."""
        features = {}
        for name, block in self.features.items():
            if propagated is None:
                features[name] = block(x)
            else:
                features[name] = block(torch.cat([x, resize_like(propagated[name], x)], 1))
        return features

    def raw_maps(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Predict the supervised raw map (B, task.channels, h, w) of every task."""
        return {name: layer(features[name]) for name, layer in self.predict.items()}


class MTINet(Network):
    """
    MTI-Net (Vandenhende et al., ECCV 2020) on any four-level backbone.

    Coarse to fine: initial predictions per task, feature propagation to the next finer scale,
    gated distillation at every scale, one high-resolution head per main task. Raw maps have size
    (ceil(H/4), ceil(W/4)). While training, ``auxiliary`` holds four dictionaries, finest first.
    """

    good_for = 'robots: exchange at four scales for little work; cheap auxiliary tasks'
    hrnet_momentum: ClassVar[float | None] = MTI_NET_HRNET_MOMENTUM

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        super().__init__(encoder, tasks, auxiliary, mode)
        channels = encoder.channels
        names = [task.name for task in self.all_tasks]
        main = [task.name for task in self.tasks]
        last = len(channels) - 1
        softmax_over = 'tasks' if mode == 'corrected' else 'adjacent_channels'
        self.initial = nn.ModuleList(
            InitialPrediction(
                width if level == last else width + channels[level + 1], width, self.all_tasks
            )
            for level, width in enumerate(channels)
        )
        # Entry i serves level i + 1: the finest level has no finer one to propagate to.
        self.propagation = nn.ModuleList(
            FeaturePropagation(width, names, softmax_over) for width in channels[1:]
        )
        self.distillation = nn.ModuleList(
            GatedDistillation(width, main, names) for width in channels
        )
        self.heads = nn.ModuleDict(
            {task.name: HighResolutionHead(channels, task) for task in self.tasks}
        )

    def forward(self, image: Tensor) -> Outputs:
        """Map a normalised image (B, 3, H, W) to `Outputs`."""
        levels = self.encoder(image)
        features: list[dict[str, Tensor]] = [{} for _ in levels]
        propagated: dict[str, Tensor] | None = None
        for level in reversed(range(len(levels))):
            features[level] = self.initial[level](levels[level], propagated)
            if level > 0:
                propagated = self.propagation[level - 1](features[level])
        distilled = [
            exchange(feature) for exchange, feature in zip(self.distillation, features)
        ]
        maps = {
            name: head([scale[name] for scale in distilled]) for name, head in self.heads.items()
        }
        if not self.training:
            return Outputs(maps)
        auxiliary = tuple(
            initial.raw_maps(feature) for initial, feature in zip(self.initial, features)
        )
        return Outputs(maps, auxiliary)
