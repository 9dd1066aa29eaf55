# SPDX-License-Identifier: Apache-2.0
"""What a discriminator sees of a network's raw map, per kind of task."""

from __future__ import annotations

from collections.abc import Mapping
import math

from mtl_perception.networks.decoding import decode_depth, decode_normals
from mtl_perception.tasks import LABELLED_KINDS, PROBABILITY_KINDS, Task
import torch
from torch import Tensor
import torch.nn.functional as F

# Only keeps exp() finite on an untrained network.
_DEPTH_LIMITS_M = (1e-3, 1e3)
# DenseMTL's inverse depth is 65536 / (100 z + 1); the factor cancels in what is done here.
_INVERSE_DEPTH_OFFSET_M = 0.01


def _inverse_depth(depth: Tensor) -> Tensor:
    return 1 / (depth + _INVERSE_DEPTH_OFFSET_M)


def self_information(log_probability: Tensor) -> Tensor:
    """
    Return the weighted self-information -p log2(p) / log2(C) of C classes.

    The map is near 0 where a class is certain to be there or not to be; the sum over classes is
    the entropy as a share of its largest value (Vu et al., ADVENT, CVPR 2019, section 3.2).

    :param log_probability: natural logarithms (B, C, H, W), C > 1
    :returns: (B, C, H, W), from 0 to log2(e) / (e log2(C))
    """
    # One class is always certain: its information is 0 over whatever.
    classes = max(2, log_probability.shape[1])
    return -log_probability.exp() * log_probability / math.log(classes)


def inverse_depth_range(depth: Tensor, fallback_m: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """
    Return the least and the greatest inverse depth, 1/m, of a batch's targets.

    :param depth: (B, H, W) metres, NaN = invalid
    :param fallback_m: least and greatest depth where no pixel is valid
    :returns: two scalars, the second above the first
    """
    valid = depth[torch.isfinite(depth) & (depth > 0)].float()
    if not valid.numel():
        valid = depth.new_tensor(fallback_m, dtype=torch.float32)
    low, high = _inverse_depth(valid.max()), _inverse_depth(valid.min())
    # A batch that shows one plane from the front has no range to divide by.
    return low, torch.maximum(high, low * (1 + 1e-3))


def domain_map(
    task: Task,
    raw: Tensor,
    size: tuple[int, int],
    inverse_depths: Mapping[str, tuple[Tensor, Tensor]],
) -> Tensor:
    """
    Enlarge a raw map bilinearly and bring it to the form in which domains are compared.

    Semantic and parts: self-information, C channels. Depth: inverse depth over the range that
    the source batch's targets have, 0 = its farthest and 1 = its nearest point, not clipped.
    Normals: unit vectors. DenseMTL's code has these; for edges and saliency, which it does not
    adapt, this takes the self-information of the two classes yes and no.

    :param raw: (B, channels, h, w) as the network gives it
    :param size: (H, W) of the labels
    :param inverse_depths: of `inverse_depth_range`, by the name of depth tasks
    :returns: float32 (B, `map_channels`, H, W)
    """
    raw = F.interpolate(raw.float(), size, mode='bilinear', align_corners=True)
    if task.kind == 'depth':
        low, high = inverse_depths[task.name]
        depth = decode_depth(raw, _DEPTH_LIMITS_M)[:, None]
        return (_inverse_depth(depth) - low) / (high - low)
    if task.kind == 'normals':
        return decode_normals(raw)
    if task.kind in LABELLED_KINDS:
        return self_information(F.log_softmax(raw, dim=1))
    # Edges and saliency: the logit is that of yes against no.
    return self_information(torch.cat((F.logsigmoid(raw), F.logsigmoid(-raw)), dim=1))


def map_channels(task: Task) -> int:
    """Return how many channels `domain_map` has."""
    return 2 if task.kind in PROBABILITY_KINDS else task.channels
