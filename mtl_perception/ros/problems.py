# SPDX-License-Identifier: Apache-2.0
"""Tell what is wrong, but each kind of problem at most once a second."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
import time


class ProblemLog:
    """
    Passes problems on to `log`, one of each kind per `period_s`, and remembers the last.

    May be called from any thread. What was held back is counted in the next line of its kind.
    """

    def __init__(
        self,
        log: Callable[[str], None],
        period_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._period_s = period_s
        self._clock = clock
        self._lock = Lock()
        self._due: dict[str, float] = {}
        self._held_back: dict[str, int] = {}
        self._last = ''

    def report(self, kind: str, text: str) -> None:
        """Log `text` unless a problem of this kind was logged less than a period ago."""
        with self._lock:
            self._last = text
            now = self._clock()
            if now < self._due.get(kind, now):
                self._held_back[kind] = self._held_back.get(kind, 0) + 1
                return
            self._due[kind] = now + self._period_s
            held_back = self._held_back.pop(kind, 0)
        self._log(f'{text} ({held_back} more like this since)' if held_back else text)

    @property
    def last(self) -> str:
        """The last problem reported, logged or not; empty if there was none."""
        with self._lock:
            return self._last
