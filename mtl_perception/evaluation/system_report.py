# SPDX-License-Identifier: Apache-2.0
"""The comparison of systems as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_perception.evaluation.engine_report import save_figure, where_measured
from mtl_perception.evaluation.system_ratios import ratios_markdown
from mtl_perception.evaluation.system_worker import REFERENCE, TARGETS

_COLOURS = ('#4c78a8', '#f58518', '#54a24b')


def engines_markdown(document: Mapping[str, Any]) -> str:
    """Return the table of how many times faster than PyTorch each engine is, by system."""
    entries = [entry for entry in document['systems'] if 'comparison' in entry]
    rows = [(entry, row) for entry in entries for row in entry['comparison']]
    loads = [load for _, row in rows for load in row['load_average_1min']]
    if not rows:
        return '\n'.join(['No system could be timed.', *_failures(document)]) + '\n'
    others = [label for label in rows[0][1]['median_ms'] if label != REFERENCE]
    lines = [
        f"{_network(document)}, random weights; {document['rounds']} runs of each, in turn; "
        f'load of the machine {min(loads):g} to {max(loads):g} while it was measured. '
        f"{where_measured(document['machine'])}.",
        f"GPU: {document['gpu']}." if document['gpu'] else 'Not run on a GPU.',
        '',
        f'{REFERENCE} (PyTorch eager) in ms, elapsed / of the processors, and how many times '
        'faster the others are: by the elapsed time / by the time of the processors, each the '
        'median over the rounds of the ratio within a round. Other work on the machine stretches '
        'the elapsed time only; what a second thread gains shows in it only.',
        '',
        f'| system | threads | {REFERENCE}, ms | ' + ' | '.join(others) + ' |',
        '|---|---|---|' + '---|' * len(others),
    ]
    for entry, row in rows:
        cells = ' | '.join(
            f"{row['times_faster'][label]:.2f} / {row['times_cheaper'][label]:.2f}"
            for label in others
        )
        lines.append(
            f"| `{entry['system']}` | {row['threads']} | {row['median_ms'][REFERENCE]:.0f} / "
            f"{row['median_processor_ms'][REFERENCE]:.0f} | {cells} |"
        )
    return '\n'.join([*lines, *_failures(document)]) + '\n'


def builds_markdown(document: Mapping[str, Any]) -> str:
    """Return the table of TensorRT-RTX engines, by system."""
    entries = [entry for entry in document['systems'] if 'tensorrt_rtx' in entry]
    version = document['machine']['versions'].get('tensorrt_rtx') or '?'
    lines = [
        f'{_network(document)}, fp16, one engine for {", ".join(TARGETS)}, built ahead of time '
        f'without a GPU by TensorRT-RTX {version}. Not run on a GPU.',
        '',
        '| system | MB | built in s | of these, processor s | layers | layers by type |',
        '|---|---|---|---|---|---|',
    ]
    for entry in entries:
        built = entry['tensorrt_rtx']
        types = ', '.join(f'{count} {name}' for name, count in
                          built['layers_by_precision'].items())  # fmt: skip
        lines.append(
            f"| `{entry['system']}` | {built['megabytes']:.1f} | {built['seconds']:.1f} | "
            f"{built['processor_seconds']:.1f} | {built['layers']} | {types} |"
        )
    return '\n'.join([*lines, *_failures(document)]) + '\n'


def costs_markdown(document: Mapping[str, Any]) -> str:
    """Return the table of what a frame costs, by system."""
    heading = (
        f"{_network(document)}, four tasks, random weights; {document['rounds']} runs of each. "
        f"{where_measured(document['machine'])}."
    )
    return ratios_markdown(document['ratios'], heading)


def _network(document: Mapping[str, Any]) -> str:
    height, width = document['size']
    return f"Every system on `{document['backbone']}` at {height}x{width}"


def _failures(document: Mapping[str, Any]) -> list[str]:
    return [
        f"* `{entry['system']}` failed: {entry['error']}"
        for entry in document['systems']
        if 'error' in entry
    ]


def plot_systems(document: Mapping[str, Any], path: Path) -> None:
    """Draw the ratios as bars by system, one panel per number of threads."""
    import matplotlib.figure

    entries = [entry for entry in document['systems'] if 'comparison' in entry]
    counts = [row['threads'] for row in entries[0]['comparison']]
    others = [label for label in entries[0]['comparison'][0]['times_faster'] if label != REFERENCE]
    figure = matplotlib.figure.Figure(figsize=(9.0, 2.6 * len(counts)), layout='constrained')
    panels = figure.subplots(len(counts), sharex=True, squeeze=False)[:, 0]
    width = 0.8 / len(others)
    for index, (panel, count) in enumerate(zip(panels, counts)):
        for place, (label, colour) in enumerate(zip(others, _COLOURS)):
            values = [entry['comparison'][index]['times_faster'][label] for entry in entries]
            centres = [number + (place - (len(others) - 1) / 2) * width for number in
                       range(len(entries))]  # fmt: skip
            bars = panel.bar(centres, values, width, label=label, color=colour)
            panel.bar_label(bars, fmt='%.1f', fontsize=7)
        panel.axhline(1.0, color='0.3', linewidth=0.8)
        panel.set_ylabel(f'times faster than\n{REFERENCE}', fontsize=8)
        panel.set_title(f'{count} thread{"s" * (count > 1)}', fontsize=9, loc='left')
        panel.set_xticks(range(len(entries)), [entry['system'] for entry in entries])
        panel.spines[['top', 'right']].set_visible(False)
        panel.tick_params(labelsize=8)
    panels[0].legend(fontsize=8, frameon=False, ncols=len(others), loc='lower right',
                     bbox_to_anchor=(1.0, 1.0))  # fmt: skip
    save_figure(figure, path)
