# SPDX-License-Identifier: Apache-2.0
"""PAD-Net: initial predictions of every task, then gated distillation between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TYPE_CHECKING

from mtl_perception.networks.heads import prediction_layer
from mtl_perception.networks.layers.bottleneck import Bottleneck
from mtl_perception.networks.layers.gated_distillation import (
    GatedDistillation,
    TargetGatedDistillation,
)
from mtl_perception.networks.layers.pyramid_projection import PyramidProjection
from mtl_perception.networks.network import Encoder, MTI_NET_HRNET_MOMENTUM, Network
from mtl_perception.networks.outputs import Outputs
from torch import nn, Tensor

if TYPE_CHECKING:
    from mtl_perception.tasks import Task

WIDTH = 256


class PADNet(Network):
    """
    PAD-Net (Xu et al., CVPR 2018) in the form MTI-Net's authors released, at 1/4 resolution.

    Features of each task, not its score maps, are exchanged. The gate of a message is computed
    from the receiving task in corrected mode (the paper's module C) and from the sending task in
    published mode (the released code). Raw maps have size (ceil(H/4), ceil(W/4)); while training,
    ``auxiliary`` holds one dictionary with the initial predictions.
    """

    good_for = 'comparison with the literature: one scale, wide features, dear for many tasks'
    hrnet_momentum: ClassVar[float | None] = MTI_NET_HRNET_MOMENTUM

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        super().__init__(encoder, tasks, auxiliary, mode)
        width = sum(encoder.channels)
        names = [task.name for task in self.all_tasks]
        main = [task.name for task in self.tasks]
        self.fuse = nn.Sequential(
            PyramidProjection(encoder.channels, width), nn.BatchNorm2d(width), nn.ReLU(True)
        )
        self.initial = nn.ModuleDict(
            {name: nn.Sequential(Bottleneck(width, WIDTH), Bottleneck(WIDTH, WIDTH))
             for name in names}
        )
        self.initial_predict = nn.ModuleDict(
            {task.name: prediction_layer(WIDTH, task) for task in self.all_tasks}
        )
        exchange = GatedDistillation if mode == 'published' else TargetGatedDistillation
        self.distillation = exchange(WIDTH, main, names)
        self.refine = nn.ModuleDict(
            {name: nn.Sequential(Bottleneck(WIDTH, WIDTH), Bottleneck(WIDTH, WIDTH))
             for name in main}
        )
        self.predict = nn.ModuleDict(
            {task.name: prediction_layer(WIDTH, task) for task in self.tasks}
        )

    def forward(self, image: Tensor) -> Outputs:
        """Map a normalised image (B, 3, H, W) to `Outputs`."""
        shared = self.fuse(self.encoder(image))  # (B, C, H/4, W/4)
        features = {name: block(shared) for name, block in self.initial.items()}
        distilled = self.distillation(features)
        maps = {
            name: layer(self.refine[name](distilled[name]))
            for name, layer in self.predict.items()
        }
        if not self.training:
            return Outputs(maps)
        initial = {name: layer(features[name]) for name, layer in self.initial_predict.items()}
        return Outputs(maps, (initial,))
