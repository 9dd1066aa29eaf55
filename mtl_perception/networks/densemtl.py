# SPDX-License-Identifier: Apache-2.0
"""DenseMTL: a decoder per task, cut once by a cross-task exchange of all their features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TYPE_CHECKING

from mtl_perception.networks.backbones import BACKBONES
from mtl_perception.networks.heads import prediction_layer
from mtl_perception.networks.layers.aspp import ASPP
from mtl_perception.networks.layers.cross_task_attention import MultiTaskExchange
from mtl_perception.networks.network import Encoder, Network
from mtl_perception.networks.outputs import Outputs
import torch
from torch import nn, Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from mtl_perception.tasks import Task

WIDTHS = (64, 128, 128, 256, 256)  # of decoder levels 0 to 4
ASPP_RATES = (6, 12, 18)
EXCHANGE_SCALE = 4
NECK_WITH_STEM = (32, 64, 128, 256, 256)


class ReflectConvolution(nn.Sequential):
    """3x3 convolution on a reflected border, then ELU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1, padding_mode='reflect'),
            nn.ELU(inplace=True),
        )


class Decoder(nn.Module):
    """
    One task's decoder down to half the image size.

    Every level: convolve, repeat pixels to the next finer skip's size where that is larger,
    concatenate it, convolve. The coarsest level begins with ASPP. Backbones without a level at
    stride 2 reach half size without a skip.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], pooled_norm: bool
    ) -> None:
        super().__init__()
        # (width of the skip, whether it is finer than what arrives), coarse to fine
        skips = [
            (channels[i], strides[i] < strides[i + 1]) for i in reversed(range(len(channels) - 1))
        ]
        if strides[0] > 2:
            skips.append((0, True))
        self.enlarges = tuple(finer for _, finer in skips)
        self.before = nn.ModuleList()
        self.after = nn.ModuleList()
        width = channels[-1]
        for index, (skip, _) in enumerate(skips):
            level = WIDTHS[len(skips) - index]
            self.before.append(
                ReflectConvolution(width, level)
                if index
                else ASPP(width, level, ASPP_RATES, pooled_norm)
            )
            self.after.append(ReflectConvolution(level + skip, level))
            width = level

    def forward(self, features: Sequence[Tensor], half: tuple[int, int]) -> Tensor:
        """Map the pyramid, finest first, to (B, 128, *half)."""
        x = features[-1]
        skips: list[Tensor | None] = list(reversed(features[:-1]))
        skips += [None] * (len(self.after) - len(skips))
        for before, after, skip, enlarge in zip(self.before, self.after, skips, self.enlarges):
            x = before(x)
            if enlarge:
                x = _repeat(x, half if skip is None else (skip.shape[-2], skip.shape[-1]))
            x = after(x if skip is None else torch.cat([x, skip], 1))
        return x


class DenseMTL(Network):
    """
    DenseMTL (Lopes et al., WACV 2023): xTAM exchange at half resolution, final maps at full size.

    Every task has a decoder; at half size all features meet in one multi-task exchange, and the
    rest of the decoder brings them to the image size (H, W). While training, ``auxiliary`` holds
    one dictionary: the maps before the exchange, at (ceil(H/2), ceil(W/2)). Auxiliary tasks are
    only sources of the exchange. ResNets are dilated to output stride 16, as published; other
    backbones keep their own strides.
    """

    good_for = 'fine detail at full image size, few tasks, a large GPU'

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], auxiliary: Sequence[Task], mode: str
    ) -> None:
        super().__init__(encoder, tasks, auxiliary, mode)
        names = [task.name for task in self.all_tasks]
        pooled_norm = mode == 'published'
        self.decoders = nn.ModuleDict(
            {name: Decoder(encoder.channels, encoder.strides, pooled_norm) for name in names}
        )
        main = [task.name for task in self.tasks]
        self.exchange = MultiTaskExchange(WIDTHS[1], main, names, EXCHANGE_SCALE)
        self.initial_predict = nn.ModuleDict(
            {task.name: prediction_layer(WIDTHS[1], task) for task in self.all_tasks}
        )
        self.refine_half = nn.ModuleDict()
        self.refine_full = nn.ModuleDict()
        self.predict = nn.ModuleDict()
        for task in self.tasks:
            self.refine_half[task.name] = ReflectConvolution(WIDTHS[1], WIDTHS[0])
            self.refine_full[task.name] = ReflectConvolution(WIDTHS[0], WIDTHS[0])
            self.predict[task.name] = prediction_layer(WIDTHS[0], task)

    @classmethod
    def backbone_options(cls, backbone: str, mode: str) -> dict[str, Any]:
        """Ask for the level at stride 2, and for output stride 16 where the backbone can."""
        return {'stem': True, 'output_stride': 16 if backbone.startswith('resnet') else 32}

    @classmethod
    def neck_for(cls, backbone: str, mode: str) -> tuple[int, ...]:
        """Every decoder reads every level, so widths are declared for the stem level too."""
        if not super().neck_for(backbone, mode):
            return ()
        has_stem = backbone in BACKBONES and BACKBONES[backbone].stem
        return NECK_WITH_STEM if has_stem else NECK_WITH_STEM[1:]

    def forward(self, image: Tensor) -> Outputs:
        """Map a normalised image (B, 3, H, W) to `Outputs`."""
        height, width = image.shape[-2:]
        half = (-(-height // 2), -(-width // 2))
        pyramid = self.encoder(image)
        features = {name: decoder(pyramid, half) for name, decoder in self.decoders.items()}
        exchanged = self.exchange(features)
        maps = {}
        for name, layer in self.predict.items():
            large = _repeat(self.refine_half[name](exchanged[name]), (height, width))
            maps[name] = layer(self.refine_full[name](large))
        if not self.training:
            return Outputs(maps)
        initial = {name: layer(features[name]) for name, layer in self.initial_predict.items()}
        return Outputs(maps, (initial,))


def _repeat(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Double height and width by repeating pixels; an odd ``size`` drops the last row, column."""
    large = functional.interpolate(x, scale_factor=2.0, mode='nearest')
    return large[..., : size[0], : size[1]]
