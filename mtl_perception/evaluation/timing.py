# SPDX-License-Identifier: Apache-2.0
"""Collect how long the stages of a frame take, and say it in percentiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import math

import numpy as np

_PERCENTILES = {'median': 50, 'p90': 90, 'p95': 95, 'p99': 99}


class Timings:
    """Milliseconds by stage; a stage may be missing from some frames."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Count one frame's stages."""
        for stage, value in stages_ms.items():
            self._values.setdefault(stage, []).append(value)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return mean, median, p90, p95, p99 and max of each stage, in the order first seen."""
        return {
            stage: {
                'mean': float(np.mean(values)),
                **{
                    name: float(np.percentile(values, percent))
                    for name, percent in _PERCENTILES.items()
                },
                'max': float(np.max(values)),
            }
            for stage, values in self._values.items()
        }

    def median_sum(self, stages: Iterable[str]) -> float:
        """Return the median over the frames of the sum of these stages; NaN without frames."""
        rows = [self._values[stage] for stage in stages if stage in self._values]
        return float(np.median(np.sum(rows, axis=0))) if rows else math.nan

    def rate(self, stages: Iterable[str]) -> float:
        """Return frames per second if a frame took these stages only; NaN without frames."""
        rows = [self._values[stage] for stage in stages if stage in self._values]
        return 1e3 / float(np.mean(np.sum(rows, axis=0))) if rows else math.nan
