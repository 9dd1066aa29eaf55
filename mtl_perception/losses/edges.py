# SPDX-License-Identifier: Apache-2.0
"""Binary cross-entropy that balances the few edge pixels against the many others."""

from __future__ import annotations

import torch
from torch import Tensor
import torch.nn.functional as F


def _weighed(
    raw: Tensor, target: Tensor, positive_weight: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weighted cross-entropies, weights, and what is annotated, each (B, H, W)."""
    logits = raw[:, 0]
    target = target.to(logits.dtype)
    annotated = target <= 1
    share = torch.where(annotated, target, torch.zeros_like(target))
    edge, other = positive_weight * share, (1 - positive_weight) * (1 - share)
    # -log(sigmoid(x)) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x)
    loss = edge * F.softplus(-logits) + other * F.softplus(logits)
    return loss * annotated, (edge + other) * annotated, annotated


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
    loss, _, annotated = _weighed(raw, target, positive_weight)
    return loss.sum() / annotated.sum().clamp(min=1)


def edges_balanced_mean_loss(raw: Tensor, target: Tensor) -> Tensor:
    """
    Weighted mean over the annotated pixels of the binary cross-entropy (DenseMTL).

    Edge pixels weigh 0.95, all others 0.05, and the sum is divided by the weights: PyTorch's
    cross-entropy with class weights, of two classes whose logits differ by `raw`. Where one
    pixel in twenty is an edge this is ten times `edges_balanced_loss`.

    :param raw: logits float32 (B, 1, H, W)
    :param target: as `edges_balanced_loss`
    :returns: scalar; zero, with a gradient, where no pixel is annotated
    """
    loss, weight, _ = _weighed(raw, target, 0.95)
    # Less than the weight of one pixel.
    return loss.sum() / weight.sum().clamp(min=1e-3)
