# SPDX-License-Identifier: Apache-2.0
"""Depth errors pooled over all valid pixels, as they are and after median scaling."""

from __future__ import annotations

from mtl_perception.metrics.errors import MetricError
import torch
from torch import Tensor
from torchmetrics import Metric

_SUMS = ('absolute_relative', 'squared', 'log10', 'delta1', 'delta2', 'delta3')


class DepthMetric(Metric):
    """
    AbsRel, RMSE, log10 and delta1-3 (Eigen et al., NIPS 2014), every valid pixel counted once.

    Valid is a finite target > 0. A prediction there that is not finite or not positive counts
    as `floor_m`: a network that gives no depth must not score better for it. Names that start
    with `scaled_` are after multiplying each image's prediction by
    median(target) / median(prediction), which forgives a wrong scale.
    """

    higher_is_better = False
    full_state_update = False
    count: Tensor

    def __init__(self, floor_m: float = 1e-3) -> None:
        super().__init__()
        self.floor_m = floor_m
        self.add_state('count', torch.zeros((), dtype=torch.float64), dist_reduce_fx='sum')
        for name in _SUMS:
            for prefix in ('', 'scaled_'):
                zero = torch.zeros((), dtype=torch.float64)
                self.add_state(f'{prefix}{name}', zero, dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count depth maps (B, H, W) in metres; target NaN = invalid.

        Raises
        ------
        MetricError
            If the shapes differ.

        """
        if prediction.shape != target.shape:
            msg = f'depth of shape {tuple(prediction.shape)} against {tuple(target.shape)}'
            raise MetricError(msg)
        for predicted, true in zip(prediction, target):
            valid = torch.isfinite(true) & (true > 0)
            if not bool(valid.any()):
                continue
            z = true[valid].double()
            p = torch.nan_to_num(predicted[valid].double(), nan=0.0, posinf=0.0, neginf=0.0)
            p = p.clamp(min=self.floor_m)
            self.count += z.numel()
            self._add('', p, z)
            # The mean of the two middle values, as numpy's median; torch's takes the lower.
            self._add('scaled_', p * (z.quantile(0.5) / p.quantile(0.5)), z)

    def _add(self, prefix: str, p: Tensor, z: Tensor) -> None:
        ratio = torch.maximum(p / z, z / p)
        values = {
            'absolute_relative': ((p - z).abs() / z).sum(),
            'squared': (p - z).square().sum(),
            'log10': (p.log10() - z.log10()).abs().sum(),
        }
        for power in (1, 2, 3):
            values[f'delta{power}'] = (ratio < 1.25**power).sum()
        for name, value in values.items():
            setattr(self, f'{prefix}{name}', getattr(self, f'{prefix}{name}') + value)

    def compute(self) -> dict[str, float]:
        """Return `abs_rel`, `rmse_m`, `log10`, `delta1..3`, and the same after `scaled_`."""
        result = {}
        for prefix in ('', 'scaled_'):
            mean = {name: getattr(self, f'{prefix}{name}') / self.count for name in _SUMS}
            result[f'{prefix}abs_rel'] = float(mean['absolute_relative'])
            result[f'{prefix}rmse_m'] = float(mean['squared'].sqrt())
            result[f'{prefix}log10'] = float(mean['log10'])
            for power in (1, 2, 3):
                result[f'{prefix}delta{power}'] = float(mean[f'delta{power}'])
        return result
