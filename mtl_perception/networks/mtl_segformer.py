# SPDX-License-Identifier: Apache-2.0
"""MTLSegFormer, as we read its abstract: attention re-weighs the other tasks' maps locally."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TYPE_CHECKING

from mtl_perception.networks.heads import prediction_layer
from mtl_perception.networks.layers.all_mlp import AllMLP
from mtl_perception.networks.layers.reduced_cross_attention import (
    block_means,
    ReducedCrossAttention,
)
from mtl_perception.networks.network import Encoder, Network
from mtl_perception.networks.outputs import Outputs
import torch
from torch import nn, Tensor

if TYPE_CHECKING:
    from mtl_perception.tasks import Task

WIDTH = 256
REDUCTION = 8


class MTLSegFormer(Network):
    """
    Our reading of MTLSegFormer (Goncalves et al., CVPR workshops 2023); only its abstract is open.

    Two maps per task: A, the task's own all-MLP fusion of the pyramid, and B, what attention
    finds for it in the other tasks' A. Both are concatenated, mixed and decoded. Everything
    beyond that sentence (heads, reduction, widths, combination) is our choice. Raw maps have
    size (ceil(H/4), ceil(W/4)); auxiliary tasks are decoded from A alone while training.
    """

    good_for = 'several correlated segmentations (our reading: only the abstract is open)'
    # The linear layers grow linearly with the backbone's width: no neck is needed.
    default_neck: ClassVar[tuple[int, ...]] = ()
    modes: ClassVar[tuple[str, ...]] = ('corrected',)

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        super().__init__(encoder, tasks, auxiliary, mode)
        names = [task.name for task in self.all_tasks]
        self.own = nn.ModuleDict({name: AllMLP(encoder.channels, WIDTH) for name in names})
        self.attention = nn.ModuleDict()
        self.combine = nn.ModuleDict()
        for task in self.tasks:
            others = [name for name in names if name != task.name]
            if others:
                self.attention[task.name] = ReducedCrossAttention(WIDTH, others)
                self.combine[task.name] = nn.Sequential(
                    nn.Conv2d(2 * WIDTH, WIDTH, 1, bias=False),
                    nn.BatchNorm2d(WIDTH),
                    nn.ReLU(inplace=True),
                )
        self.dropout = nn.Dropout(0.1)
        self.predict = nn.ModuleDict(
            {task.name: prediction_layer(WIDTH, task) for task in self.all_tasks}
        )

    def forward(self, image: Tensor) -> Outputs:
        """Map a normalised image (B, 3, H, W) to `Outputs`."""
        levels = self.encoder(image)
        own = {name: fusion(levels) for name, fusion in self.own.items()}  # A: (B, 256, H/4, W/4)
        joined = dict(own)
        # once per task, although each is asked by all the others; a lone task asks nobody
        reduced = {name: block_means(a, REDUCTION) for name, a in own.items() if self.attention}
        for name, attention in self.attention.items():
            found = attention(own[name], reduced)  # B
            joined[name] = self.combine[name](torch.cat([own[name], found], 1))
        wanted = self.all_tasks if self.training else self.tasks
        maps = {
            task.name: self.predict[task.name](self.dropout(joined[task.name])) for task in wanted
        }
        main = {task.name: maps[task.name] for task in self.tasks}
        if not (self.training and self.auxiliary_tasks):
            return Outputs(main)
        return Outputs(main, ({task.name: maps[task.name] for task in self.auxiliary_tasks},))
