# SPDX-License-Identifier: Apache-2.0
"""Two threads apart from the executor's: one infers a frame while the other publishes the last."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread
from typing import Generic, TypeVar

from mtl_perception.ros.mailbox import Mailbox

Item = TypeVar('Item')
Half = TypeVar('Half')


class _Handover(Generic[Half]):
    """A place for one thing between two threads; its end comes after the last of them."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._slot: list[Half] = []
        self._ended = False

    def wait_until_empty(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._slot)

    def put(self, half: Half) -> None:
        with self._condition:
            self._slot.append(half)
            self._condition.notify_all()

    def take(self) -> list[Half]:
        """Wait for the next and return it in a list; an empty one after the end."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._slot) or self._ended)
            taken, self._slot = self._slot, []
            self._condition.notify_all()
            return taken

    def end(self) -> None:
        with self._condition:
            self._ended = True
            self._condition.notify_all()


class Worker(Generic[Item, Half]):
    """
    Takes each item of `mailbox` through `begin`, then through `end`, from `start` to `stop`.

    The two have a thread each, so that an item is begun while the one before is ended; each
    handles one item at a time, in their order. One more waits between them at most: before it
    takes an item the first thread waits until that place is empty, so that what it takes is the
    newest. Where `begin` returns None nothing is left to do.

    What either raises goes to `refuse`, from that thread, and counts the item as refused; both
    threads go on.
    """

    def __init__(
        self,
        mailbox: Mailbox[Item],
        begin: Callable[[Item], Half | None],
        end: Callable[[Half], None],
        refuse: Callable[[Exception], None],
    ) -> None:
        self._mailbox = mailbox
        self._begin = begin
        self._end = end
        self._refuse = refuse
        self._threads: list[Thread] = []

    def start(self) -> None:
        """Open the mailbox and begin."""
        self._mailbox.open()
        handover: _Handover[Half] = _Handover()
        self._threads = [
            Thread(target=work, args=(handover,), name=name, daemon=True)
            for name, work in (('perception', self._run_begin), ('publishing', self._run_end))
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Close the mailbox and wait until the items in hand are done; twice is fine."""
        self._mailbox.close()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _run_begin(self, handover: _Handover[Half]) -> None:
        while True:
            handover.wait_until_empty()
            item = self._mailbox.take()
            if item is None:
                handover.end()
                return
            half, refused = None, True
            try:
                half = self._begin(item)
                refused = False
            except Exception as error:
                self._refuse(error)
            if half is None:
                self._mailbox.finish(refused=refused)
            else:
                handover.put(half)

    def _run_end(self, handover: _Handover[Half]) -> None:
        while taken := handover.take():
            refused = True
            try:
                self._end(taken.pop())
                refused = False
            except Exception as error:
                self._refuse(error)
            finally:
                self._mailbox.finish(refused=refused)
