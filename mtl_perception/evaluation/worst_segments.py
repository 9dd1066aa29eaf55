# SPDX-License-Identifier: Apache-2.0
"""Where in a recording a model is worst: stretches of frames, by their mean score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import csv
from dataclasses import asdict, dataclass
import math
from pathlib import Path
from typing import Any, TYPE_CHECKING

from mtl_perception.datasets.rosbag import SPLIT_GAP_NS, VALIDATION_SHARE
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.evaluation.segment_export import export_training_split
import numpy as np
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mtl_perception.evaluation.replay_report import ReplayReport

SEGMENT_S = 2.0
# A segment is a part of the recording: at most this share of its frames.
_LARGEST_SHARE = 1 / 3
# A pause this many times as long as between frames ends a segment.
_PAUSE = 10


@dataclass(frozen=True)
class ScoredFrame:
    """One frame's number among the images of a bag, its stamp and its score."""

    index: int
    stamp_ns: int
    score: float


@dataclass(frozen=True)
class Segment:
    """A stretch of consecutive frames; both ends are part of it."""

    first_index: int
    last_index: int
    first_stamp_ns: int
    last_stamp_ns: int
    mean: float


def worst_segments(
    frames: Sequence[ScoredFrame], count: int, *, higher_is_better: bool
) -> list[Segment]:
    """
    Return at most `count` stretches with the worst mean scores, the worst first.

    All have the same number of frames: `SEGMENT_S` seconds, but not more than a third of the
    recording. None overlap, none reach over a pause, and all are worse than the mean of all
    frames. Of equal ones the earlier counts.
    """
    if len(frames) < 2:
        return []
    scores = np.array([frame.score for frame in frames])
    steps = np.diff([frame.stamp_ns for frame in frames])
    rising = steps[steps > 0]
    if not rising.size:
        return []
    period_ns = float(np.median(rising))
    length = max(1, min(round(SEGMENT_S * 1e9 / period_ns), int(len(frames) * _LARGEST_SHARE)))
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    badness = (sums[length:] - sums[:-length]) / length
    mean = float(scores.mean())
    if higher_is_better:
        badness, mean = -badness, -mean
    for position in np.flatnonzero((steps <= 0) | (steps > _PAUSE * period_ns)):
        badness[max(0, position - length + 2) : position + 1] = -np.inf
    found: list[Segment] = []
    while len(found) < count:
        start = int(np.argmax(badness))
        # Sums of many numbers differ from their mean in the last digits.
        if badness[start] <= mean + 1e-9 * abs(mean):
            break
        first, last = frames[start], frames[start + length - 1]
        found.append(Segment(
            first.index, last.index, first.stamp_ns, last.stamp_ns,
            float(scores[start : start + length].mean()),
        ))  # fmt: skip
        badness[max(0, start - length + 1) : start + length] = -np.inf
    return found


class WorstSegments:
    """
    A replay observer that names the worst segments in the report, and exports them if asked to.

    Frames are judged by the replay's ranking. See `export_training_split` for `export`.
    """

    needs_every_frame = False

    def __init__(self, count: int, export: Path | None = None) -> None:
        self._count = count
        self._export = export
        self._ranking: tuple[str, str, bool] | None = None

    def begin(self, context: ReplayContext) -> None:
        """Remember the run."""
        self._context = context

    def frame(self, result: FrameResult) -> None:
        """Remember by which number frames are ranked; the numbers are in per_frame.csv."""
        self._ranking = result.ranking or self._ranking

    def finish(self, report: ReplayReport) -> None:
        """
        Put the worst segments into the report.

        Raises
        ------
        EvaluationError
            If the export has nothing to export, or its place is taken.

        """
        if self._ranking is None:
            return
        task, metric, higher_is_better = self._ranking
        table = self._context.directory / 'per_frame.csv'
        frames = _scored_frames(table, f'{task}.{metric}')
        if not frames:
            return
        segments = worst_segments(frames, self._count, higher_is_better=higher_is_better)
        report.worst_segments = {
            'task': task, 'metric': metric, 'higher_is_better': higher_is_better,
            'mean': float(np.mean([frame.score for frame in frames])),
            'segments': [asdict(segment) for segment in segments],
        }  # fmt: skip
        if self._export is None:
            return
        if report.interrupted:
            report.notes['nothing was exported: the replay was ended early'] += 1
            return
        split = training_part(frames)
        chosen = worst_segments(split.train, self._count, higher_is_better=higher_is_better)
        report.worst_segments['exported'] = [asdict(segment) for segment in chosen]
        export_training_split(
            self._context.bag, self._context.topics,
            [(one.first_index, one.last_index) for one in chosen],
            (split.held_out[0].index, split.held_out[-1].index),
            self._export,
        )  # fmt: skip


@dataclass(frozen=True)
class Split:
    """The frames that may be trained on, and those that are kept to validate on."""

    train: Sequence[ScoredFrame]
    held_out: Sequence[ScoredFrame]


def training_part(frames: Sequence[ScoredFrame]) -> Split:
    """
    Part a recording as the `rosbag` dataset does.

    The last fifth is held out, and the second before it, which shows nearly the same, belongs
    to neither part.
    """
    first = len(frames) - max(1, round(VALIDATION_SHARE * len(frames)))
    latest_ns = frames[first].stamp_ns - SPLIT_GAP_NS
    return Split([one for one in frames[:first] if one.stamp_ns <= latest_ns], frames[first:])


def _scored_frames(table: Path, column: str) -> list[ScoredFrame]:
    with table.open(newline='', encoding='utf-8') as stream:
        return list(_finite(csv.DictReader(stream), column))


def _finite(rows: Iterable[dict[str, Any]], column: str) -> Iterable[ScoredFrame]:
    for row in rows:
        text = row.get(column)
        if text and math.isfinite(score := float(text)):
            yield ScoredFrame(int(row['index']), int(row['stamp_ns']), score)


def print_worst(console: Console, report: ReplayReport) -> None:
    """Print the worst segments, and what was exported."""
    worst = report.worst_segments
    if not worst or not worst['segments']:
        return
    table = Table(
        'frames', 'from', 'to', worst['metric'],
        title=f"worst segments by {worst['task']} (whole bag: {worst['mean']:.4f})",
    )  # fmt: skip
    for one in worst['segments']:
        ends = (f'{one[name] / 1e9:.3f} s' for name in ('first_stamp_ns', 'last_stamp_ns'))
        table.add_row(f"{one['first_index']} to {one['last_index']}", *ends, f"{one['mean']:.4f}")
    console.print(table)
    if 'exported' in worst:
        parts = ', '.join(
            f"{one['first_index']} to {one['last_index']}" for one in worst['exported']
        )
        console.print(f'exported to train on: frames {parts}', highlight=False)
