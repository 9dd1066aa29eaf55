# SPDX-License-Identifier: Apache-2.0
"""
What a network's raw maps mean: the one decoder that losses, metrics and the graph share.

Raw conventions, per task kind (B images, any resolution h x w):

* semantic and parts: C logits, one per class.
* depth: one channel, the natural logarithm of the depth in metres along Z that a camera with the
  reference focal length would see. A log channel is positive by construction and gives near and
  far surfaces the same relative resolution over the whole 0.2 to 20 m of a room.
* normals: an unnormalised 3-vector in the optical frame (x right, y down, z forward), again as
  seen by the reference focal length.
* edges and saliency: one logit.

All decoders leave half precision first: ``exp``, ``normalize`` (its epsilon is zero in fp16) and
``sigmoid`` are cheap and lose accuracy there. Double precision stays double.
"""

from __future__ import annotations

import math

from mtl_perception.networks.layers.precision import promote
import torch
from torch import Tensor
import torch.nn.functional as F


def decode_semantic(raw: Tensor) -> tuple[Tensor, Tensor]:
    """
    Decode class logits into labels and confidence.

    :param raw: logits (B, C, h, w), C <= 255
    :returns: labels uint8 (B, h, w) and the winner's softmax probability (B, h, w), float32 at
        least
    """
    logits = promote(raw)
    labels = logits.argmax(dim=1)
    # The winner's softmax without the other C - 1 quotients: exp(0) / sum(exp(l - max l)).
    shifted = logits - logits.amax(dim=1, keepdim=True)
    confidence = shifted.exp().sum(dim=1).reciprocal()
    return labels.to(torch.uint8), confidence


def decode_depth(
    raw: Tensor, depth_range_m: tuple[float, float], depth_scale: Tensor | None = None
) -> Tensor:
    """
    Decode log-depth into metres along Z.

    :param raw: log-depth (B, 1, h, w)
    :param depth_range_m: shortest and longest depth at the reference focal length; the result is
        clamped to it before it is scaled
    :param depth_scale: f / f_ref per image (B,); None leaves depth at the reference focal length
    :returns: depth (B, h, w), float32 at least
    """
    low, high = depth_range_m
    # Clamped before exp, so that an untrained network cannot overflow.
    depth = promote(raw[:, 0]).clamp(math.log(low), math.log(high)).exp()
    if depth_scale is not None:
        depth = depth * depth_scale.to(depth.dtype).view(-1, 1, 1)
    return depth


def decode_normals(raw: Tensor, depth_scale: Tensor | None = None) -> Tensor:
    """
    Decode 3-vectors into unit normals.

    A focal length s times the reference stretches depth by s, which turns the normal
    (nx, ny, nz) of a surface into (nx, ny, nz / s) up to its length.

    :param raw: vectors (B, 3, h, w) in the optical frame
    :param depth_scale: s = f / f_ref per image (B,); None leaves the reference focal length
    :returns: unit vectors (B, 3, h, w), float32 at least
    """
    vectors = F.normalize(promote(raw), dim=1, eps=1e-6)
    if depth_scale is not None:
        scale = depth_scale.to(vectors.dtype).view(-1, 1, 1, 1)
        vectors = torch.cat((vectors[:, :2], vectors[:, 2:] / scale), dim=1)
        vectors = F.normalize(vectors, dim=1, eps=1e-6)
    return vectors


def decode_probability(raw: Tensor) -> Tensor:
    """
    Decode the logits of edges or saliency into probabilities.

    :param raw: logits (B, 1, h, w)
    :returns: probability (B, h, w), float32 at least
    """
    return promote(raw[:, 0]).sigmoid()
