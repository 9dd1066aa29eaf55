# SPDX-License-Identifier: Apache-2.0
"""Run a model over every frame of a recording and score it by what the recording holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
import resource
import time
from typing import Any

from mtl_perception.bags.frames import BagReader, RefusedFrame
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.frame_scores import FrameScores
from mtl_perception.evaluation.frame_table import FrameTable
from mtl_perception.evaluation.gallery import Gallery
from mtl_perception.evaluation.pipeline import Perceived, pipelined
from mtl_perception.evaluation.replay_observer import (
    FrameResult,
    ReplayContext,
    ReplayObserver,
)
from mtl_perception.evaluation.replay_report import NORMALS_WINDOW, ReplayReport, write_report
from mtl_perception.evaluation.resume import (
    check_same,
    DiskReserve,
    load_progress,
    PROGRESS_FILE,
    save_progress,
)
from mtl_perception.evaluation.stop_request import StopRequest
from mtl_perception.evaluation.timing import Timings
from mtl_perception.tasks import Task
from mtl_perception.values import Frame, PerceptionMaps

FRAMES_FILE = 'per_frame.csv'
CHECKPOINT_FRAMES = 100
_COUNTS = ('frames', 'processed', 'frames_scored', 'refused', 'notes')
STAGES = ('decode', 'fit', 'engine', 'finish', 'score')


class Replay:
    """
    Perceives and scores every frame of a recording, in order.

    `perceive` is `Perceiver.perceive` or anything like it, `tasks` what its maps are. It runs on
    a thread of its own while this one reads the next frames and scores the last. `directory`
    receives per_frame.csv row by row and every `CHECKPOINT_FRAMES` frames what was counted, and
    at the end what the observers write: the pictures (`Gallery`) and those of `observers`.

    :param resume: go on where an ended replay of the same things left off
    :raises EvaluationError: when run, if the directory holds results of something else, or if
        it cannot be written to; what was computed until then is kept
    """

    def __init__(
        self,
        reader: BagReader,
        perceive: Callable[[Frame], PerceptionMaps],
        tasks: Sequence[Task],
        directory: Path,
        observers: Sequence[ReplayObserver] = (),
        *,
        name: str = '',
        model: str = '',
        engine: str = '',
        resume: bool = False,
    ) -> None:
        self._reader = reader
        self._perceive = perceive
        self._tasks = tuple(tasks)
        self._directory = directory
        self._scores = FrameScores(tasks, NORMALS_WINDOW)
        self._observers = (Gallery(), *observers)
        self._timings = Timings()
        self._report = ReplayReport(
            str(reader.path), dict(vars(reader.topics)), name=name, model=model, engine=engine
        )
        self._resume = resume
        self._latest: FrameResult | None = None

    def run(self, progress: Callable[[int], None] = lambda frames: None) -> ReplayReport:
        """
        Replay to the end or to Ctrl-C, which keeps what is done; return what was found.

        `progress` is called after each frame with the number of frames done.
        """
        report = self._report
        self._go_on()
        columns = [
            f'{task}.{metric}' for task, metric in self._scores.columns(self._reader.topics)
        ] + [f'{stage}_ms' for stage in STAGES]
        first = report.frames
        for observer in self._observers:
            observer.begin(self._context(first))
        with (
            DiskReserve(self._directory) as reserve,
            FrameTable(self._directory / FRAMES_FILE, columns, first) as table,
            StopRequest() as stop,
        ):
            self._restore_timings(table)
            try:
                self._frames(first, table, stop, progress)
                if report.frames > first:
                    self._checkpoint()
                self._fill_report()
                write_report(report, self._directory)
                for observer in self._observers:
                    observer.finish(report)
                # What they found belongs to it; before them it was safe, should one fail.
                write_report(report, self._directory)
            except OSError as error:
                reserve.release()
                msg = (
                    f'the results cannot be written to {self._directory}: {error}; '
                    f'{self._save_the_rest(table)} frames are kept there: make room, and go on '
                    'with --resume'
                )
                raise EvaluationError(msg) from error
        return report

    def _frames(
        self, first: int, table: FrameTable, stop: StopRequest, progress: Callable[[int], None]
    ) -> None:
        report = self._report
        seconds = report.seconds
        seconds.update(dict.fromkeys(('wall', 'perceive', 'read', 'score', 'observe'), 0.0))
        begun = time.perf_counter()
        try:
            for perceived in pipelined(self._reader.frames(first), self._perceive):
                self._latest = result = self._one_frame(perceived)
                table.write(result)
                scored = time.perf_counter()
                for observer in self._observers:
                    observer.frame(result)
                now = time.perf_counter()
                seconds['read'] += perceived.decode_ms / 1e3
                seconds['perceive'] += perceived.perceive_ms / 1e3
                seconds['score'] += result.stages_ms.get('score', 0.0) / 1e3
                seconds['observe'] += now - scored
                seconds['wall'] = now - begun
                if report.frames % CHECKPOINT_FRAMES == 0:
                    self._checkpoint()
                progress(report.frames)
                if stop.requested:
                    report.interrupted = True
                    return
        except KeyboardInterrupt:
            report.interrupted = True

    def _save_the_rest(self, table: FrameTable) -> int:
        """Write what can be written in the room that was reserved; return the frames kept."""
        try:
            if self._latest is not None and table.last_index != self._latest.index:
                table.write(self._latest)
            self._checkpoint()
            self._fill_report()
            write_report(self._report, self._directory)
        except OSError:
            stored = load_progress(self._directory)
            return 0 if stored is None else int(stored[0]['frames'])
        return self._report.frames

    def _context(self, first: int) -> ReplayContext:
        report, reader = self._report, self._reader
        return ReplayContext(
            name=report.name or reader.path.stem,
            bag=reader.path,
            topics=reader.topics,
            tasks=self._tasks,
            directory=self._directory,
            frame_count=reader.frame_count,
            model=report.model,
            engine=report.engine,
            first_index=first,
        )

    def _fill_report(self) -> None:
        report = self._report
        report.scores = self._scores.totals()
        report.class_iou = self._scores.class_iou()
        report.confusion = self._scores.confusion()
        report.warnings = self._scores.warnings()
        report.damage = self._reader.damage
        whole = not report.interrupted
        report.lost = self._reader.lost() if whole else {}
        report.latency_ms = self._timings.summary()
        report.frames_per_second = self._timings.rate(('fit', 'engine', 'finish', 'live'))
        report.peak_memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def _one_frame(self, perceived: Perceived) -> FrameResult:
        report = self._report
        report.frames += 1
        entry, maps = perceived.entry, perceived.maps
        if isinstance(entry, RefusedFrame):
            report.refused[entry.reason] += 1
            return FrameResult(entry.index, entry.stamp_ns, entry.reason)
        stamp_ns = entry.frame.stamp_ns
        report.notes.update(entry.notes)
        if maps is None:
            report.refused[perceived.reason] += 1
            return FrameResult(
                entry.index, stamp_ns, perceived.reason, entry.frame, notes=entry.notes
            )
        report.processed += 1
        started = time.perf_counter()
        targets, scores, notes = self._scores.score(entry.frame, maps, entry.targets, entry.pose)
        score_ms = (time.perf_counter() - started) * 1e3
        report.notes.update(notes)
        report.frames_scored.update(list(scores))
        stages = {'decode': perceived.decode_ms, **maps.timings_ms, 'score': score_ms}
        self._timings.add(stages)
        return FrameResult(
            index=entry.index,
            stamp_ns=stamp_ns,
            frame=entry.frame,
            maps=maps,
            targets=targets,
            scores=scores,
            pose=entry.pose,
            ranking=self._scores.ranking(),
            notes=(*entry.notes, *notes),
            stages_ms=stages,
        )

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a replay to go on."""
        report = self._report
        return {
            'bag': str(self._reader.path.resolve()), 'topics': report.topics,
            'model': report.model, 'engine': report.engine,
            'tasks': [task.to_json() for task in self._tasks],
        }  # fmt: skip

    def _checkpoint(self) -> None:
        counts = {name: getattr(self._report, name) for name in _COUNTS}
        save_progress(
            self._directory, {**self._identity(), **counts}, self._scores.state()
        )

    def _go_on(self) -> None:
        stored = load_progress(self._directory) if self._resume else None
        if stored is None:
            return
        document, arrays = stored
        path = self._directory / PROGRESS_FILE
        check_same(path, document, self._identity())
        try:
            self._scores.restore(arrays)
            for name in _COUNTS:
                kind = type(getattr(self._report, name))
                setattr(self._report, name, kind(document[name]))
        except (KeyError, ValueError, TypeError) as error:
            msg = f'{path} is of another version ({error}); start again without --resume'
            raise EvaluationError(msg) from error

    def _restore_timings(self, table: FrameTable) -> None:
        for row in table.kept:
            stages = {stage: row[f'{stage}_ms'] for stage in STAGES}
            self._timings.add({stage: float(text) for stage, text in stages.items() if text})
