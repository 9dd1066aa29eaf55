# SPDX-License-Identifier: Apache-2.0
"""Binary cross-entropy that balances the few edge pixels against the many others."""

from __future__ import annotations

import torch
from torch import Tensor
import torch.nn.functional as F


def edges_balanced_loss(
    raw: Tensor, target: Tensor, positive_weight: float | Tensor = 0.95
) -> Tensor:
    """
    Mean over the annotated pixels of the weighted binary cross-entropy (MTI-Net, DeMT).

    Edge pixels count `positive_weight`, all others 1 - `positive_weight`.

    :param raw: logits float32 (B, 1, H, W)
    :param target: (B, H, W); 0 or 1, 255 = not annotated; a fraction between 0 and 1 is the
        share of edge pixels in a cell
    :returns: scalar; zero, with a gradient, where no pixel is annotated
    """
    logits = raw[:, 0]
    target = target.to(logits.dtype)
    annotated = target <= 1
    share = torch.where(annotated, target, torch.zeros_like(target))
    # -log(sigmoid(x)) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x)
    loss = positive_weight * share * F.softplus(-logits)
    loss = loss + (1 - positive_weight) * (1 - share) * F.softplus(logits)
    return (loss * annotated).sum() / annotated.sum().clamp(min=1)
