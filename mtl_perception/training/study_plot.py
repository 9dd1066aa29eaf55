# SPDX-License-Identifier: Apache-2.0
"""The plot of a study: Delta_m of every network, and what each task gained or lost."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

_HIGH, _LOW = '#2f7d5b', '#b4493c'
_TASK_COLOURS = ('#31688e', '#e0902f', '#6b4c9a', '#44a57c', '#c0504d', '#8c8c8c')


def plot(summary: Mapping[str, Any]) -> bytes:
    """Return a PNG: left Delta_m, right the gain by task, whiskers of one standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(summary['networks'])
    tasks = list(summary['tasks'])
    height = 1.4 + 0.62 * len(names)
    figure = Figure(figsize=(11, height), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.5))
    rows = range(len(names))
    deltas = [summary['networks'][name]['delta_m'] for name in names]
    means = [each['mean'] for each in deltas]
    spreads = [each['deviation'] or 0 for each in deltas]
    left.barh(
        rows, means, xerr=spreads, height=0.6,
        color=[_HIGH if mean > 0 else _LOW for mean in means],
    )  # fmt: skip
    base = summary['networks'][summary['baseline']]['delta_m']['mean']
    left.axvline(base, color='0.35', linestyle='--', linewidth=1)
    # The numbers stand beyond the bars of error, which would strike them through.
    ends = [mean + spread if mean >= 0 else mean - spread for mean, spread in zip(means, spreads)]
    span = max(abs(end) for end in ends) or 1
    for row, mean, end in zip(rows, means, ends):
        left.annotate(
            f'{mean:+.1f}', (end, row), (4 if mean >= 0 else -4, 0), va='center',
            ha='left' if mean >= 0 else 'right', textcoords='offset points', fontsize=9,
        )  # fmt: skip
    left.set_xlim(min(0, *ends) - 0.22 * span, max(0, *ends) + 0.22 * span)
    left.set_yticks(rows, names)
    left.invert_yaxis()
    left.set_title(r'$\Delta_m$ against single-task networks (%)', fontsize=10)
    left.set_xlabel(f'dashed: {summary["baseline"]}', fontsize=9)
    thickness = 0.8 / len(tasks)
    for place, task in enumerate(tasks):
        gains = [summary['networks'][name]['gain'].get(task, {'mean': 0}) for name in names]
        right.barh(
            [row - 0.4 + (place + 0.5) * thickness for row in rows],
            [each['mean'] for each in gains], height=thickness * 0.9,
            xerr=[each.get('deviation') or 0 for each in gains],
            color=_TASK_COLOURS[place % len(_TASK_COLOURS)],
            label=f'{task} ({summary["tasks"][task]["metric"]})',
        )  # fmt: skip
    right.set_title('gain by task (%), right is better', fontsize=10)
    # Below the axes: inside it would cover bars.
    handles = right.get_legend_handles_labels()
    figure.legend(*handles, fontsize=9, ncols=4, loc='outside lower center')
    for axes in (left, right):
        axes.axvline(0, color='black', linewidth=0.8)
        axes.grid(axis='x', color='0.9')
        axes.set_axisbelow(True)
        axes.spines[['top', 'right']].set_visible(False)
    seeds = len(summary['seeds'])
    figure.suptitle(
        f'{summary["name"]}: {summary["steps"]} steps of {summary["batch_size"]}, '
        f'{seeds} seed{"s" if seeds > 1 else ""}, protocol {summary["protocol"]}', fontsize=11,
    )  # fmt: skip
    buffer = BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return buffer.getvalue()
