# SPDX-License-Identifier: Apache-2.0
"""Run a model over every frame of a recording and score it by what the recording holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
import math
from pathlib import Path
import time
from typing import Any

from mtl_perception.bags.frames import BagReader
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.frame_result import frame_result
from mtl_perception.evaluation.frame_scores import FrameScores
from mtl_perception.evaluation.frame_table import FrameTable
from mtl_perception.evaluation.gallery import Gallery
from mtl_perception.evaluation.memory import peak_mib, reset_peak
from mtl_perception.evaluation.picture_choice import frames_for_pictures
from mtl_perception.evaluation.pipeline import pipelined
from mtl_perception.evaluation.replay_observer import (
    FrameResult,
    ReplayContext,
    ReplayObserver,
)
from mtl_perception.evaluation.replay_report import NORMALS_WINDOW, ReplayReport, write_report
from mtl_perception.evaluation.resume import (
    check_same,
    DiskReserve,
    kept_frames,
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
# What `Perceiver` times.
ENGINE_STAGES = ('fit', 'engine', 'finish')


class Replay:
    """
    Perceives and scores every frame of a recording, in order.

    `perceive` is `Perceiver.perceive` or anything like it, `tasks` what its maps are. It runs on
    a thread of its own while this one reads the next frames and scores the last. `directory`
    receives per_frame.csv row by row and every `CHECKPOINT_FRAMES` frames what was counted, and
    at the end what the observers write: the pictures (`Gallery`) and those of `observers`.

    :param stages: what `perceive` times
    :param settings: JSON values that must be the same for a replay to go on, beside the bag,
        topics, model, engine and tasks
    :param peak_memory: MiB of the process that perceives
    :param resume: go on where an ended replay of the same things left off
    :raises EvaluationError: when run, if the directory holds results of something else, or if
        it cannot be written to; what was computed until then is kept. What an observer raises
        at the end is raised after the others have finished.
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
        stages: Sequence[str] = ENGINE_STAGES,
        settings: Mapping[str, Any] | None = None,
        peak_memory: Callable[[], float] = peak_mib,
        resume: bool = False,
    ) -> None:
        self._reader = reader
        self._perceive = perceive
        self._tasks = tuple(tasks)
        self._directory = directory
        self._scores = FrameScores(tasks, NORMALS_WINDOW)
        self._again = FrameScores(tasks, NORMALS_WINDOW)  # counts into nothing that is kept
        self._observers = (Gallery(), *observers)
        self._timings = Timings()
        self._report = ReplayReport(
            str(reader.path), dict(vars(reader.topics)), name=name, model=model, engine=engine
        )
        self._perceiving = tuple(stages)
        self._stages = ('decode', *self._perceiving, 'score')
        self._settings = dict(settings or {})
        self._peak_memory = peak_memory
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
        ] + [f'{stage}_ms' for stage in self._stages]
        first = report.frames
        reset_peak()
        for observer in self._observers:
            observer.begin(self._context())
        with (
            DiskReserve(self._directory) as reserve,
            FrameTable(self._directory / FRAMES_FILE, columns, first) as table,
            StopRequest() as stop,
        ):
            self._restore_timings(table)
            errors: list[Exception] = []
            try:
                self._frames(first, table, stop, progress)
                if report.frames > first:
                    self._checkpoint()
            except OSError as error:
                errors.append(error)
                reserve.release()
                report.interrupted = True
                self._save_the_rest(table)
            self._fill_report()
            save = partial(write_report, report, self._directory)
            finish = [partial(observer.finish, report) for observer in self._observers]
            # What the observers find belongs into metrics.json; before them it is safe already.
            errors += reserve.write_all([save, *finish, save])
        if errors and isinstance(errors[0], OSError):
            msg = (
                f'the results cannot be written to {self._directory}: {errors[0]}; '
                f'{kept_frames(self._directory)} frames are kept there: make room, and go on '
                'with --resume'
            )
            raise EvaluationError(msg) from errors[0]
        if errors:
            raise errors[0]
        return report

    def _frames(
        self, first: int, table: FrameTable, stop: StopRequest, progress: Callable[[int], None]
    ) -> None:
        report = self._report
        seconds = report.seconds
        seconds.update(dict.fromkeys(('wall', 'perceive', 'read', 'score', 'observe'), 0.0))
        begun = time.perf_counter()
        entries = self._reader.frames(first, self._shown_again(first, table))
        try:
            for perceived in pipelined(entries, self._perceive):
                is_new = perceived.entry.index >= first
                result = frame_result(perceived, self._scores if is_new else self._again)
                if is_new:
                    self._count(result)
                    self._latest = result
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
                if is_new and report.frames % CHECKPOINT_FRAMES == 0:
                    self._checkpoint()
                progress(report.frames)
                if stop.requested:
                    report.interrupted = True
                    return
        except KeyboardInterrupt:
            report.interrupted = True

    def _save_the_rest(self, table: FrameTable) -> None:
        """Write what was counted in the room that was reserved."""
        try:
            if self._latest is not None and table.last_index != self._latest.index:
                table.write(self._latest)
            self._checkpoint()
        except OSError:
            pass  # the last checkpoint is there

    def _shown_again(self, first: int, table: FrameTable) -> Collection[int]:
        """Return the frames before `first` that the observers have to see once more."""
        if not first or any(one.needs_every_frame for one in self._observers):
            return range(first)
        ranking = self._scores.ranking()
        column = '' if ranking is None else f'{ranking[0]}.{ranking[1]}'
        # The last one too, so that the time to skip the others counts for no new frame.
        return frames_for_pictures(table.kept, self._reader.frame_count, column) | {first - 1}

    def _context(self) -> ReplayContext:
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
        report.frames_per_second = self._frames_per_second()
        report.peak_memory_mib = self._peak_memory()

    def _frames_per_second(self) -> float:
        if self._perceiving == ENGINE_STAGES:
            return self._timings.rate(ENGINE_STAGES)
        # The running node works on several frames at once: what counts is what came out.
        wall_s = self._report.seconds.get('wall', 0.0)
        return self._report.processed / wall_s if wall_s else math.nan

    def _count(self, result: FrameResult) -> None:
        report = self._report
        report.frames += 1
        report.notes.update(result.notes)
        if result.refused:
            report.refused[result.refused] += 1
            return
        report.processed += 1
        report.frames_scored.update(list(result.scores))
        self._timings.add(result.stages_ms)

    def _identity(self) -> dict[str, Any]:
        """Return what must be the same for a replay to go on."""
        report = self._report
        return {
            'bag': str(self._reader.path.resolve()), 'topics': report.topics,
            'model': report.model, 'engine': report.engine,
            'tasks': [task.to_json() for task in self._tasks], **self._settings,
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
            stages = {stage: row[f'{stage}_ms'] for stage in self._stages}
            self._timings.add({stage: float(text) for stage, text in stages.items() if text})
