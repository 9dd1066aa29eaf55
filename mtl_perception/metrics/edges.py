# SPDX-License-Identifier: Apache-2.0
"""Best F-measure over thresholds of edge maps, with a tolerance in pixels."""

from __future__ import annotations

from mtl_perception.metrics.errors import MetricError
import torch
import torch.nn.functional as F
from torch import Tensor
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

    def __init__(self, tolerance_px: int = 2, thresholds: int = 19) -> None:
        super().__init__()
        self.tolerance_px = tolerance_px
        self.thresholds = tuple((i + 1) / (thresholds + 1) for i in range(thresholds))
        # Per threshold: predicted, predicted that hit, true, true that were found.
        zeros = torch.zeros((thresholds, 4), dtype=torch.int64)
        self.add_state('counts', zeros, dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count edge probability (B, H, W) against target 0/1, 255 = not annotated.

        Raises
        ------
        MetricError
            If the shapes differ.

        """
        if prediction.shape != target.shape:
            msg = f'edges of shape {tuple(prediction.shape)} against {tuple(target.shape)}'
            raise MetricError(msg)
        annotated = target != 255
        true = (target == 1).float()
        near_true = self._dilate(true) > 0
        # A pixel is near a prediction of at least t where the local maximum reaches t.
        known = torch.where(annotated, prediction.float(), torch.zeros_like(true))
        near_prediction = self._dilate(known)
        rows = []
        for threshold in self.thresholds:
            chosen = (known >= threshold) & annotated
            rows.append(
                torch.stack((
                    chosen.sum(),
                    (chosen & near_true).sum(),
                    (true > 0).sum(),
                    ((true > 0) & (near_prediction >= threshold)).sum(),
                ))
            )
        self.counts += torch.stack(rows)

    def _dilate(self, values: Tensor) -> Tensor:
        window = 2 * self.tolerance_px + 1
        return F.max_pool2d(values[:, None], window, stride=1, padding=self.tolerance_px)[:, 0]

    def compute(self) -> dict[str, float]:
        """Return `f_best_tolerance` with its `precision`, `recall` and `threshold`."""
        predicted, hit, true, found = self.counts.double().unbind(1)
        precision = hit / predicted.clamp(min=1)
        recall = found / true.clamp(min=1)
        f = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        best = int(f.argmax())
        return {
            'f_best_tolerance': float(f[best]),
            'precision': float(precision[best]),
            'recall': float(recall[best]),
            'threshold': self.thresholds[best],
        }
