# SPDX-License-Identifier: Apache-2.0
"""Recorded messages in a temporary file, to be read in any order by any process."""

from __future__ import annotations

import os
import tempfile
from typing import IO

from mtl_perception.datasets.errors import DatasetError

Span = tuple[int, int]  # where a message begins, and its length


class MessageStore:
    """
    A file without a name: it vanishes with the last process that reads it.

    Reading leaves no file position behind, so forked processes may read at once; a copy sent to
    a new process opens the file through its owner, which must still be running.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix='mtl_perception_bag_')  # noqa: SIM115
        self._descriptor = self._file.fileno()
        self._size = 0

    def append(self, data: bytes) -> Span:
        """
        Keep a message.

        Raises
        ------
        DatasetError
            If the temporary folder is full.

        """
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            msg = (
                f'{tempfile.gettempdir()}: the messages of the bag cannot be kept after '
                f'{self._size >> 20} MiB: {error.strerror}; set TMPDIR to a folder with room, or '
                'take fewer frames with the option every'
            )
            raise DatasetError(msg) from error
        span = (self._size, len(data))
        self._size += len(data)
        return span

    def read(self, span: Span) -> bytes:
        """Return a message."""
        start, length = span
        return os.pread(self._descriptor, length, start)

    def __getstate__(self) -> tuple[str, int]:
        return f'/proc/{os.getpid()}/fd/{self._descriptor}', self._size

    def __setstate__(self, state: tuple[str, int]) -> None:
        path, self._size = state
        self._file = open(path, 'rb')  # noqa: SIM115
        self._descriptor = self._file.fileno()
