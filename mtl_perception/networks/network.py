# SPDX-License-Identifier: Apache-2.0
"""What all systems share: the encoder, the task lists, and what a bundle must know of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TYPE_CHECKING

from mtl_perception.networks.layers.neck import Neck
from mtl_perception.networks.outputs import Outputs
from torch import nn, Tensor

if TYPE_CHECKING:
    from mtl_perception.networks.backbones import Backbone
    from mtl_perception.tasks import Task

DEFAULT_NECK = (24, 32, 48, 64)
MODES = ('corrected', 'published')
# In the repository of MTI-Net, which also holds its baselines and PAD-Net.
MTI_NET_HRNET_MOMENTUM = 0.01


class Encoder(nn.Module):
    """A backbone and, where declared, the 1x1 neck that sets the widths the system sees."""

    def __init__(self, backbone: Backbone, widths: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = Neck(backbone.channels, widths) if widths else None
        self.neck_widths = tuple(widths)
        self.channels = self.neck_widths or backbone.channels
        self.strides = backbone.strides

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of ``image`` (B, 3, H, W), finest first, level i (B, C_i, ceil(H/s_i), ...)."""
        features = self.backbone(image)
        return self.neck(features) if self.neck is not None else features


class Network(nn.Module):
    """
    Base of every system.

    ``tasks`` get a final map each; ``auxiliary_tasks`` are only supervised inside; ``all_tasks``
    are both, main tasks first, in the order given, which fixes the order of every concatenation.
    """

    good_for: ClassVar[str] = ''
    default_neck: ClassVar[tuple[int, ...]] = DEFAULT_NECK
    modes: ClassVar[tuple[str, ...]] = MODES
    # What a batch counts in the statistics of an HRNet; None leaves the library's 0.1.
    hrnet_momentum: ClassVar[float | None] = None

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.tasks = tuple(tasks)
        self.auxiliary_tasks = tuple(auxiliary)
        self.all_tasks = self.tasks + self.auxiliary_tasks
        self.mode = mode

    @classmethod
    def backbone_options(cls, backbone: str, mode: str) -> dict[str, Any]:
        """Keyword arguments with which this system wants its backbone built."""
        if backbone.startswith('hrnet'):
            return {'norm_momentum': cls.hrnet_momentum}
        return {}

    @classmethod
    def neck_for(cls, backbone: str, mode: str) -> tuple[int, ...]:
        """
        Neck widths when the caller names none.

        None in published mode, and none on HRNet-W18-small-v2, whose levels (18/36/72/144) are
        the widths that MTI-Net and PAD-Net were made for.
        """
        narrow = backbone == 'hrnet_w18_small_v2'
        return () if mode == 'published' or narrow else cls.default_neck

    def forward(self, image: Tensor) -> Outputs:
        """Map a normalised image (B, 3, H, W) to `Outputs`."""
        raise NotImplementedError
