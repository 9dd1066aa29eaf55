# SPDX-License-Identifier: Apache-2.0
"""Compare engines, precisions, sizes, batches and threads, in turn run by run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
import json
import math
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from mtl_perception.evaluation.errors import EvaluationError
import numpy as np

_WARM_UP_RUNS = 3


@dataclass(frozen=True)
class EngineVariant:
    """What one row of the comparison runs."""

    bundle: Path
    size: tuple[int, int]  # (height, width)
    engine: str
    precision: str
    batch: int
    threads: int

    @property
    def setting(self) -> tuple[tuple[int, int], int, int]:
        """What two rows must share to be compared."""
        return self.size, self.batch, self.threads

    @property
    def label(self) -> str:
        """Engine and precision, as in the table."""
        return f'{self.engine} {self.precision}'


@dataclass
class EngineRow:
    """What was measured of a variant; `error` says why nothing was."""

    variant: EngineVariant
    error: str = ''
    startup_s: float = math.nan  # imports, opening (from the cache if there), first output
    startup_processor_s: float = math.nan  # of that, what the processors worked
    peak_memory_mib: float = math.nan
    errors: dict[str, float] = field(default_factory=dict)  # by task, from the fp32 reference
    runs_ms: list[float] = field(default_factory=list)
    ratio: float = math.nan  # times faster than the reference of its setting

    @property
    def median_ms(self) -> float:
        """Median of the runs; NaN without any."""
        return float(np.median(self.runs_ms)) if self.runs_ms else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        document = {**asdict(self.variant), 'bundle': self.variant.bundle.name}
        if self.error:
            return {**document, 'error': self.error}
        return {
            **document,
            'startup_s': self.startup_s,
            'startup_processor_s': self.startup_processor_s,
            'peak_memory_mib': self.peak_memory_mib,
            'errors': self.errors,
            'median_ms': self.median_ms,
            'p95_ms': float(np.percentile(self.runs_ms, 95)),
            'times_faster': self.ratio,
        }


class _Worker:
    """A variant's process; one exchange of lines at a time."""

    def __init__(self, row: EngineRow, cache: Path | None) -> None:
        self.row = row
        variant = row.variant
        wish = {
            'bundle': str(variant.bundle), 'engine': variant.engine, 'batch': variant.batch,
            'precision': variant.precision, 'threads': variant.threads,
            'cache': None if cache is None else str(cache),
        }  # fmt: skip
        # Threads that spin at a barrier would take the cores of the variant whose turn it is.
        environment = {
            **os.environ, 'OMP_WAIT_POLICY': 'PASSIVE', 'OMP_NUM_THREADS': str(variant.threads),
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'mtl_perception.evaluation.engine_worker', json.dumps(wish)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.row.error = f'its process ended with code {self._process.wait()}'
            return {}
        document: dict[str, Any] = json.loads(line)
        self.row.error = document.get('error', '')
        return document

    def ask(self, question: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f'{question}\n')
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # read() says that the process ended
        return self.read()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def compare_engines(
    variants: Sequence[EngineVariant],
    runs: int,
    *,
    cache: Path | None = None,
    progress: Callable[[], object] = lambda: None,
) -> list[EngineRow]:
    """
    Time `runs` runs of each variant, those of one setting in turn.

    Each has a process of its own, so that memory and threads are its own; they are started
    twice, since only the second start finds compiled engines in the cache. In turn, because a
    shared machine is fast at one moment and slow at the next: ratios are medians over the
    rounds. The reference of a setting is torch in fp32 where it is among them, else the first.

    Raises
    ------
    EvaluationError
        If no variant could run; the message says why the first could not.

    """
    rows = [EngineRow(variant) for variant in variants]
    for setting in dict.fromkeys(variant.setting for variant in variants):
        together = [row for row in rows if row.variant.setting == setting]
        _measure(together, runs, cache, progress)
        _compare(together)
    if all(row.error for row in rows):
        msg = f'no engine could run: {rows[0].variant.label}: {rows[0].error}'
        raise EvaluationError(msg)
    return rows


def _measure(
    rows: Sequence[EngineRow], runs: int, cache: Path | None, progress: Callable[[], object]
) -> None:
    for row in rows:
        # Fills the cache; its start-up time is that of a build.
        first = _Worker(row, cache)
        first.read()
        first.end()
    workers = []
    try:
        for row in rows:
            if row.error:
                continue
            workers.append(worker := _Worker(row, cache))
            document = worker.read()
            if not row.error:
                row.startup_s, row.errors = document['startup_s'], document['errors']
                row.startup_processor_s = document['startup_processor_s']
        for index in range(-_WARM_UP_RUNS, runs):
            for worker in workers:
                if worker.row.error:
                    continue
                document = worker.ask('run')
                if index >= 0 and not worker.row.error:
                    worker.row.runs_ms.append(document['ms'])
                    progress()
        for worker in workers:
            if not worker.row.error:
                worker.row.peak_memory_mib = worker.ask('end')['peak_memory_mib']
    finally:
        for worker in workers:
            worker.end()


def _compare(rows: Sequence[EngineRow]) -> None:
    able = [row for row in rows if not row.error]
    named = [row for row in able if row.variant.label == 'torch fp32']
    for row in able:
        reference = (named or able)[0]
        row.ratio = float(np.median(np.divide(reference.runs_ms, row.runs_ms)))
