# SPDX-License-Identifier: Apache-2.0
"""Heads: from features of several resolutions to one raw map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mtl_perception.networks.layers.aspp import ASPP
from mtl_perception.networks.layers.resize import resize_like
import torch
from torch import nn, Tensor

if TYPE_CHECKING:
    from mtl_perception.tasks import Task

DEEPLAB_WIDTH = 256
DEEPLAB_RATES = (12, 24, 36)


def prediction_layer(channels: int, task: Task) -> nn.Conv2d:
    """
    Build the 1x1 convolution from ``channels`` features to the raw map of ``task``.

    It starts near zero, so that class scores begin uniform. Depth starts at exp(1) = 2.7 m, and
    normals face the camera (0, 0, -1): near zero their direction would be noise and its gradient
    unbounded.
    """
    layer = nn.Conv2d(channels, task.channels, 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        if task.kind == 'depth':
            layer.bias.fill_(1.0)
        elif task.kind == 'normals':
            layer.bias[2] = -1.0
    return layer


class HighResolutionHead(nn.Module):
    """
    Bring all levels to the finest, concatenate, 1x1 - BatchNorm - ReLU, then predict.

    Source: "Deep High-Resolution Representation Learning for Visual Recognition", section 3.
    """

    def __init__(self, channels: Sequence[int], task: Task) -> None:
        super().__init__()
        width = sum(channels)
        self.fuse = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.predict = prediction_layer(width, task)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map levels (B, channels[i], h_i, w_i), finest first, to (B, task.channels, h_0, w_0)."""
        joined = torch.cat([resize_like(feature, features[0]) for feature in features], 1)
        return self.predict(self.fuse(joined))


class ConvolutionHead(nn.Module):
    """3x3 - BatchNorm - ReLU on one map, then predict."""

    def __init__(self, channels: int, width: int, task: Task) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.predict = prediction_layer(width, task)

    def forward(self, feature: Tensor) -> Tensor:
        """Map (B, channels, h, w) to (B, task.channels, h, w)."""
        return self.predict(self.mix(feature))


class DeepLabHead(nn.Module):
    """
    ASPP on the coarsest level, 3x3 - BatchNorm - ReLU, then predict.

    Source: "Rethinking Atrous Convolution for Semantic Image Segmentation", with the dilation
    rates 12, 24 and 36 that the baselines of the multi-task papers have on ResNets.
    """

    def __init__(self, channels: int, task: Task) -> None:
        super().__init__()
        self.pyramid = ASPP(channels, DEEPLAB_WIDTH, DEEPLAB_RATES)
        self.decode = ConvolutionHead(DEEPLAB_WIDTH, DEEPLAB_WIDTH, task)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the coarsest of the levels, (B, channels, h, w), to (B, task.channels, h, w)."""
        return self.decode(self.pyramid(features[-1]))
