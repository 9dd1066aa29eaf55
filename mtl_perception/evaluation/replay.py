# SPDX-License-Identifier: Apache-2.0
"""Run a model over every frame of a recording and score it by what the recording holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
import csv
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
import time
from typing import Any

from mtl_perception.bags.frames import BagFrame, BagReader, RefusedFrame
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.evaluation.gallery import Gallery
from mtl_perception.evaluation.scores import complete_targets, Scorer
from mtl_perception.evaluation.timing import Timings
from mtl_perception.files import atomic_write
from mtl_perception.tasks import Task
from mtl_perception.values import Frame, PerceptionMaps

METRICS_FILE = 'metrics.json'
FRAMES_FILE = 'per_frame.csv'
NORMALS_WINDOW = 11
STAGES = ('decode', 'fit', 'engine', 'finish', 'score')


@dataclass
class ReplayReport:
    """
    What a replay found; `to_json()` is what metrics.json holds.

    `scores` are over all pixels of all frames, by task and metric; `notes` counts, by sentence,
    what could not be compared or read. All but `latency_ms` and `frames_per_second` are the
    same in every run.
    """

    bag: str
    topics: dict[str, str | None]
    frames: int = 0  # messages of the image topic
    processed: int = 0
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    class_iou: dict[str, dict[str, float]] = field(default_factory=dict)
    frames_scored: Counter[str] = field(default_factory=Counter)  # by task
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    notes: Counter[str] = field(default_factory=Counter)  # by sentence
    damage: tuple[str, ...] = ()
    lost: dict[str, tuple[int, int]] = field(default_factory=dict)  # topic -> read, expected
    interrupted: bool = False
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    frames_per_second: float = math.nan

    def to_json(self, **about: Any) -> dict[str, Any]:
        """Return plain JSON values, led by `about` (the model, the engine); NaN becomes null."""
        document = {**about, **vars(self), 'normals_window_px': NORMALS_WINDOW}
        document['lost'] = {
            topic: {'read': read, 'recorded': recorded}
            for topic, (read, recorded) in self.lost.items()
        }
        plain: dict[str, Any] = _plain(document)
        return plain


class Replay:
    """
    Perceives and scores every frame of a recording, in order.

    `perceive` is `Perceiver.perceive` or anything like it, `tasks` what its maps are.
    `directory` receives per_frame.csv row by row while it runs, and pictures at the end.
    """

    def __init__(
        self,
        reader: BagReader,
        perceive: Callable[[Frame], PerceptionMaps],
        tasks: Sequence[Task],
        directory: Path,
    ) -> None:
        self._reader = reader
        self._perceive = perceive
        self._directory = directory
        self._scorer = Scorer(tasks)
        self._gallery = Gallery(tasks, reader.frame_count)
        self._timings = Timings()
        self._report = ReplayReport(str(reader.path), dict(vars(reader.topics)))

    def run(self, progress: Callable[[int], None] = lambda frames: None) -> ReplayReport:
        """
        Replay to the end or to Ctrl-C, which keeps what is done; return what was found.

        `progress` is called after each frame with the number of frames done.
        """
        report = self._report
        kinds = set(self._reader.topics.targets)
        if 'depth' in kinds:
            kinds.add('normals')
        columns = [
            f'{task}.{metric}' for task, metric in self._scorer.columns(kinds)
        ] + [f'{stage}_ms' for stage in STAGES]
        with _FrameTable(self._directory / FRAMES_FILE, columns) as table:
            try:
                for entry, decode_ms in _timed(self._reader.frames()):
                    table.write(entry, *self._one_frame(entry, decode_ms))
                    progress(report.frames)
            except KeyboardInterrupt:
                report.interrupted = True
        report.scores = self._scorer.totals()
        report.class_iou = self._scorer.class_iou()
        report.damage = self._reader.damage
        report.lost = {} if report.interrupted else self._reader.lost()
        report.latency_ms = self._timings.summary()
        report.frames_per_second = self._timings.rate(('fit', 'engine', 'finish'))
        self._gallery.write(self._directory)
        return report

    def _one_frame(
        self, entry: BagFrame | RefusedFrame, decode_ms: float
    ) -> tuple[str, dict[str, float]]:
        """Return why the frame was refused, or '' and its values by column."""
        report = self._report
        report.frames += 1
        if isinstance(entry, RefusedFrame):
            report.refused[entry.reason] += 1
            return entry.reason, {}
        report.notes.update(entry.notes)
        try:
            maps = self._perceive(entry.frame)
        except MtlPerceptionError as error:
            report.refused[str(error)] += 1
            return str(error), {}
        report.processed += 1
        started = time.perf_counter()
        targets = complete_targets(entry.targets, entry.frame.camera, NORMALS_WINDOW)
        scores, notes = self._scorer.score(maps, targets)
        score_ms = (time.perf_counter() - started) * 1e3
        report.notes.update(notes)
        report.frames_scored.update(list(scores))
        stages = {'decode': decode_ms, **maps.timings_ms, 'score': score_ms}
        self._timings.add(stages)
        self._gallery.add(entry.index, maps, targets, scores, self._scorer.ranking())
        values = {
            f'{task}.{metric}': value
            for task, metrics in scores.items()
            for metric, value in metrics.items()
        }
        return '', {**values, **{f'{stage}_ms': value for stage, value in stages.items()}}


def _timed(
    frames: Iterator[BagFrame | RefusedFrame],
) -> Iterator[tuple[BagFrame | RefusedFrame, float]]:
    """Yield each frame with the milliseconds that reading and decoding it took."""
    while True:
        started = time.perf_counter()
        entry = next(frames, None)
        if entry is None:
            return
        yield entry, (time.perf_counter() - started) * 1e3


class _FrameTable:
    """Writes per_frame.csv row by row: what is computed stays, whatever ends the replay."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._columns = columns

    def __enter__(self) -> _FrameTable:
        self._stream = self._path.open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._stream)
        self._writer.writerow(('index', 'stamp_ns', 'refused', *self._columns))
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(
        self, entry: BagFrame | RefusedFrame, refused: str, values: Mapping[str, float]
    ) -> None:
        stamp_ns = entry.frame.stamp_ns if isinstance(entry, BagFrame) else entry.stamp_ns
        cells = (values.get(column, '') for column in self._columns)
        self._writer.writerow((entry.index, stamp_ns, refused, *cells))
        self._stream.flush()


def write_report(report: ReplayReport, directory: Path, **about: Any) -> None:
    """Write metrics.json; see `ReplayReport.to_json`."""
    text = json.dumps(report.to_json(**about), indent=2, allow_nan=False)
    atomic_write(directory / METRICS_FILE, text + '\n')


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it: NaN and infinity become null, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
