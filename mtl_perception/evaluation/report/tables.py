# SPDX-License-Identifier: Apache-2.0
"""The page's tables: runs side by side, with differences and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mtl_perception.evaluation.report.metric_words import (
    band_words,
    HEADLINES,
    higher_is_better,
    number,
)
from mtl_perception.evaluation.report.run_record import RunRecord

_BAND_METRICS = {
    'abs_rel': 'AbsRel by true distance',
    'rmse_m': 'RMSE by true distance, metres',
    'log10': 'log10 error by true distance',
    **{f'delta{power}': f'delta{power} by true distance' for power in (1, 2, 3)},
    'scaled_abs_rel': 'median-scaled AbsRel by true distance',
    'scaled_rmse_m': 'median-scaled RMSE by true distance, metres',
}


def table(caption: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Build a table from finished cells (HTML) and plain headings, in a box that scrolls."""
    if not rows:
        return ''
    head = ''.join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = ''.join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}'
        '</tr>'
        for name, cells in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f'<thead><tr><th scope="col"></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def summary_table(runs: Sequence[RunRecord]) -> str:
    """Put the scores that matter most side by side."""
    flat = [_flat(run.document.get('scores', {})) for run in runs]
    names = [name for name in HEADLINES if any(name in values for values in flat)]
    rows = [(name, _compared(runs, flat, name)) for name in names]
    rows.append(('frames per second', _facts(runs, 'frames_per_second')))
    rows.append(('peak memory, MiB', _facts(runs, 'peak_memory_mib')))
    rows.append(('frames processed', [
        f'{number(run.document.get("processed"))} of {number(run.document.get("frames"))}'
        for run in runs
    ]))  # fmt: skip
    return table('Over all frames', [run.name for run in runs], rows)


def score_tables(runs: Sequence[RunRecord]) -> str:
    """Put every score side by side, a table per task or check."""
    flat = [_flat(run.document.get('scores', {})) for run in runs]
    groups: dict[str, list[str]] = {}
    for values in flat:
        for name in values:
            group = groups.setdefault(name.partition('.')[0], [])
            if name not in group:
                group.append(name)
    names = [run.name for run in runs]
    return ''.join(
        table(group, names, [
            (name.partition('.')[2], _compared(runs, flat, name)) for name in members
        ])
        for group, members in groups.items()
        if group != 'depth_by_distance'
    )  # fmt: skip


def distance_tables(runs: Sequence[RunRecord]) -> str:
    """Show depth errors by distance band with bars."""
    scores = [run.document.get('scores', {}).get('depth_by_distance', {}) for run in runs]
    result = ''
    for metric, words in _BAND_METRICS.items():
        keys = [key for key in _union(scores) if key.startswith(f'{metric}_')]
        rows = {band_words(key.removeprefix(f'{metric}_')): key for key in keys}
        result += bar_table(
            words, [run.name for run in runs],
            {name: [values.get(key) for values in scores] for name, key in rows.items()},
        )  # fmt: skip
    return result


def class_tables(runs: Sequence[RunRecord]) -> str:
    """Show the intersection over union of each class with bars."""
    ious = [run.document.get('class_iou', {}) for run in runs]
    result = ''
    for task in _union(ious):
        of_runs = [entry.get(task, {}) for entry in ious]
        result += bar_table(
            f'{task}: IoU by class', [run.name for run in runs],
            {name: [values.get(name) for values in of_runs] for name in _union(of_runs)}, top=1.0,
        )  # fmt: skip
    return result


def bar_table(
    caption: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[float | None]],
    top: float | None = None,
) -> str:
    """Build a table whose cells have a number and a bar; `top` is the longest bar's value."""
    largest = top or max(
        (value for values in rows.values() for value in values if value is not None), default=0.0
    )
    cells = []
    for name, values in rows.items():
        bars = []
        for position, value in enumerate(values):
            share = 0.0 if value is None or not largest else max(0.0, min(1.0, value / largest))
            bars.append(
                f'<span class="value">{number(value)}</span><span class="track">'
                f'<span class="bar fill-{position % 6}" style="width:{share * 100:.1f}%"></span>'
                '</span>'
            )
        cells.append((name, bars))
    return table(caption, columns, cells)


def confusion_tables(run: RunRecord) -> str:
    """Show which classes are taken for which, as shares of the true class."""
    result = ''
    for task, counts in run.document.get('confusion', {}).items():
        names = list(run.document.get('class_iou', {}).get(task, {}))
        columns = [*names, 'unlabelled'][: len(counts[0])] if counts else []
        rows = []
        for name, row in zip(names, counts):
            total = sum(row)
            if not total:
                continue
            rows.append((name, [_shaded(count / total) for count in row]))
        result += table(
            f'{run.name}, {task}: true class by row, predicted by column, % of the row',
            columns, rows,
        )  # fmt: skip
    return result


def latency_table(run: RunRecord) -> str:
    """Show the milliseconds of every stage."""
    stages = run.document.get('latency_ms', {})
    columns = list(next(iter(stages.values()), {}))
    return table(
        f'{run.name}: milliseconds per frame', columns,
        [(stage, [number(values.get(name)) for name in columns])
         for stage, values in stages.items()],
    )  # fmt: skip


def distance_between_maps(runs: Sequence[RunRecord]) -> str:
    """Show how far the fused surfaces lie apart."""
    result = ''
    for run in runs:
        found = run.map_document.get('surface_distance_m', {})
        columns = list(next(iter(found.values()), {}))
        result += table(
            f'{run.name}: distance between the fused surfaces, metres', columns,
            [(direction.replace('_', ' '), [number(values[name]) for name in columns])
             for direction, values in found.items()],
        )  # fmt: skip
    return result


def _shaded(share: float) -> str:
    percent = f'{share * 100:.0f}' if share >= 0.005 else ''
    return f'<span class="share" style="--share:{share:.2f}">{percent}</span>'


def _union(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _flat(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {
        f'{group}.{metric}': value
        for group, values in scores.items()
        for metric, value in values.items()
        if isinstance(value, (int, float))
    }


def _compared(
    runs: Sequence[RunRecord], flat: Sequence[Mapping[str, float]], name: str
) -> list[str]:
    """Return a row's cells: values, and differences from the first run over the same bag."""
    cells = []
    better = higher_is_better(name.partition('.')[2])
    for position, (run, values) in enumerate(zip(runs, flat)):
        value = values.get(name)
        first = next(place for place, other in enumerate(runs) if other.bag == run.bag)
        base = flat[first].get(name)
        cell = number(value)
        if first != position and value is not None and base is not None:
            change = value - base
            word = ''
            if better is not None and abs(change) > 1e-9:
                word = 'better' if (change > 0) == better else 'worse'
            sign = '+' if change > 0 else '−' if change < 0 else '±'
            cell += f' <span class="change {word}">{sign}{number(abs(change))}'
            cell += f'<span class="hidden"> {word}</span></span>' if word else '</span>'
        cells.append(cell)
    return cells


def _facts(runs: Sequence[RunRecord], key: str) -> list[str]:
    return [number(run.document.get(key)) for run in runs]
