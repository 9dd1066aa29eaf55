# SPDX-License-Identifier: Apache-2.0
"""Backbones: feature extractors of timm and segmentation-models-pytorch, for any image size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtl_perception.networks.backbone_weights import load_backbone_weights
from mtl_perception.networks.dense_backbones import make_dense
from mtl_perception.networks.errors import NetworkError
import timm
import torch
from torch import nn, Tensor
from torch.nn import functional

# feature_location='' gives the four branches themselves, the "HRNet-18" of MTI-Net and DeMT; the
# fusion layers add maps upsampled by powers of two, so every level must divide evenly.
_HRNET: dict[str, Any] = {'multiple': 32, 'arguments': {'feature_location': ''}}
# Windows stay 7x7 at every size and are padded, as in the dense-prediction Swin.
_SWIN: dict[str, Any] = {
    'multiple': 4,
    'stem': False,
    'arguments': {'dynamic_img_size': True, 'strict_img_size': False, 'always_partition': True},
}


@dataclass(frozen=True)
class BackboneSpec:
    """
    How a backbone is built.

    ``source`` is the name in its library, ``multiple`` what its image sides must divide by (1:
    any size), ``stem`` whether it has a level at stride 2, ``arguments`` what its builder takes.
    """

    source: str
    multiple: int = 1
    stem: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


BACKBONES: dict[str, BackboneSpec] = {
    'hrnet_w18_small_v2': BackboneSpec('hrnet_w18_small_v2', **_HRNET),
    'hrnet_w48': BackboneSpec('hrnet_w48', **_HRNET),
    'mobilenetv2_100': BackboneSpec('mobilenetv2_100'),
    'mobilenetv4_conv_small': BackboneSpec('mobilenetv4_conv_small'),
    'resnet18': BackboneSpec('resnet18'),
    'resnet50': BackboneSpec('resnet50'),
    'resnet101': BackboneSpec('resnet101'),
    'swin_tiny': BackboneSpec('swin_tiny_patch4_window7_224', **_SWIN),
    'swin_small': BackboneSpec('swin_small_patch4_window7_224', **_SWIN),
    'swin_base': BackboneSpec('swin_base_patch4_window7_224', **_SWIN),
    'mit_b0': BackboneSpec('mit_b0', stem=False),
    'mit_b1': BackboneSpec('mit_b1', stem=False),
    'mit_b2': BackboneSpec('mit_b2', stem=False),
    'pvt_v2_b2': BackboneSpec('pvt_v2_b2', stem=False),
}


class Backbone(nn.Module):
    """
    Feature maps of an image of any size, finest first, level i at stride ``strides[i]``.

    The image is padded on the right and below to what the net needs (zeros: the mean colour of a
    normalised image) and the features are cropped back to (ceil(H/s), ceil(W/s)).
    """

    def __init__(
        self, net: nn.Module, name: str, channels: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.channels = channels
        self.strides = strides
        self.multiple = BACKBONES[name].multiple
        # Swin's stages end without a norm and give (B, h, w, C); a norm per level is part of its
        # dense-prediction form.
        swin = name.startswith('swin')
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels) if swin else None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the levels (B, channels[i], ceil(H/s_i), ceil(W/s_i))."""
        height, width = image.shape[-2:]
        right, below = -width % self.multiple, -height % self.multiple
        if right or below:
            image = functional.pad(image, (0, right, 0, below))
        features = list(self.net(image))
        if self.norms is not None:
            features = [norm(x).permute(0, 3, 1, 2) for norm, x in zip(self.norms, features)]
        if not (right or below):
            return features
        return [
            feature[..., : -(-height // stride), : -(-width // stride)]
            for feature, stride in zip(features, self.strides)
        ]


class _MixTransformer(nn.Module):
    """SegFormer's encoder: the four levels of segmentation-models-pytorch's six."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to levels at strides 4, 8, 16, 32."""
        return list(self.encoder(image))[2:]


def build_backbone(
    name: str,
    pretrained: bool | str | Path | None = None,
    *,
    output_stride: int = 32,
    stem: bool = False,
    norm_momentum: float | None = None,
) -> Backbone:
    """
    Build the backbone called ``name`` (a key of `BACKBONES`) with levels at strides 4 to 32.

    ``pretrained``: None for random weights, True for the library's weights from its hub, or a
    path to a safetensors file with the library's names (``timm.create_model(...).state_dict()``).
    Every weight of the backbone must be in the file with its exact shape; the file may hold more
    (a classifier) only beyond the layers used here. ``output_stride`` 8 or 16 dilates the last
    stages of a ResNet instead of striding. ``stem`` adds the level at stride 2 where there is one.
    ``norm_momentum`` is what a batch counts in the running statistics of every BatchNorm; None
    leaves the library's.
    Raises `NetworkError` for an unknown name, an unreachable hub or a file that does not fit.
    """
    spec = BACKBONES.get(name)
    if spec is None:
        raise NetworkError(f'unknown backbone {name!r}; known are {", ".join(BACKBONES)}')
    if output_stride != 32 and not name.startswith('resnet'):
        raise NetworkError(f'backbone {name!r} has output stride 32; only ResNets can dilate')
    try:
        if name.startswith('mit'):
            backbone = _build_mix_transformer(name, spec, pretrained is True)
        else:
            backbone = _build_timm(name, spec, pretrained is True, output_stride, stem)
    except Exception as error:  # the hub clients raise many unrelated classes
        if pretrained is not True or isinstance(error, NetworkError):
            raise
        raise NetworkError(
            f'cannot fetch the pretrained weights of {name!r} from the hub: {error}; '
            'give the path of a local safetensors file, or pretrained=None'
        ) from error
    if isinstance(pretrained, (str, Path)):
        inner = backbone.net.encoder if name.startswith('mit') else backbone.net
        load_backbone_weights(inner, Path(pretrained), name)
    if norm_momentum is not None:
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum
    return backbone


def _build_timm(
    name: str, spec: BackboneSpec, pretrained: bool, output_stride: int, stem: bool
) -> Backbone:
    arguments = dict(spec.arguments)
    if output_stride != 32:
        arguments['output_stride'] = output_stride
    first = 0 if stem or not spec.stem else 1
    indices = tuple(range(first, 5 if spec.stem else 4))
    net = timm.create_model(
        spec.source, pretrained=pretrained, features_only=True, out_indices=indices, **arguments
    )
    make_dense(net)
    channels = tuple(int(width) for width in net.feature_info.channels())
    strides = tuple(int(stride) for stride in net.feature_info.reduction())
    return Backbone(net, name, channels, strides)


def _build_mix_transformer(name: str, spec: BackboneSpec, pretrained: bool) -> Backbone:
    try:
        from segmentation_models_pytorch.encoders import get_encoder
    except ImportError as error:
        raise NetworkError(
            f'backbone {name!r} needs segmentation-models-pytorch; '
            'pip install segmentation-models-pytorch'
        ) from error
    # Its schedule of dropped paths reads tensor values, which the 'meta' device does not have.
    with torch.device('cpu'):
        encoder = get_encoder(spec.source, weights='imagenet' if pretrained else None)
    channels = tuple(int(width) for width in encoder.out_channels[2:])
    return Backbone(_MixTransformer(encoder), name, channels, (4, 8, 16, 32))
