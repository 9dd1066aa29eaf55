# SPDX-License-Identifier: Apache-2.0
"""The observer that writes report.html: all runs of a replay on one page."""

from __future__ import annotations

import csv
from dataclasses import replace
import math
from pathlib import Path
from typing import Any, TYPE_CHECKING

from mtl_perception.evaluation.picture_choice import slider_step
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.evaluation.report.extremes import Extremes
from mtl_perception.evaluation.report.frame_tiles import encode, frame_strip
from mtl_perception.evaluation.report.page import build_page
from mtl_perception.evaluation.report.run_record import FrameStrip, RunRecord
from mtl_perception.files import atomic_write

if TYPE_CHECKING:
    from mtl_perception.evaluation.replay_report import ReplayReport
    from mtl_perception.evaluation.scene_map import SceneMap

REPORT_FILE = 'report.html'
_FRAMES_FILE = 'per_frame.csv'
_MAP_PICTURE_WIDTH = 640


class HtmlReport:
    """
    Writes report.html at the end of every run, with all runs so far.

    One object looks on at all runs of a replay, one after the other. It keeps the encoded
    pictures of at most 80 frames a run, spread evenly whatever the length, and of the worst and
    best ones. Give `add_map` what a `SceneMap` that finished before it has drawn.

    :param path: of the page
    """

    needs_every_frame = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: list[RunRecord] = []
        self._map: SceneMap | None = None

    def add_map(self, scene: SceneMap | None) -> None:
        """Show this run's fused scene; its `finish` must be called before this one's."""
        self._map = scene

    def begin(self, context: ReplayContext) -> None:
        """Start a run."""
        self._context = context
        self._step = slider_step(context.frame_count or 0)
        self._samples: list[FrameStrip] = []
        self._extremes = Extremes(context.frame_count)
        self._ranking = ''

    def frame(self, result: FrameResult) -> None:
        """Draw the frame if it is to be shown."""
        if result.maps is None:
            return
        strip: FrameStrip | None = None
        # A damaged recording does not say beforehand how long it is.
        step = max(self._step, slider_step(result.index + 1))
        if step > self._step:
            self._step = step
            self._samples = [entry for entry in self._samples if entry.index % step == 0]
        if result.index % step == 0:
            strip = frame_strip(result, self._context.tasks)
            self._samples.append(strip)
        if result.ranking is None or result.ranking[0] not in result.scores:
            return
        task, metric, higher_is_better = result.ranking
        self._ranking = f'{task} {metric}'
        value = result.scores[task].get(metric, math.nan)
        goodness = value if higher_is_better else -value
        if self._extremes.wants(result.index, goodness):
            self._extremes.add(
                result.index, goodness, strip or frame_strip(result, self._context.tasks)
            )

    def finish(self, report: ReplayReport) -> None:
        """Write the page."""
        document = report.to_json()
        indices, series = read_series(self._context.directory / _FRAMES_FILE)
        semantic = next((task for task in self._context.tasks if task.label_set), None)
        legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()
        if semantic is not None and semantic.label_set is not None:
            legend = tuple(zip(semantic.label_set.names, semantic.label_set.colours))
        record = RunRecord(
            name=self._context.name,
            document=document,
            indices=indices,
            series=series,
            samples=tuple(self._samples),
            worst=self._extremes.worst,
            best=self._extremes.best,
            ranking=self._ranking,
            legend=legend,
        )
        if self._map is not None:
            pictures = tuple(
                encode(entry.words, entry.picture, is_flat=False, width=_MAP_PICTURE_WIDTH)
                for entry in self._map.pictures
            )
            record = replace(
                record, map_document=self._map.document, map_pictures=pictures
            )
        self._runs = [run for run in self._runs if run.name != record.name] + [record]
        atomic_write(self._path, build_page(self._runs))


def read_series(path: Path) -> tuple[list[int], dict[str, list[float | None]]]:
    """Read per_frame.csv: the frame indices, and every column of numbers, None = empty."""
    indices: list[int] = []
    series: dict[str, list[float | None]] = {}
    with path.open(newline='', encoding='utf-8') as stream:
        for row in csv.DictReader(stream):
            indices.append(int(row['index']))
            for name, cell in row.items():
                if name not in ('index', 'stamp_ns', 'refused'):
                    series.setdefault(name, []).append(_number(cell))
    return indices, series


def _number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
