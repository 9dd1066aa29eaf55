# SPDX-License-Identifier: Apache-2.0
"""What the commands share: how they read sizes, numbers and lists, and their progress bar."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
import re
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Value = TypeVar('Value')


def size(text: str) -> tuple[int, int]:
    """
    Return the two numbers of a size such as 640x480, in the order in which they stand.

    Raises
    ------
    ArgumentTypeError
        If the text is something else.

    """
    match = re.fullmatch(r'([1-9][0-9]{0,4})x([1-9][0-9]{0,4})', text)
    if match is None:
        raise ArgumentTypeError(f'{text!r} is not a size such as 640x480')
    return int(match[1]), int(match[2])


def positive(text: str) -> int:
    """
    Return a whole number of at least 1.

    Raises
    ------
    ArgumentTypeError
        If the text is something else.

    """
    if not re.fullmatch('[0-9]+', text) or not int(text):
        raise ArgumentTypeError(f'{text!r} is not a whole number of at least 1')
    return int(text)


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """Return what lets the names in `known` through and refuses others with the list."""

    def parse(text: str) -> str:
        if text not in known:
            raise ArgumentTypeError(f'{text!r} is not one of {", ".join(known)}')
        return text

    return parse


def listed(parse: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """Return what reads values separated by commas, each by `parse`."""
    return lambda text: [parse(entry) for entry in text.split(',')]


def progress_bar(
    *fields: str, console: Console | None = None, transient: bool = False
) -> Progress:
    """
    Return a progress bar: what is done, how many of how many, time passed, time left.

    :param fields: names of the task's fields to show at the end
    :param console: None for the error stream
    :param transient: the bar goes when it is done
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    shown = console or Console(stderr=True)
    return Progress(
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn(),
        *(TextColumn(f'{{task.fields[{name}]}}') for name in fields),
        console=shown, transient=transient, disable=transient and not shown.is_terminal,
    )  # fmt: skip
