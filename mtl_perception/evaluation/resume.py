# SPDX-License-Identifier: Apache-2.0
"""What a replay has counted so far, on disk, so that it can go on after it was ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import json
import os
from pathlib import Path
from typing import Any

from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.files import atomic_write
import numpy as np
import numpy.typing as npt

PROGRESS_FILE = 'progress.safetensors'
RESERVE_FILE = '.reserve'
# Room for the last writes when the disk is full: metrics.json, a row, and the counts.
_RESERVE_BYTES = 32 << 20


def save_progress(
    directory: Path, document: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write the counts (JSON) and arrays, atomically."""
    from safetensors.numpy import save

    data = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={'progress': json.dumps(document)},
    )
    atomic_write(directory / PROGRESS_FILE, data)


def load_progress(directory: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]] | None:
    """
    Return what `save_progress` wrote, or None if nothing was.

    Raises
    ------
    EvaluationError
        If the file cannot be read.

    """
    from safetensors import safe_open, SafetensorError

    path = directory / PROGRESS_FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework='numpy') as tensors:
            document = json.loads(tensors.metadata()['progress'])
            return document, {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f'{path} cannot be read: {error}; start again without --resume'
        raise EvaluationError(msg) from error


def kept_frames(directory: Path) -> int:
    """Return how many frames an ended replay into this folder goes on after."""
    stored = load_progress(directory)
    return 0 if stored is None else int(stored[0]['frames'])


def check_same(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """
    Refuse to go on with results of something else.

    Raises
    ------
    EvaluationError
        If anything of what is wanted differs; the message names the first.

    """
    for name, value in wanted.items():
        if stored.get(name) != value:
            msg = (
                f'{path} holds results with {name} {stored.get(name)!r}, not {value!r}; give the '
                'same again, or another --out, or start over without --resume'
            )
            raise EvaluationError(msg)


class DiskReserve:
    """
    Room on the disk that is given back when the disk is full; a context manager.

    What was computed can then still be written. Without room for the reserve there is none.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / RESERVE_FILE

    def __enter__(self) -> DiskReserve:
        try:
            with self._path.open('wb') as stream:
                os.posix_fallocate(stream.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            self.release()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def write_all(self, steps: Sequence[Callable[[], None]]) -> list[Exception]:
        """
        Take every step, whatever becomes of the others; return what was raised.

        A step that raises OSError is taken once more in the room that was reserved.
        """
        errors: list[Exception] = []
        for step in steps:
            try:
                try:
                    step()
                except OSError:
                    self.release()
                    step()
            # Whatever it is, the results of the next steps are worth more than its traceback.
            except Exception as error:
                errors.append(error)
        return errors

    def release(self) -> None:
        """Give the room back."""
        try:
            self._path.unlink()
        except OSError:
            pass
