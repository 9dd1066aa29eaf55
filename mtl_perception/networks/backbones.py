# SPDX-License-Identifier: Apache-2.0
"""Backbones: timm feature extractors behind one face, for any image size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
import re
from typing import Any

from mtl_perception.networks.errors import NetworkError
from safetensors import SafetensorError
from safetensors.torch import load_file
import timm
import torch
from torch import nn, Tensor
from torch.nn import functional

STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class BackboneSpec:
    """How timm builds a backbone, and the multiple its image sides must have (1: any size)."""

    timm_name: str
    multiple: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)


BACKBONES: dict[str, BackboneSpec] = {
    # feature_location='' gives the four branches themselves, the "HRNet-18" of MTI-Net and DeMT;
    # its fusion layers add maps upsampled by powers of two, so every level must divide evenly.
    'hrnet_w18_small_v2': BackboneSpec('hrnet_w18_small_v2', 32, {'feature_location': ''}),
    'mobilenetv2_100': BackboneSpec('mobilenetv2_100'),
    'resnet18': BackboneSpec('resnet18'),
    'resnet50': BackboneSpec('resnet50'),
}


class Backbone(nn.Module):
    """
    Four feature maps of an image of any size, at strides 4, 8, 16 and 32.

    The image is padded on the right and below to what the net needs (zeros: the mean colour of a
    normalised image) and the features are cropped back to (ceil(H/s), ceil(W/s)).
    """

    def __init__(self, net: nn.Module, name: str, multiple: int) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.multiple = multiple
        reductions = net.feature_info.reduction()
        channels = net.feature_info.channels()
        self.strides = tuple(int(stride) for stride in reductions)
        self.channels = tuple(int(width) for width in channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the levels (B, channels[i], ceil(H/s_i), ceil(W/s_i))."""
        height, width = image.shape[-2:]
        right, below = -width % self.multiple, -height % self.multiple
        if right or below:
            image = functional.pad(image, (0, right, 0, below))
        features = self.net(image)
        if not (right or below):
            return list(features)
        return [
            feature[..., : -(-height // stride), : -(-width // stride)]
            for feature, stride in zip(features, self.strides)
        ]


def build_backbone(name: str, pretrained: bool | str | Path | None = None) -> Backbone:
    """
    Build the backbone called ``name`` (a key of `BACKBONES`).

    ``pretrained``: None for random weights, True for timm's weights from its hub, or a path to a
    safetensors file with timm's names. Every weight of the backbone must be in the file with its
    exact shape; the file may hold more (a classifier) only beyond the layers used here.
    Raises `NetworkError` for an unknown name, an unreachable hub or a file that does not fit.
    """
    spec = BACKBONES.get(name)
    if spec is None:
        raise NetworkError(f'unknown backbone {name!r}; known are {", ".join(sorted(BACKBONES))}')
    arguments = {'features_only': True, **spec.arguments}
    indices = (0, 1, 2, 3) if name.startswith(('swin', 'pvt')) else (1, 2, 3, 4)
    try:
        net = timm.create_model(
            spec.timm_name, pretrained=pretrained is True, out_indices=indices, **arguments
        )
    except Exception as error:  # the hub client raises many unrelated classes
        if pretrained is not True:
            raise
        raise NetworkError(
            f'cannot fetch the pretrained weights of {name!r} from the hub: {error}; '
            'give the path of a local safetensors file, or pretrained=None'
        ) from error
    if isinstance(pretrained, (str, Path)):
        load_backbone_weights(net, Path(pretrained), name)
    if pretrained and name.startswith('hrnet'):
        # MTI-Net's released HRNet keeps its ImageNet statistics almost fixed.
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.01
    return Backbone(net, name, spec.multiple)


def load_backbone_weights(net: nn.Module, path: Path, name: str) -> None:
    """Load the safetensors file ``path`` (timm names) into ``net``, or say what does not fit."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise NetworkError(
            f'cannot read backbone weights {path}: {error}; expected a safetensors file'
        ) from error
    # timm's feature extractors flatten the first level of names: layers_0 for layers.0
    own = {re.sub(r'^([a-z]+)_(\d+)\.', r'\1.\2.', key): key for key in net.state_dict()}
    if missing := [key for key in own if key not in stored]:
        raise NetworkError(
            f'{path} lacks {len(missing)} tensors of backbone {name!r}, first {missing[0]!r}; '
            'use a file with the timm names of this backbone'
        )
    used = {key.split('.')[0] for key in own}
    if foreign := [key for key in stored if key not in own and key.split('.')[0] in used]:
        raise NetworkError(
            f'{path} holds {len(foreign)} tensors that backbone {name!r} does not have, '
            f'first {foreign[0]!r}; use a file of exactly this backbone'
        )
    current = net.state_dict()
    state: dict[str, Tensor] = {}
    for key, target in own.items():
        tensor, wanted = stored[key], current[target]
        if tensor.shape != wanted.shape:
            raise NetworkError(
                f'{path}: tensor {key!r} has shape {tuple(tensor.shape)}, backbone {name!r} '
                f'needs {tuple(wanted.shape)}; use a file of exactly this backbone'
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NetworkError(f'{path}: tensor {key!r} holds NaN or infinity; fetch it again')
        state[target] = tensor
    net.load_state_dict(state)
