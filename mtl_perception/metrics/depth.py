# SPDX-License-Identifier: Apache-2.0
"""Depth errors over all valid pixels or by image, as they are and after median scaling."""

from __future__ import annotations

from collections.abc import Mapping
import math

from mtl_perception.metrics.errors import MetricError, require_same_shape
import torch
from torch import Tensor
from torchmetrics import Metric

_SUMS = ('absolute_relative', 'squared_relative', 'squared', 'log10', 'delta1', 'delta2', 'delta3')
_PREFIXES = ('', 'scaled_')


class DepthMetric(Metric):
    """
    AbsRel, SqRel, RMSE, log10 and delta1-3 (Eigen et al., NIPS 2014), each valid pixel once.

    Valid is a finite target > 0. A prediction there that is not finite or not positive counts
    as `floor_m`: a network that gives no depth must not score better for it. Names that start
    with `scaled_` are after multiplying each image's prediction by
    median(target) / median(prediction), which forgives a wrong scale.

    With `per_image` there are also means over images of each image's own value, whatever its
    number of valid pixels: `image_abs_rel`, `image_rmse_m` (ASTMT) and so on, and
    `root_image_mse_m`, the root of the mean over images of the squared error (DenseMTL).

    :param ceiling_m: count only targets between `floor_m` and this, predictions clamped to it
    """

    higher_is_better = False
    full_state_update = False
    count: Tensor
    images: Tensor

    def __init__(
        self, floor_m: float = 1e-3, *, ceiling_m: float | None = None, per_image: bool = False
    ) -> None:
        super().__init__()
        if not 0 < floor_m < (math.inf if ceiling_m is None else ceiling_m):
            msg = f'depth from {floor_m} to {ceiling_m} m: give a range that rises from above 0'
            raise MetricError(msg)
        self.floor_m = floor_m
        self.ceiling_m = ceiling_m
        self.per_image = per_image
        names = [f'{prefix}{name}' for prefix in _PREFIXES for name in _SUMS]
        if per_image:
            names += [f'image_{name}' for name in (*names, 'root', 'scaled_root')]
        for name in ('count', 'images', *names):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, zero, dist_reduce_fx='sum')

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """
        Count depth maps (B, H, W) in metres; target NaN = invalid.

        Raises
        ------
        MetricError
            If the shapes differ.

        """
        require_same_shape('depth', prediction, target)
        for predicted, true in zip(prediction, target):
            valid = torch.isfinite(true) & (true > 0)
            if self.ceiling_m is not None:
                valid &= (true > self.floor_m) & (true < self.ceiling_m)
            if not bool(valid.any()):
                continue
            z = true[valid].double()
            p = torch.nan_to_num(predicted[valid].double(), nan=0.0, posinf=0.0, neginf=0.0)
            p = p.clamp(min=self.floor_m, max=self.ceiling_m)
            self.count += z.numel()
            self.images += 1
            self._add('', p, z)
            # The mean of the two middle values, as numpy's median; torch's takes the lower.
            self._add('scaled_', p * (z.quantile(0.5) / p.quantile(0.5)), z)

    def _add(self, prefix: str, p: Tensor, z: Tensor) -> None:
        ratio = torch.maximum(p / z, z / p)
        values = {
            'absolute_relative': ((p - z).abs() / z).sum(),
            'squared_relative': ((p - z).square() / z).sum(),
            'squared': (p - z).square().sum(),
            'log10': (p.log10() - z.log10()).abs().sum(),
        }
        for power in (1, 2, 3):
            values[f'delta{power}'] = (ratio < 1.25**power).sum().double()
        for name, value in values.items():
            self._count(f'{prefix}{name}', value)
            if self.per_image:
                self._count(f'image_{prefix}{name}', value / z.numel())
        if self.per_image:
            self._count(f'image_{prefix}root', (values['squared'] / z.numel()).sqrt())

    def _count(self, name: str, value: Tensor) -> None:
        setattr(self, name, getattr(self, name) + value)

    def compute(self) -> dict[str, float]:
        """
        Return `abs_rel`, `sq_rel_m`, `rmse_m`, `log10`, `delta1..3`, and those after `scaled_`.

        With `per_image` the same after `image_` and `image_scaled_`, and `root_image_mse_m`.
        """
        result: dict[str, float] = {}
        for prefix in _PREFIXES:
            mean = self._means(prefix, self.count)
            result |= _named(prefix, mean, mean['squared'].sqrt())
        if self.per_image:
            for prefix in _PREFIXES:
                mean = self._means(f'image_{prefix}', self.images)
                root = getattr(self, f'image_{prefix}root') / self.images
                result |= _named(f'image_{prefix}', mean, root)
                result[f'{prefix}root_image_mse_m'] = float(mean['squared'].sqrt())
        return result

    def _means(self, prefix: str, count: Tensor) -> dict[str, Tensor]:
        return {name: getattr(self, f'{prefix}{name}') / count for name in _SUMS}


def _named(prefix: str, mean: Mapping[str, Tensor], rmse: Tensor) -> dict[str, float]:
    """Return means under their published names."""
    result = {
        'abs_rel': mean['absolute_relative'],
        'sq_rel_m': mean['squared_relative'],
        'rmse_m': rmse,
        'log10': mean['log10'],
        **{f'delta{power}': mean[f'delta{power}'] for power in (1, 2, 3)},
    }
    return {f'{prefix}{name}': float(value) for name, value in result.items()}
