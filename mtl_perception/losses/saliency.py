# SPDX-License-Identifier: Apache-2.0
"""Binary cross-entropy in which salient and other pixels of a batch weigh the same."""

from __future__ import annotations

from mtl_perception.losses.edges import edges_balanced_loss
from mtl_perception.values import UNLABELLED
import torch
from torch import Tensor


def saliency_balanced_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Mean over the annotated pixels of the weighted binary cross-entropy (HED, MTI-Net's code).

    Salient pixels count w and all others 1 - w, where w is the share of the others in the
    batch: whatever covers the picture, both sides pull equally.

    :param raw: logits float32 (B, 1, H, W)
    :param target: (B, H, W); 0 or 1, 255 = not annotated; a fraction between 0 and 1 is the
        share of salient pixels in a cell
    :returns: scalar; zero, with a gradient, where no pixel is annotated
    """
    annotated = target != UNLABELLED
    salient = torch.where(annotated, target.to(raw.dtype), 0.0).sum()
    weight = 1 - salient / annotated.sum().clamp(min=1)
    return edges_balanced_loss(raw, target, weight)
