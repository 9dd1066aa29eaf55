# SPDX-License-Identifier: Apache-2.0
"""Percentiles and sums of stage times against numbers counted by hand."""

from __future__ import annotations

import math

from mtl_perception.evaluation.timing import Timings
import pytest


def test_percentiles_of_a_hundred_and_one_frames() -> None:
    timings = Timings()
    for value in [*range(50, 101), *range(50)]:
        timings.add({'engine': float(value)})
    assert timings.summary()['engine'] == {
        'mean': 50, 'median': 50, 'p90': 90, 'p95': 95, 'p99': 99, 'max': 100,
    }  # fmt: skip


def test_sums_are_of_the_same_frame() -> None:
    """Each stage is slow in another frame: the median of the sum is not the sum of medians."""
    timings = Timings()
    for first, second in ((1.0, 30.0), (30.0, 1.0), (1.0, 1.0)):
        timings.add({'first': first, 'second': second, 'third': 1000.0})
    assert timings.median_sum(('first', 'second', 'absent')) == 31
    assert timings.rate(('first', 'second')) == pytest.approx(1000 / ((31 + 31 + 2) / 3))


def test_nothing_timed_is_not_a_number() -> None:
    assert Timings().summary() == {}
    assert math.isnan(Timings().median_sum(('engine',)))
    assert math.isnan(Timings().rate(('engine',)))
