# SPDX-License-Identifier: Apache-2.0
"""What stops a run from outside, told in one line that says what is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.training.errors import TrainingError


@contextmanager
def told_plainly(out: Path) -> Iterator[None]:
    """
    Turn a failing disk into a message, and cut a worker's traceback from another room's.

    Raises
    ------
    TrainingError
        If a file cannot be written.

    """
    try:
        yield
    except OSError as error:
        where = error.filename or out
        msg = (
            f'{where} cannot be written: {error.strerror or error}. What was saved before is '
            f'intact: make room or give rights, and go on with --resume --out {out}'
        )
        raise TrainingError(msg) from error
    except MtlPerceptionError as error:
        lines = str(error).strip().splitlines()
        if len(lines) < 2:
            raise
        # A data loader's worker sends its whole traceback as the message; the last line is ours.
        _, _, message = lines[-1].partition(': ')
        raise type(error)(message) from error
