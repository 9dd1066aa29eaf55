# SPDX-License-Identifier: Apache-2.0
"""The comparison of engines as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
import io
from pathlib import Path
from typing import Any

from mtl_perception.evaluation.engine_benchmark import EngineRow
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.files import atomic_write
from mtl_perception.tasks import LABELLED_KINDS, PROBABILITY_KINDS, Task

_UNITS = {
    'depth': 'depth, max', 'normals': 'normals, p99',
    **dict.fromkeys(LABELLED_KINDS, 'other labels'),
    **{kind: f'{kind}, max' for kind in PROBABILITY_KINDS},
}  # fmt: skip
_FORMATS = {
    'depth': '{:.2%}', 'normals': '{:.2g}°',
    **dict.fromkeys(LABELLED_KINDS, '{:.2%}'),
    **dict.fromkeys(PROBABILITY_KINDS, '{:.3f}'),
}  # fmt: skip


def markdown(
    rows: Sequence[EngineRow], tasks: Sequence[Task], document: Mapping[str, Any]
) -> str:
    """Return the section on engines: where it was measured, and one table per setting."""
    lines = [
        f"`{document['model']}` ({document['network']}); {document['runs']} runs each, in turn; "
        f"load of the machine {document['machine']['load_average_1min']}. "
        f"{where_measured(document['machine'])}.",
        'Not run on a GPU.' if not document['gpu'] else f"GPU: {document['gpu']}.",
        '',
        'Start-up is from the import of the package to the first maps, compiled engines from the '
        'cache; in brackets what the processors worked for it. "x" is how many times faster than '
        'torch fp32 (without it, than the first row), the median over the rounds. The last '
        'columns are the distance from the fp32 reference on the check frame.',
    ]
    kinds = ' | '.join(f'{task.name}: {_UNITS[task.kind]}' for task in tasks)
    for setting in dict.fromkeys(row.variant.setting for row in rows):
        (height, width), batch, threads = setting
        lines += [
            '',
            f'### {height}x{width}, batch {batch}, {threads} thread{"s" * (threads > 1)}',
            '',
            f'| engine | ms | x | start-up s (processors) | peak MiB | {kinds} |',
            '|---|---|---|---|---|' + '---|' * len(tasks),
        ]
        lines += [_line(row, tasks) for row in rows if row.variant.setting == setting]
    return '\n'.join(lines) + '\n'


def where_measured(machine: Mapping[str, Any]) -> str:
    """Return in words where numbers were measured (`evaluation.benchmark.machine`)."""
    versions = ', '.join(
        f'{name} {value}' for name, value in machine['versions'].items() if value
    )
    cores = f"{machine['cores_available']} of {machine['cores']} cores"
    return f"{machine['processor']}, {cores}; {versions}"


def _line(row: EngineRow, tasks: Sequence[Task]) -> str:
    if row.error:
        reason = row.error.replace('|', '/')
        return f'| {row.variant.label} | {reason} |' + ' |' * (3 + len(tasks))
    errors = ' | '.join(_FORMATS[task.kind].format(row.errors[task.name]) for task in tasks)
    return (
        f'| {row.variant.label} | {row.median_ms:.1f} | {row.ratio:.2f} | {row.startup_s:.2f} '
        f'({row.startup_processor_s:.2f}) | '
        f'{row.peak_memory_mib:.0f} | {errors} |'
    )


@contextmanager
def writing_results() -> Iterator[None]:
    """Raise EvaluationError, which says so in one sentence, where a file cannot be written."""
    try:
        yield
    except OSError as error:
        msg = f'the results cannot be written: {error}'
        raise EvaluationError(msg) from error


def write_section(path: Path, text: str, name: str = 'engines') -> None:
    """Put `text` between the marks of that name in a Markdown file; without them at its end."""
    old = path.read_text(encoding='utf-8') if path.exists() else '# Benchmarks\n\n## Engines\n'
    begin, end = (f'<!-- {name}: {word} -->' for word in ('begin', 'end'))
    section = f'{begin}\n{text}{end}\n'
    before, mark, rest = old.partition(begin)
    if mark:
        section = before + section + rest.partition(f'{end}\n')[2]
    else:
        section = f'{old.rstrip()}\n\n{section}'
    atomic_write(path, section)


def plot(rows: Sequence[EngineRow], path: Path) -> None:
    """Draw the medians as bars, one panel per setting; the format follows the file's name."""
    import matplotlib.figure

    able = [row for row in rows if not row.error]
    settings = list(dict.fromkeys(row.variant.setting for row in able))
    height = sum(0.6 + 0.28 * sum(row.variant.setting == one for row in able) for one in settings)
    figure = matplotlib.figure.Figure(figsize=(7.0, height + 0.5), layout='constrained')
    panels = figure.subplots(len(settings), squeeze=False)[:, 0]
    for panel, setting in zip(panels, settings):
        shown = [row for row in able if row.variant.setting == setting][::-1]
        values = [row.median_ms for row in shown]
        bars = panel.barh([row.variant.label for row in shown], values, color='#4c78a8')
        labels = [f' {row.median_ms:.1f} ms, {row.ratio:.2f}x' for row in shown]
        panel.bar_label(bars, labels, fontsize=8)
        panel.set_xlim(0, max(values) * 1.35)
        (rows_px, columns_px), batch, threads = setting
        panel.set_title(
            f'{rows_px}x{columns_px}, batch {batch}, threads {threads}', fontsize=9, loc='left'
        )
        panel.spines[['top', 'right']].set_visible(False)
        panel.tick_params(labelsize=8)
    panels[-1].set_xlabel('milliseconds, median', fontsize=8)
    save_figure(figure, path)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib; the format follows the file's name."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip('.') or 'png', dpi=150)
    atomic_write(path, buffer.getvalue())
