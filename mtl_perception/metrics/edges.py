# SPDX-License-Identifier: Apache-2.0
"""Best F-measure over thresholds of edge maps, with a tolerance in pixels."""

from __future__ import annotations

from mtl_perception.metrics.errors import require_same_shape
import torch
from torch import Tensor
import torch.nn.functional as F
from torchmetrics import Metric


class EdgesMetric(Metric):
    """
    `f_best_tolerance`: the best F over thresholds, a pixel counting as hit within a tolerance.

    At each threshold, precision is the share of predicted edge pixels with a true edge within
    `tolerance_px` (square neighbourhood), recall the share of true edge pixels with a predicted
    one as near, both over everything seen. Predictions are not thinned and pixels not matched
    one to one, so this is NOT the odsF of BSDS500: thick predictions are forgiven within the
    tolerance. Pixels whose target is 255 count on neither side.
    """

    higher_is_better = True
    full_state_update = False
    counts: Tensor

    def __init__(self, tolerance_px: int = 2, thresholds: int = 99) -> None:
        super().__init__()
        self.tolerance_px = tolerance_px
        steps = torch.arange(1, thresholds + 1, dtype=torch.float64) / (thresholds + 1)
        self.thresholds = steps.float()
        # Per number of thresholds reached (0 to all): predicted pixels, those that hit; true
        # pixels by the number of thresholds reached nearby. int64 counts, so merging is exact.
        zeros = torch.zeros((3, thresholds + 1), dtype=torch.int64)
        self.add_state('counts', zeros, dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count edge probability (B, H, W) against target 0/1, 255 = not annotated.

        Raises
        ------
        MetricError
            If the shapes differ.

        """
        require_same_shape('edges', prediction, target)
        annotated = target != 255
        true = target == 1
        near_true = self._dilate(true.float()) > 0
        known = torch.where(annotated, prediction.float(), torch.zeros(()).to(prediction.device))
        # A pixel is near a prediction of at least t where the local maximum reaches t.
        near_prediction = self._dilate(known)
        self.counts += torch.stack((
            self._histogram(known[annotated]),
            self._histogram(known[annotated & near_true]),
            self._histogram(near_prediction[true]),
        ))

    def _histogram(self, values: Tensor) -> Tensor:
        reached = torch.bucketize(values, self.thresholds.to(values.device), right=True)
        return torch.bincount(reached, minlength=len(self.thresholds) + 1)

    def _dilate(self, values: Tensor) -> Tensor:
        window = 2 * self.tolerance_px + 1
        return F.max_pool2d(values[:, None], window, stride=1, padding=self.tolerance_px)[:, 0]

    def compute(self) -> dict[str, float]:
        """Return `f_best_tolerance` with its `precision`, `recall` and `threshold`."""
        # Pixels at or above a threshold: those that reached at least as many thresholds.
        above = self.counts.flip(1).cumsum(1).flip(1).double()
        predicted, hit, found = above[:, 1:]
        precision = hit / predicted.clamp(min=1)
        recall = found / above[2, 0].clamp(min=1)
        f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        best = int(f.argmax())
        return {
            'f_best_tolerance': float(f[best]),
            'precision': float(precision[best]),
            'recall': float(recall[best]),
            'threshold': round(float(self.thresholds[best]), 6),
        }
