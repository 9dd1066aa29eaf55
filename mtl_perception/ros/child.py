# SPDX-License-Identifier: Apache-2.0
"""Run a command of ours as a process of its own, and end it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import signal
import subprocess
import sys
from typing import IO

_END_LIMIT_S = 10.0


@contextmanager
def child(
    name: str, arguments: Sequence[str], *, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """
    Run `python3 -m mtl_perception <name>` until the block ends, then interrupt it.

    :param output: where it writes; None for our own streams. With it, Ctrl-C does not reach the
        child: the block ends it when it is done with it.
    """
    process = subprocess.Popen(
        [sys.executable, '-m', 'mtl_perception', name, *arguments],
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=output is not None,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
