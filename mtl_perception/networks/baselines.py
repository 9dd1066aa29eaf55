# SPDX-License-Identifier: Apache-2.0
"""The baselines: one shared encoder, one head per task, nothing exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TYPE_CHECKING

from mtl_perception.networks.errors import NetworkError
from mtl_perception.networks.heads import DeepLabHead, HighResolutionHead
from mtl_perception.networks.network import Encoder, MTI_NET_HRNET_MOMENTUM, Network
from mtl_perception.networks.outputs import Outputs
from torch import nn, Tensor

if TYPE_CHECKING:
    from mtl_perception.tasks import Task


class MultiTaskBaseline(Network):
    """
    Shared encoder, independent heads; raw maps at 1/4 of the input size.

    In published mode a ResNet is dilated and has DeepLabv3 heads, as in the papers' comparisons:
    raw maps at 1/8 on ResNet-18 and -50 (MTI-Net's), at 1/16 on ResNet-101 (DenseMTL's).
    """

    good_for = 'the least work per frame; the yardstick for every exchange between tasks'
    hrnet_momentum: ClassVar[float | None] = MTI_NET_HRNET_MOMENTUM

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        super().__init__(encoder, tasks, auxiliary, mode)
        self.heads = nn.ModuleDict()
        for task in self.all_tasks:
            if mode == 'published' and encoder.backbone.name.startswith('resnet'):
                self.heads[task.name] = DeepLabHead(encoder.channels[-1], task)
            else:
                self.heads[task.name] = HighResolutionHead(encoder.channels, task)

    @classmethod
    def backbone_options(cls, backbone: str, mode: str) -> dict[str, Any]:
        """Dilate a ResNet as the paper that uses it does."""
        if mode == 'published' and backbone.startswith('resnet'):
            return {'output_stride': 16 if backbone == 'resnet101' else 8}
        return super().backbone_options(backbone, mode)

    def forward(self, image: Tensor) -> Outputs:
        """Map a normalised image (B, 3, H, W) to `Outputs`."""
        features = self.encoder(image)
        maps = {task.name: self.heads[task.name](features) for task in self.tasks}
        if not (self.training and self.auxiliary_tasks):
            return Outputs(maps)
        auxiliary = {task.name: self.heads[task.name](features) for task in self.auxiliary_tasks}
        return Outputs(maps, (auxiliary,))


class SingleTaskBaseline(MultiTaskBaseline):
    """The same network for exactly one task: what every multi-task gain is measured against."""

    good_for = 'one task alone; the reference of every multi-task gain'

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        if len(tasks) != 1 or auxiliary:
            names = ', '.join(task.name for task in (*tasks, *auxiliary))
            raise NetworkError(
                f'system single_task takes exactly one task, got {names}; '
                'build one network per task or use multi_task'
            )
        super().__init__(encoder, tasks, auxiliary, mode)
