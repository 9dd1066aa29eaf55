# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG whose colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
import math

Series = Sequence[float | None]
# One user unit is about one pixel: text stays legible where a chart is as wide as a telephone.
_WIDTH, _HEIGHT = 380, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 24
_BUCKETS = 300


def line_chart(
    title: str, indices: Sequence[Sequence[int]], lines: Sequence[Series], names: Sequence[str]
) -> str:
    """
    Draw one line per run over the frame index; None is a gap.

    Long recordings are drawn by the least and greatest value of every stretch of frames, so
    that no peak is lost. Returns '' where there is no number to draw.
    """
    values = [value for line in lines for value in line if value is not None]
    frames = [index for run in indices for index in run]
    if not values:
        return ''
    first, last = min(frames), max(max(frames), min(frames) + 1)
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(index: float) -> float:
        return _LEFT + (index - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="chart" '
        f'data-first="{first}" data-last="{last}" data-left="{_LEFT}" '
        f'data-right="{_WIDTH - _RIGHT}"><title>{escape(_describe(title, lines, names))}</title>'
    ]
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text x="{_LEFT - 5}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:g}</text>'
        )
    for index, anchor in ((first, 'start'), (last, 'end')):
        parts.append(
            f'<text x="{x(index):.1f}" y="{_HEIGHT - 7}" text-anchor="{anchor}">{index}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 7}" text-anchor="middle">frame</text>')
    parts.append(
        f'<line class="cursor" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
    )
    for number, (run, line) in enumerate(zip(indices, lines)):
        for piece in _pieces(_thinned(run, line)):
            points = ' '.join(f'{x(index):.1f},{y(value):.1f}' for index, value in piece)
            if len(piece) == 1:
                index, value = piece[0]
                parts.append(
                    f'<circle class="series-{number % 6}" cx="{x(index):.1f}" '
                    f'cy="{y(value):.1f}" r="1.6"/>'
                )
            else:
                parts.append(f'<polyline class="series-{number % 6}" points="{points}"/>')
    return ''.join([*parts, '</svg>'])


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round numbers, about `count` steps apart, the ends enclosing `low` and `high`."""
    if not high > low:
        spread = abs(low) * 0.1 if abs(low) > 1e-6 else 1.0
        # What is never negative has no axis below zero.
        low, high = (low - spread if low < 0 else max(low - spread, 0.0)), high + spread
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Rounding hides the last bits of sums like 0.1 + 0.2.
    return [round(number * step, 12) for number in range(first, last + 1)]


def _describe(title: str, lines: Sequence[Series], names: Sequence[str]) -> str:
    """Say in words what the chart shows, for those who do not see it."""
    parts = []
    for name, line in zip(names, lines):
        values = [value for value in line if value is not None]
        if values:
            mean = sum(values) / len(values)
            parts.append(
                f'{name}: mean {mean:.4g}, least {min(values):.4g}, most {max(values):.4g}'
            )
    return f'{title} by frame. ' + '; '.join(parts)


def _thinned(indices: Sequence[int], line: Series) -> list[tuple[int, float | None]]:
    pairs = list(zip(indices, line))
    if len(pairs) <= 2 * _BUCKETS:
        return pairs
    size = math.ceil(len(pairs) / _BUCKETS)
    kept: list[tuple[int, float | None]] = []
    for start in range(0, len(pairs), size):
        bucket = pairs[start : start + size]
        numbers = [pair for pair in bucket if pair[1] is not None]
        if not numbers:
            kept.append(bucket[0])
            continue
        ends = {
            min(numbers, key=lambda pair: pair[1] or 0.0),
            max(numbers, key=lambda pair: pair[1] or 0.0),
        }
        kept.extend(sorted(ends, key=lambda pair: pair[0]))
    return kept


def _pieces(pairs: Sequence[tuple[int, float | None]]) -> list[list[tuple[int, float]]]:
    """Part a line where values are missing."""
    pieces: list[list[tuple[int, float]]] = [[]]
    for index, value in pairs:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((index, value))
    return [piece for piece in pieces if piece]
