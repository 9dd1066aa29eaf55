# SPDX-License-Identifier: Apache-2.0
"""Angles between predicted and true surface normals, pooled over all valid pixels."""

from __future__ import annotations

import math

from mtl_perception.metrics.errors import MetricError
import torch
from torch import Tensor
from torchmetrics import Metric

THRESHOLDS_DEG = (11.25, 22.5, 30.0)
_BINS_PER_DEGREE = 100


class NormalsMetric(Metric):
    """
    Mean, median and RMSE of the angle, and the shares below 11.25, 22.5 and 30 degrees.

    Fouhey et al., ICCV 2013. Mean, RMSE and shares are exact. The median comes from a histogram
    of 0.01 degree bins, so memory does not grow with the split; it is exact to half a bin
    (0.005 degree). Valid is a finite target; a prediction there that is not finite or zero
    counts as 90 degrees wrong.
    """

    higher_is_better = False
    full_state_update = False
    count: Tensor
    angle: Tensor
    squared: Tensor
    below: Tensor
    histogram: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ('count', 'angle', 'squared'):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx='sum')
        for name, size in (('below', len(THRESHOLDS_DEG)), ('histogram', 180 * _BINS_PER_DEGREE)):
            self.add_state(name, torch.zeros(size, dtype=torch.int64), dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count normal maps (B, 3, H, W); lengths do not matter, target NaN = invalid.

        Raises
        ------
        MetricError
            If the shapes differ or there are not three components.

        """
        if prediction.shape != target.shape or target.ndim != 4 or target.shape[1] != 3:
            msg = (
                f'normals of shape {tuple(prediction.shape)} against {tuple(target.shape)}; '
                'both must be (B, 3, H, W)'
            )
            raise MetricError(msg)
        valid = torch.isfinite(target).all(dim=1)
        a = prediction.movedim(1, -1)[valid].double()
        b = target.movedim(1, -1)[valid].double()
        usable = torch.isfinite(a).all(dim=1) & (a.norm(dim=1) > 0)
        a = torch.nn.functional.normalize(torch.nan_to_num(a), dim=1)
        b = torch.nn.functional.normalize(b, dim=1)
        # atan2 keeps small angles exact where arccos of the dot product loses half the digits.
        angle = 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1)) * (180 / math.pi)
        angle = torch.where(usable, angle, torch.full_like(angle, 90.0))
        self.count += angle.numel()
        self.angle += angle.sum()
        self.squared += angle.square().sum()
        self.below += torch.stack([(angle < limit).sum() for limit in THRESHOLDS_DEG])
        bins = (angle * _BINS_PER_DEGREE).long().clamp(max=self.histogram.numel() - 1)
        self.histogram += torch.bincount(bins, minlength=self.histogram.numel())

    def compute(self) -> dict[str, float]:
        """Return `mean_deg`, `median_deg`, `rmse_deg` and the shares `within_11.25` and so on."""
        result = {
            'mean_deg': float(self.angle / self.count),
            'median_deg': self._median(),
            'rmse_deg': float((self.squared / self.count).sqrt()),
        }
        for limit, below in zip(THRESHOLDS_DEG, self.below):
            result[f'within_{limit:g}'] = float(below / self.count)
        return result

    def _median(self) -> float:
        if float(self.count) == 0:
            return math.nan
        cumulative = self.histogram.cumsum(0)
        middle = torch.searchsorted(cumulative, (cumulative[-1] + 1) // 2)
        return (float(middle) + 0.5) / _BINS_PER_DEGREE
