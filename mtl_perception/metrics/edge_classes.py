# SPDX-License-Identifier: Apache-2.0
"""Edges as a segmentation of two classes: the mean of both F1, pixel by pixel."""

from __future__ import annotations

from mtl_perception.metrics.errors import require_same_shape
from mtl_perception.values import UNLABELLED
import torch
from torch import Tensor
from torchmetrics import Metric


class EdgeClassesMetric(Metric):
    """
    `mean_class_f1`, `edge_f1`, `background_f1`: F1 of edge and no edge at probability 0.5.

    What DenseMTL's code reports, over all pixels of the split; there is no tolerance, so it is
    far below odsF. Pixels whose target is 255 do not count; a class that occurs neither in
    target nor in prediction has no F1 and is left out of the mean.
    """

    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Rows target, columns prediction; 0 = no edge, 1 = edge.
        zeros = torch.zeros((2, 2), dtype=torch.int64)
        self.add_state('confusion', zeros, dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count edge probability (B, H, W) against target 0/1, 255 = not annotated.

        Raises
        ------
        MetricError
            If the shapes differ.

        """
        require_same_shape('edges', prediction, target)
        annotated = target != UNLABELLED
        keys = 2 * (target[annotated] == 1).long() + (prediction[annotated] > 0.5).long()
        self.confusion += torch.bincount(keys, minlength=4).view(2, 2)

    def compute(self) -> dict[str, float]:
        """Return the mean of both F1, and each; NaN where there is none."""
        matrix = self.confusion.double()
        f1 = 2 * matrix.diagonal() / (matrix.sum(0) + matrix.sum(1))
        return {
            'mean_class_f1': float(f1.nanmean()),
            'edge_f1': float(f1[1]),
            'background_f1': float(f1[0]),
        }
