# SPDX-License-Identifier: Apache-2.0
"""One page about a run that needs no other file: curves, scores, pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
import csv
from html import escape
import io
import json
import math
from pathlib import Path
from typing import Any

import cv2
from mtl_perception.files import atomic_write
from mtl_perception.manifest import Manifest
from mtl_perception.metrics.task_metric import HEADLINES
from mtl_perception.tasks import Task

REPORT_FILE = 'report.html'
_VALIDATIONS_SHOWN = 4
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1180px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: .2em; } h2 { font-size: 1.15em; margin-top: 2em; }
p.facts { color: #555; margin-top: 0; } svg, img { max-width: 100%; height: auto; }
table { border-collapse: collapse; } td, th { padding: .25em .9em; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr.headline td { font-weight: 600; }
tbody tr { border-top: 1px solid #ddd; } summary { cursor: pointer; margin: .5em 0; }
"""


def read_log(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """
    Return what the runs in log/ logged, by column, as (step, value) in the order of steps.

    Where a resumed run logged a step again, its value replaces the one before.
    """
    series: dict[str, dict[int, float]] = {}
    for file in sorted(directory.glob('*/metrics.csv')):
        with file.open(newline='', encoding='utf-8') as stream:
            for row in csv.DictReader(stream):
                step = int(row.pop('step')) + 1
                for name, text in row.items():
                    if text and name != 'epoch':
                        series.setdefault(name, {})[step] = float(text)
    return {name: sorted(values.items()) for name, values in series.items()}


def _curves(series: Mapping[str, Sequence[tuple[int, float]]], tasks: Sequence[Task]) -> str:
    """Return an SVG: the losses, and the headline of every task over the validations."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = len(tasks) + 1
    columns = min(3, panels)
    rows = math.ceil(panels / columns)
    with mpl.rc_context({'font.size': 9, 'svg.fonttype': 'none', 'svg.hashsalt': 'report'}):
        figure = Figure(figsize=(3.8 * columns, 2.9 * rows), layout='constrained')
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        losses = [name for name in series if name == 'loss' or name.startswith('loss/')]
        for name in losses:
            steps, values = zip(*series[name])
            width = 2.0 if name == 'loss' else 1.0
            axes[0].plot(steps, values, label=name.removeprefix('loss/'), linewidth=width)
        lowest = min((value for name in losses for _, value in series[name]), default=1.0)
        # Balanced losses can be negative.
        axes[0].set_yscale('log' if lowest > 0 else 'linear')
        axes[0].set_title('training loss')
        if losses:
            axes[0].legend(fontsize=7, frameon=False)
        for axis, task in zip(axes[1:], tasks):
            key, higher = HEADLINES[task.kind]
            points = series.get(f'validation/{task.name}.{key}', ())
            if points:
                axis.plot(*zip(*points), marker='o', markersize=3)
            axis.set_title(f'{task.name}: {key} ({"higher" if higher else "lower"} is better)')
        for axis in axes[:panels]:
            axis.set_xlabel('step')
            axis.grid(alpha=0.3)
            axis.spines[['top', 'right']].set_visible(False)
        for axis in axes[panels:]:
            axis.set_visible(False)
        stream = io.StringIO()
        figure.savefig(stream, format='svg', metadata={'Date': None})
    text = stream.getvalue()
    return text[text.index('<svg') :]


def _number(value: Any) -> str:
    return '–' if value is None else f'{value:.4g}'


def _table(scores: Mapping[str, Mapping[str, Any]], tasks: Sequence[Task]) -> Iterator[str]:
    names = list(scores)
    yield '<table><thead><tr><th>score</th>'
    yield ''.join(f'<th>{escape(name)}</th>' for name in names) + '</tr></thead><tbody>'
    headlines = {f'{task.name}.{HEADLINES[task.kind][0]}' for task in tasks}
    for key in dict.fromkeys(key for each in scores.values() for key in each):
        cells = ''.join(f'<td>{_number(scores[name].get(key))}</td>' for name in names)
        mark = ' class="headline"' if key in headlines else ''
        yield f'<tr{mark}><td>{escape(key)}</td>{cells}</tr>'
    yield '</tbody></table>'


def _picture(path: Path) -> str:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    # As PNG the pictures of a long run would make a page of a hundred megabytes.
    _, encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    data = base64.b64encode(encoded.tobytes()).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/jpeg;base64,{data}">'


def _pictures(directory: Path) -> Iterator[str]:
    final = directory / 'final.png'
    if final.exists():
        yield _picture(final)
    found = sorted(directory.glob('step_*.png'))
    count = min(_VALIDATIONS_SHOWN, len(found))
    chosen = [found[round(i * (len(found) - 1) / max(1, count - 1))] for i in range(count)]
    for path in dict.fromkeys(chosen):
        step = int(path.stem.removeprefix('step_'))
        yield f'<details><summary>validation at step {step}</summary>{_picture(path)}</details>'


def write_report(manifest: Manifest, out: Path) -> Path:
    """
    Write report.html into the folder of a run; return its path.

    :param manifest: with scores and provenance; curves and pictures are read from `out`

    Raises
    ------
    OSError
        If it cannot be written.

    """
    facts = manifest.provenance
    frames = facts.get('frames', {})
    line = ', '.join((
        f'{manifest.system} on {manifest.backbone}',
        f'{manifest.network_size[1]}x{manifest.network_size[0]}',
        f'{facts.get("steps")} steps',
        *(f'{count} frames {name}' for name, count in frames.items()),
        f'{facts.get("date")}',
    ))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f'<title>{escape(manifest.name)}</title><style>{_STYLE}</style></head><body>',
        f'<h1>{escape(manifest.name)}</h1><p class="facts">{escape(line)}</p>',
        f'<p>{escape(manifest.description)}</p>' if manifest.description else '',
        '<h2>Curves</h2>',
        _curves(read_log(out / 'log'), manifest.tasks),
        '<h2>Scores on all validation frames</h2>',
        *_table(manifest.scores, manifest.tasks),
        '<h2>Truth and prediction</h2>',
        *_pictures(out / 'pictures'),
        '<h2>Recipe</h2><details><summary>as run</summary><pre>',
        escape(json.dumps(facts.get('recipe'), indent=2)),
        '</pre></details></body></html>\n',
    ]
    atomic_write(out / REPORT_FILE, '\n'.join(parts))
    return out / REPORT_FILE
