# SPDX-License-Identifier: Apache-2.0
"""per_frame.csv, row by row: what is computed stays, whatever ends the replay."""

from __future__ import annotations

from collections.abc import Sequence
import csv
import io
from pathlib import Path

from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.replay_observer import FrameResult
from mtl_perception.files import atomic_write

FIXED_COLUMNS = ('index', 'stamp_ns', 'refused')


class FrameTable:
    """
    Writes one row per frame; a context manager.

    :param columns: `task.metric` and `stage_ms`, after the fixed ones
    :param keep: go on after so many rows of the table that is there
    :raises EvaluationError: if that table has other columns or fewer rows
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int = 0) -> None:
        self._path = path
        self._columns = tuple(columns)
        header = (*FIXED_COLUMNS, *self._columns)
        self.kept = _read(path, header, keep) if keep else []
        atomic_write(path, _text([header, *(list(row.values()) for row in self.kept)]))
        self._stream = path.open('ab', buffering=0)
        self.last_index = -1  # of the last row that was written

    def __enter__(self) -> FrameTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, result: FrameResult) -> None:
        """Add a row; a row that cannot be written whole leaves none."""
        values = {
            f'{task}.{metric}': value
            for task, metrics in result.scores.items()
            for metric, value in metrics.items()
        }
        values.update((f'{stage}_ms', value) for stage, value in result.stages_ms.items())
        cells = (values.get(column, '') for column in self._columns)
        data = _text([(result.index, result.stamp_ns, result.refused, *cells)]).encode()
        end = self._stream.tell()
        try:
            while data:
                data = data[self._stream.write(data):]
        except OSError:
            self._stream.truncate(end)
            raise
        self.last_index = result.index


def _text(rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO(newline='')
    csv.writer(stream, lineterminator='\n').writerows(rows)
    return stream.getvalue()


def _read(path: Path, header: Sequence[str], count: int) -> list[dict[str, str]]:
    with path.open(newline='', encoding='utf-8') as stream:
        reader = csv.DictReader(stream)
        rows = [row for row, _ in zip(reader, range(count))]
    if tuple(reader.fieldnames or ()) != tuple(header) or len(rows) < count:
        msg = f'{path} is not the table that was being written; start again without --resume'
        raise EvaluationError(msg)
    return rows
