# SPDX-License-Identifier: Apache-2.0
"""Charts, numbers and choices of the report against arithmetic."""

from __future__ import annotations

from itertools import pairwise
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.evaluation.report.charts import line_chart, nice_ticks
from mtl_perception.evaluation.report.extremes import Extremes
from mtl_perception.evaluation.report.metric_words import band_words, higher_is_better, number
from mtl_perception.evaluation.report.page import within_budget
from mtl_perception.evaluation.report.run_record import EncodedPicture, FrameStrip, RunRecord
import pytest


def strip(index: int, size: int = 1) -> FrameStrip:
    return FrameStrip(index, 0, '', (EncodedPicture('a', 'image/png', b'x' * size, 1, 1),))


def points(chart: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in (pair.split(',') for pair in found.split())]
        for found in re.findall(r'points="([^"]*)"', chart)
    ]


def test_lines_go_through_their_values_and_stop_at_gaps() -> None:
    chart = line_chart('a<b', [[10, 11, 12, 13, 14]], [[0.0, 4.0, None, 1.0, 2.0]], ['run'])
    left, right = points(chart)
    grid = [
        (float(tick), float(y) - 4)
        for y, tick in re.findall(r'x="41" y="([\d.]+)" text-anchor="end">([\d.]+)<', chart)
    ]
    assert [tick for tick, _ in grid] == [0, 1, 2, 3, 4]

    def height(value: float) -> float:
        (low, bottom), (high, top) = grid[0], grid[-1]
        return bottom + (value - low) / (high - low) * (top - bottom)

    step = (372 - 46) / 4
    for piece, frames, values in ((left, (0, 1), (0, 4)), (right, (3, 4), (1, 2))):
        for (x, y), frame, value in zip(piece, frames, values):
            assert x == pytest.approx(46 + frame * step, abs=0.06)
            assert y == pytest.approx(height(value), abs=0.11)
    assert 'a&lt;b by frame. run: mean 1.75, least 0, most 4' in chart
    assert line_chart('none', [[1, 2]], [[None, None]], ['run']) == ''


def test_a_long_recording_keeps_its_peaks() -> None:
    values: list[float | None] = [1.0] * 10_000
    values[4321], values[7000] = 9.0, -3.0
    chart = line_chart('x', [range(10_000)], [values], ['run'])
    (line,) = points(chart)
    assert len(line) < 700
    heights = [y for _, y in line]
    peak, pit = heights.index(min(heights)), heights.index(max(heights))
    assert line[peak][0] == pytest.approx(46 + 4321 / 9999 * 326, abs=0.1)
    assert line[pit][0] == pytest.approx(46 + 7000 / 9999 * 326, abs=0.1)


@settings(max_examples=200, deadline=None)
@given(
    low=st.floats(-1e6, 1e6),
    spread=st.floats(0, 1e6).filter(lambda value: value == 0 or value > 1e-6),
)
def test_ticks_are_even_and_enclose_the_values(low: float, spread: float) -> None:
    high = low + spread
    ticks = nice_ticks(low, high)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8
    steps = [second - first for first, second in pairwise(ticks)]
    assert min(steps) > 0
    assert max(steps) - min(steps) <= 1e-6 * max(steps) + slack


def test_a_score_of_nought_throughout_has_no_axis_below_it() -> None:
    assert nice_ticks(0, 0)[0] == 0
    assert nice_ticks(-3, -3)[0] < -3 < nice_ticks(-3, -3)[-1]


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.integers(-50, 50), min_size=1, max_size=60, unique=True))
def test_extremes_are_the_best_of_their_stretches(values: list[int]) -> None:
    extremes = Extremes(len(values))
    for index, value in enumerate(values):
        if extremes.wants(index, value):
            extremes.add(index, value, strip(index))
    stretch = max(1, len(values) // 20)
    best = sorted(range(len(values)), key=lambda index: -values[index])
    # The least of all is always the first, and nothing is kept twice from one stretch.
    assert extremes.worst[0].index == min(range(len(values)), key=values.__getitem__)
    places = [entry.index // stretch for entry in extremes.worst]
    assert len(set(places)) == len(places) <= 4
    shown = {entry.index for entry in extremes.worst + extremes.best}
    assert best[0] in shown
    assert not extremes.wants(0, float('nan'))


def test_samples_are_thinned_in_all_runs_alike() -> None:
    runs = [RunRecord('a', {}, samples=tuple(strip(index, 10) for index in range(40)))] * 2
    kept = within_budget(runs, 200)
    assert [[entry.index for entry in run.samples] for run in kept] == [list(range(0, 40, 4))] * 2
    assert within_budget(runs, 800) == runs


def test_words_and_numbers() -> None:
    words = [band_words(band) for band in ('0_1m', '1_2m', '8m_on')]
    assert words == ['0–1 m', '1–2 m', '8 m and on']
    assert [number(value) for value in (0.12345, 12.345, 123.456, 12345, 5, None, True)] == [
        '0.123', '12.35', '123.5', '12\u202f345', '5', '–', '–',
    ]  # fmt: skip
    lower = ('abs_rel', 'rmse_m', 'scaled_log10', 'mean_deg', 'label_flicker', 'depth_log_ratio')
    assert {higher_is_better(name) for name in lower} == {False}
    higher = ('delta1', 'scaled_delta3', 'miou', 'within_11.25', 'f_best_tolerance', 'edges_f')
    assert {higher_is_better(name) for name in higher} == {True}
    assert {higher_is_better(name) for name in ('overlap', 'pixels_0_1m', 'factor')} == {None}
