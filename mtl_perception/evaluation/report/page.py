# SPDX-License-Identifier: Apache-2.0
"""Put the page together: one HTML file with its style, script and pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from importlib import resources
import json
from pathlib import PurePath
from typing import Any

from mtl_perception.evaluation.report.charts import line_chart
from mtl_perception.evaluation.report.metric_words import HEADLINES
from mtl_perception.evaluation.report.run_record import EncodedPicture, FrameStrip, RunRecord
from mtl_perception.evaluation.report.tables import (
    class_tables,
    confusion_tables,
    distance_between_maps,
    distance_tables,
    latency_table,
    score_tables,
    summary_table,
)

# Of encoded pictures on the page; a third more as base64.
PICTURE_BUDGET_BYTES = 10_000_000
_FEWEST_SAMPLES = 5
_LATENCIES = ('engine_ms', 'live_ms')
# Nothing is fetched: whoever opens the page can be sure of it.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def build_page(runs: Sequence[RunRecord]) -> str:
    """Return the HTML of all runs; every string of a recording is escaped."""
    runs = within_budget(runs, PICTURE_BUDGET_BYTES)
    bags = list(dict.fromkeys(run.bag for run in runs))
    title = 'Replay of ' + ', '.join(PurePath(bag).name for bag in bags)
    sections = [
        ('summary', 'Summary', _about(runs) + summary_table(runs)),
        ('problems', 'Refused, lost, noted', ''.join(_problems(run) for run in runs)),
        ('frames', 'Frames', _viewer(runs)),
        ('time', 'Over time', ''.join(_charts(runs, bag) for bag in bags)),
        ('distance', 'By distance', distance_tables(runs)),
        ('classes', 'By class', class_tables(runs) + _details(
            'Confusion', ''.join(confusion_tables(run) for run in runs))),
        ('extremes', 'Worst and best frames', ''.join(_extremes(run) for run in runs)),
        ('map', 'Fused scene', _maps(runs)),
        ('latency', 'Latency', ''.join(latency_table(run) for run in runs)),
        ('scores', 'All scores', score_tables(runs)),
    ]  # fmt: skip
    sections = [(key, name, content) for key, name, content in sections if content]
    links = ''.join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in sections)
    body = ''.join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{content}</section>'
        for key, name, content in sections
    )
    here = resources.files(__package__)
    style = (here / 'page.css').read_text(encoding='utf-8')
    script = (here / 'page.js').read_text(encoding='utf-8')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f'<title>{escape(title)}</title><style>{style}</style></head><body>'
        f'<header><h1>{escape(title)}</h1><nav aria-label="Sections">{links}</nav></header>'
        f'<main>{body}</main>'
        f'<script type="application/json" id="frames-data">{_json(_frames(runs))}</script>'
        f'<script>{script}</script></body></html>\n'
    )


def within_budget(runs: Sequence[RunRecord], budget: int) -> list[RunRecord]:
    """Leave every other sample out, in all runs alike, until the pictures fit."""
    kept = list(runs)
    while sum(_picture_bytes(run) for run in kept) > budget:
        if max(len(run.samples) for run in kept) <= _FEWEST_SAMPLES:
            break
        kept = [replace(run, samples=run.samples[::2]) for run in kept]
    return kept


def _picture_bytes(run: RunRecord) -> int:
    strips = (*run.samples, *run.worst, *run.best)
    return sum(strip.size for strip in strips) + sum(len(entry.data) for entry in run.map_pictures)


def _about(runs: Sequence[RunRecord]) -> str:
    items = []
    for run in runs:
        document = run.document
        words = f'{document.get("model", "")} on {document.get("engine", "")}, {run.bag}'
        if document.get('interrupted'):
            words += ', interrupted: these are the frames up to then'
        items.append(f'<li><b>{escape(run.name)}</b>: {escape(words)}</li>')
    return f'<ul class="about">{"".join(items)}</ul>'


def _problems(run: RunRecord) -> str:
    document = run.document
    entries: list[tuple[str, str, str]] = []
    for sentence in document.get('warnings', ()):
        entries.append(('warning', '', sentence))
    for sentence in document.get('damage', ()):
        entries.append(('damaged', '', sentence))
    for topic, counts in document.get('lost', {}).items():
        missing = counts['recorded'] - counts['read']
        entries.append(('lost', '', f'{missing} of {counts["recorded"]} messages of {topic}'))
    for kind, key in (('refused', 'refused'), ('note', 'notes')):
        for sentence, count in _most_common(document.get(key, {})):
            entries.append((kind, _frames_words(count), sentence))
    for sentence, count in _most_common(run.map_document.get('skipped_frames', {})):
        entries.append(('map', _frames_words(count), sentence))
    for name, state in run.map_document.get('maps', {}).items():
        if state.get('refused_blocks'):
            entries.append((
                'map', '', f'the memory of the {name} map was full: {state["refused_blocks"]} '
                'blocks were left out',
            ))  # fmt: skip
    if not entries:
        return f'<p>{escape(run.name)}: nothing was refused, lost or damaged.</p>'
    items = ''.join(
        f'<li class="{kind}"><b>{kind}{f" ({count})" if count else ""}</b>: {escape(sentence)}'
        '</li>'
        for kind, count, sentence in entries
    )
    return f'<h3>{escape(run.name)}</h3><ul class="problems">{items}</ul>'


def _frames_words(count: int) -> str:
    return f'{count} frame' + ('s' if count != 1 else '') if count else ''


def _most_common(counts: Mapping[str, int], largest: int = 20) -> list[tuple[str, int]]:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    rest = len(ordered) - largest
    return ordered[:largest] + ([(f'and {rest} more reasons', 0)] if rest > 0 else [])


def _viewer(runs: Sequence[RunRecord]) -> str:
    if not any(run.samples for run in runs):
        return ''
    bags = list(dict.fromkeys(run.bag for run in runs if run.samples))
    choice = ''
    if len(bags) > 1:
        options = ''.join(
            f'<option value="{number}">{escape(bag)}</option>' for number, bag in enumerate(bags)
        )
        choice = f'<label>Recording <select id="bag">{options}</select></label>'
    return (
        f'<div class="controls">{choice}<label for="slider">Frame <output id="frame-number" '
        'for="slider"></output></label><input type="range" id="slider" min="0" value="0" '
        'aria-describedby="slider-help"><p id="slider-help" class="help">Drag, or use the arrow '
        'keys; Home and End go to the first and last. The line in the charts marks the '
        'frame.</p></div>'
        f'<div id="strips" aria-live="polite"></div>{_legend(runs)}'
    )


def _legend(runs: Sequence[RunRecord]) -> str:
    classes = dict.fromkeys(entry for run in runs for entry in run.legend)
    items = ''.join(
        f'<li><span class="swatch" style="background:rgb({r},{g},{b})"></span>{escape(name)}</li>'
        for name, (r, g, b) in classes
    )
    return f'<ul class="legend" aria-label="Class colours">{items}</ul>' if items else ''


def _charts(runs: Sequence[RunRecord], bag: str) -> str:
    """Return the charts of one recording: what matters, then the rest on demand."""
    runs = [run for run in runs if run.bag == bag]
    columns = list(dict.fromkeys(column for run in runs for column in run.series))
    first = [name for name in (*HEADLINES, *_LATENCIES) if name in columns]
    rest = [name for name in columns if name not in first]
    key = ''
    if len(runs) > 1:
        key = '<ul class="legend">' + ''.join(
            f'<li><span class="swatch fill-{number % 6}"></span>{escape(run.name)}</li>'
            for number, run in enumerate(runs)
        ) + '</ul>'  # fmt: skip
    heading = f'<h3>{escape(PurePath(bag).name)}</h3>'
    shown = _grid_of_charts(runs, first)
    if not shown:
        return ''
    return heading + key + shown + _details('Every other column', _grid_of_charts(runs, rest))


def _grid_of_charts(runs: Sequence[RunRecord], columns: Iterable[str]) -> str:
    figures = []
    for column in columns:
        chart = line_chart(
            column, [run.indices for run in runs],
            [run.series.get(column, ()) for run in runs], [run.name for run in runs],
        )  # fmt: skip
        if chart:
            figures.append(
                f'<figure><figcaption>{escape(column)}</figcaption>{chart}</figure>'
            )
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ''


def _extremes(run: RunRecord) -> str:
    parts = []
    for word, strips in (('Worst', run.worst), ('Best', run.best)):
        if strips:
            parts.append(f'<h3>{escape(run.name)}: {word.lower()} by {escape(run.ranking)}</h3>')
            parts += [_strip(strip) for strip in strips]
    return ''.join(parts)


def _strip(strip: FrameStrip) -> str:
    heading = f'frame {strip.index}' + (f': {strip.caption}' if strip.caption else '')
    figures = ''.join(_figure(picture, f'frame {strip.index}') for picture in strip.pictures)
    return f'<p class="strip-title">{escape(heading)}</p><div class="strip">{figures}</div>'


def _maps(runs: Sequence[RunRecord]) -> str:
    parts = []
    for run in runs:
        if run.map_pictures:
            figures = ''.join(_figure(picture, run.name) for picture in run.map_pictures)
            parts.append(f'<h3>{escape(run.name)}</h3><div class="maps">{figures}</div>')
    return ''.join(parts) + distance_between_maps(runs)


def _figure(picture: EncodedPicture, what: str) -> str:
    title = escape(picture.title)
    return (
        f'<figure><img src="{_data_uri(picture)}" width="{picture.width}" '
        f'height="{picture.height}" alt="{escape(what)}: {title}"><figcaption>{title}'
        '</figcaption></figure>'
    )


def _details(summary: str, content: str) -> str:
    if not content:
        return ''
    return f'<details><summary>{escape(summary)}</summary>{content}</details>'


def _frames(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Return what the script shows: by recording, the strips of its runs."""
    bags: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run.samples:
            strips = [
                {
                    'index': strip.index,
                    'caption': strip.caption,
                    'pictures': [
                        [picture.title, _data_uri(picture), picture.width, picture.height]
                        for picture in strip.pictures
                    ],
                }
                for strip in run.samples
            ]
            bags.setdefault(run.bag, []).append({'name': run.name, 'strips': strips})
    return {'bags': [{'bag': bag, 'runs': entries} for bag, entries in bags.items()]}


def _data_uri(picture: EncodedPicture) -> str:
    return f'data:{picture.media_type};base64,{base64.b64encode(picture.data).decode("ascii")}'


def _json(document: Mapping[str, Any]) -> str:
    """Write JSON that no HTML parser takes for the end of its script element."""
    text = json.dumps(document, separators=(',', ':'), allow_nan=False)
    return text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')
