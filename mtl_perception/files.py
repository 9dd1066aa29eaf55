# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: a reader sees the old content or the new one, never half of either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any


def _synchronise_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path | str, data: bytes | str) -> None:
    """
    Write `data` to `path`: temporary file beside it, fsync, rename.

    Raises
    ------
    OSError
        If the directory does not exist, is not writable or the disk is full; an existing
        file at `path` is then untouched.

    """
    path = Path(path)
    content = data.encode() if isinstance(data, str) else data
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(descriptor, 'wb') as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; a bundle or a report is meant to be read by others.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _synchronise_directory(path.parent)


def write_json(path: Path | str, document: Any) -> None:
    """
    Write `document` to `path` as `atomic_write` does, indented, NaN as `NaN`.

    Raises
    ------
    OSError
        If the file cannot be written.

    """
    atomic_write(path, json.dumps(document, indent=2) + '\n')


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """
    Yield an empty directory beside `path` that takes its place when the block succeeds.

    If the block raises, what stood at `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.'))
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
        for file in temporary.rglob('*'):
            if file.is_file():
                with file.open('rb') as stream:
                    os.fsync(stream.fileno())
        if path.exists():
            # A directory cannot be replaced in one step: move the old one aside first.
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.'))
            os.replace(path, aside / path.name)
            os.replace(temporary, path)
            shutil.rmtree(aside)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _synchronise_directory(path.parent)
