# SPDX-License-Identifier: Apache-2.0
"""The two published scores of saliency maps, which must not be compared with each other."""

from __future__ import annotations

from mtl_perception.metrics.errors import require_same_shape
from mtl_perception.values import UNLABELLED
import torch
from torch import Tensor
from torchmetrics import Metric

_BETA_SQUARED = 0.3
_STEPS = 19  # thresholds 0.05, 0.10 ... 0.95
_IOU_STEPS = slice(3, 18)  # of those, 0.20 ... 0.90


class SaliencyMetric(Metric):
    """
    `max_f_pooled` and `max_mean_image_iou` of saliency probabilities.

    `max_f_pooled` (ATRC, InvPT, DeMT): F with beta^2 = 0.3 from precision and recall over all
    pixels of the split, the best of the thresholds 0.05, 0.10 ... 0.95. `max_mean_image_iou`
    (MTI-Net, ASTMT): the mean over images of the intersection over union of the salient pixels,
    the best of the 15 thresholds 0.20 ... 0.90; an image with nothing salient, of which nothing
    is found, counts 1. A probability equal to a threshold is above it. Pixels whose target is
    255 do not count; an image without any other pixel does not either.
    """

    higher_is_better = True
    full_state_update = False
    counts: Tensor
    iou: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.thresholds = (torch.arange(1, _STEPS + 1, dtype=torch.float64) / 20).float()
        # Pixels at or above each threshold: all, salient; then all salient pixels.
        shape = (3, _STEPS)
        self.add_state('counts', torch.zeros(shape, dtype=torch.int64), dist_reduce_fx='sum')
        self.add_state('iou', torch.zeros(_STEPS, dtype=torch.float64), dist_reduce_fx='sum')
        self.add_state('images', torch.zeros((), dtype=torch.int64), dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count saliency probability (B, H, W) against target 0/1, 255 = not annotated.

        Raises
        ------
        MetricError
            If the shapes differ.

        """
        require_same_shape('saliency', prediction, target)
        for predicted, true in zip(prediction, target):
            annotated = true != UNLABELLED
            if not bool(annotated.any()):
                continue
            above = self._above(predicted[annotated])
            hits = self._above(predicted[true == 1])
            salient = (true == 1).sum().expand(_STEPS)
            self.counts += torch.stack((above, hits, salient))
            union = above + salient - hits
            nothing = union == 0
            self.iou += torch.where(nothing, 1.0, hits.double() / union.clamp(min=1))
            self.images += 1

    def _above(self, values: Tensor) -> Tensor:
        """Return how many values reach each threshold."""
        reached = torch.bucketize(values.float(), self.thresholds.to(values.device), right=True)
        histogram = torch.bincount(reached, minlength=_STEPS + 1)
        return histogram.flip(0).cumsum(0).flip(0)[1:]

    def compute(self) -> dict[str, float]:
        """Return both scores and the threshold of each; NaN where nothing was annotated."""
        above, hits, salient = self.counts.double()
        # (1 + b) P R / (b P + R) without the quotients, which have no value where P or R has none.
        weighted = _BETA_SQUARED * salient + above
        f = (1 + _BETA_SQUARED) * hits / weighted
        best = int(f.nan_to_num(-1.0).argmax())
        iou = (self.iou / self.images)[_IOU_STEPS]
        best_iou = int(iou.nan_to_num(-1.0).argmax())
        return {
            'max_f_pooled': float(f[best]),
            'max_f_threshold': round(float(self.thresholds[best]), 6),
            'max_mean_image_iou': float(iou[best_iou]),
            'max_iou_threshold': round(float(self.thresholds[_IOU_STEPS][best_iou]), 6),
        }
