# SPDX-License-Identifier: Apache-2.0
"""DeMT: a deformable mixer per task, then attention between the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TYPE_CHECKING

from mtl_perception.networks.heads import ConvolutionHead
from mtl_perception.networks.layers.deformable_mixer import DeformableMixer
from mtl_perception.networks.layers.pyramid_projection import PyramidProjection
from mtl_perception.networks.layers.resize import pad_to_multiple
from mtl_perception.networks.layers.task_attention import stack_tokens, TaskAttention
from mtl_perception.networks.network import Encoder, Network
from mtl_perception.networks.outputs import Outputs
import torch
from torch import nn, Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from mtl_perception.tasks import Task

WIDTH = 256
HEAD_WIDTHS = (32, 256)
REDUCTION = 8


class DeMT(Network):
    """
    DeMT (Xu et al., AAAI 2023): deformable mixer encoder, task interaction, task query.

    In corrected mode both blocks attend across the tasks' features at the same pixel of the same
    image. Published mode is the function of the released code at batch size 1: its interaction
    block is linear and only its query block attends. Raw maps have size (ceil(H/4), ceil(W/4)).
    An auxiliary task takes part in the attention and is supervised while training.
    """

    good_for = 'many tasks on transformer backbones: its exchange grows slowly with their number'
    # Only the first projection and the heads see the backbone's width; both stay moderate.
    default_neck: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        super().__init__(encoder, tasks, auxiliary, mode)
        released = mode == 'published'
        names = [task.name for task in self.all_tasks]
        self.reduce = PyramidProjection(encoder.channels, WIDTH)
        self.reduce_norm = nn.LayerNorm(WIDTH)
        self.mixers = nn.ModuleDict(
            {name: DeformableMixer(WIDTH, released_offsets=released) for name in names}
        )
        self.interaction = TaskAttention(WIDTH)
        self.queries = nn.ModuleDict({name: TaskAttention(WIDTH) for name in names})
        width = sum(encoder.channels) // 8
        if not released:
            width = min(max(width, HEAD_WIDTHS[0]), HEAD_WIDTHS[1])
        self.heads = nn.ModuleDict(
            {task.name: ConvolutionHead(WIDTH, width, task) for task in self.all_tasks}
        )

    def forward(self, image: Tensor) -> Outputs:
        """Map a normalised image (B, 3, H, W) to `Outputs`."""
        shared = self.reduce(self.encoder(image))  # (B, 256, H/4, W/4)
        shared = self.reduce_norm(shared.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        mixed = {name: mixer(shared) for name, mixer in self.mixers.items()}
        wanted = self.all_tasks if self.training else self.tasks
        found = self.exchange(mixed, [task.name for task in wanted])
        maps = {name: self.heads[name](feature) for name, feature in found.items()}
        main = {task.name: maps[task.name] for task in self.tasks}
        if not (self.training and self.auxiliary_tasks):
            return Outputs(main)
        return Outputs(main, ({task.name: maps[task.name] for task in self.auxiliary_tasks},))

    def exchange(self, mixed: dict[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Add to each wanted task's map (B, C, h, w) what its query finds in all tasks."""
        height, width = next(iter(mixed.values())).shape[-2:]
        tokens = stack_tokens(list(mixed.values()))  # (B, N, T, C)
        if self.mode == 'published':
            shared = self.interaction.linear(tokens)
        else:
            shared = self.interaction.at_each_pixel(tokens, tokens)
        found = {}
        for index, name in enumerate(mixed):
            if name in wanted:
                query = tokens[:, :, index : index + 1]
                answer = self.queries[name].at_each_pixel(query, shared) + query
                found[name] = answer[:, :, 0].transpose(1, 2).unflatten(2, (height, width))
        return found


class DeMTGlobal(DeMT):
    """
    DeMT with attention over all positions of all tasks, as the paper's text reads.

    Full attention would need (T*N)^2 products; keys and values are averaged over 8x8 blocks of
    the 1/4-resolution maps, so that T*N queries meet T*N/64 tokens.
    """

    good_for = 'scenes where far places explain each other; lighter than demt'
    modes: ClassVar[tuple[str, ...]] = ('corrected',)

    def exchange(self, mixed: dict[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Add to each wanted task's map (B, C, h, w) what its query finds anywhere."""
        height, width = next(iter(mixed.values())).shape[-2:]
        reduced = torch.cat([_tokens(_average(feature)) for feature in mixed.values()], 1)
        shared = self.interaction.over_positions(reduced, reduced)  # (B, T*N/64, C)
        found = {}
        for name in wanted:
            query = _tokens(mixed[name])  # (B, N, C)
            answer = self.queries[name].over_positions(query, shared) + query
            found[name] = answer.transpose(1, 2).unflatten(2, (height, width))
        return found


def _tokens(feature: Tensor) -> Tensor:
    """Turn a map (B, C, H, W) into tokens (B, H*W, C)."""
    return feature.flatten(2).transpose(1, 2)


def _average(feature: Tensor) -> Tensor:
    """Average over blocks of 8x8; the last blocks repeat the border of the map."""
    return functional.avg_pool2d(pad_to_multiple(feature, REDUCTION), REDUCTION)
