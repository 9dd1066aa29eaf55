# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C as a request to stop after the frame at hand."""

from __future__ import annotations

import signal
import threading
from typing import Any


class StopRequest:
    """
    Notes the first Ctrl-C, so that no frame is counted by half; the second one interrupts.

    A context manager; outside the main thread, where signals cannot be caught, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._former: Any = None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def _note(self, number: int, frame: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
