# SPDX-License-Identifier: Apache-2.0
"""Where a dataset comes from, and the one message for a folder that is wrong or incomplete."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import os
from pathlib import Path

from mtl_perception.datasets.errors import DatasetError


@dataclass(frozen=True)
class Origin:
    """What a dataset is called, how it lies on disk and where to get it."""

    title: str
    layout: str  # the files below the root, in a few words
    source: str  # an address, or what to do to get it

    def require(self, root: Path, files: Iterable[str]) -> None:
        """
        Check that all `files` (relative to `root`) are there.

        Each folder is listed once: asking for every file is slow on network disks.

        Raises
        ------
        DatasetError
            If any is missing; the message tells where what was expected and where to get it.

        """
        listed: dict[str, frozenset[str]] = {}
        missing, total = [], 0
        for file in files:
            total += 1
            folder, _, name = file.rpartition('/')
            if folder not in listed:
                listed[folder] = _names_in(root / folder)
            if name not in listed[folder]:
                missing.append(file)
        if missing:
            raise self.incomplete(root, missing, total)

    def incomplete(self, root: Path, missing: list[str], total: int | None = None) -> DatasetError:
        """Return the error for `missing` files (relative to `root`) of `total`."""
        if not root.is_dir():
            found = 'there is no such folder'
        elif total is not None and len(missing) < total:
            found = f'{len(missing)} of {total} files are missing, the first is {missing[0]}'
        else:
            entries = sorted(_names_in(root))
            shown = ', '.join(entries[:6]) + (', ...' if len(entries) > 6 else '')
            found = f'{missing[0]} is missing; the folder holds {shown or "nothing"}'
        return DatasetError(
            f'{self.title} at {root}: {found}. Expected there: {self.layout}. '
            f'Get it: {self.source}. A task whose files you do not have can be left out with '
            'the option tasks (docs/datasets.md)'
        )


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
