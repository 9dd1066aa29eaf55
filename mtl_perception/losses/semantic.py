# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy over class labels."""

from __future__ import annotations

from mtl_perception.values import UNLABELLED
from torch import Tensor
import torch.nn.functional as F


def semantic_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Mean cross-entropy over the labelled pixels (MTI-Net and DeMT, both with CE, ignore 255).

    :param raw: logits float32 (B, C, H, W)
    :param target: class ids (B, H, W), any integer type, 255 = unlabelled
    :returns: scalar; zero, with a gradient, where no pixel is labelled
    """
    target = target.long()
    labelled = (target != UNLABELLED).sum()
    total = F.cross_entropy(raw, target, ignore_index=UNLABELLED, reduction='sum')
    return total / labelled.clamp(min=1)
