# SPDX-License-Identifier: Apache-2.0
"""What stops a run from outside, told in one line that says what is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import errno
from pathlib import Path

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.training.errors import TrainingError

# What keeps a file from being written; the readers of data have messages of their own.
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def told_plainly(out: Path) -> Iterator[None]:
    """
    Turn a failing disk into a message, and cut a worker's traceback from another room's.

    Raises
    ------
    TrainingError
        If a file cannot be written or read.

    """
    try:
        yield
    except OSError as error:
        # From a data loader's worker comes its whole traceback; the last line is the reason.
        reason = error.strerror or (str(error).strip() or repr(error)).splitlines()[-1]
        if error.errno in _NOT_WRITTEN:
            what = f'{error.filename or out} cannot be written: {reason}'
            remedy = 'make room or give rights, and go on'
        else:
            what = f'{error.filename or "a file"} cannot be read or written: {reason}'
            remedy = 'remove the cause, and go on'
        msg = f'{what}. What was saved before is intact: {remedy} with --resume --out {out}'
        raise TrainingError(msg) from error
    except MtlPerceptionError as error:
        lines = str(error).strip().splitlines()
        if len(lines) < 2:
            raise
        # A data loader's worker sends its whole traceback as the message; the last line is ours.
        _, _, message = lines[-1].partition(': ')
        raise type(error)(message) from error
