# SPDX-License-Identifier: Apache-2.0
"""The one thread that decodes, perceives and publishes, apart from the executor's."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Generic, TypeVar

from mtl_perception.ros.mailbox import Mailbox

Item = TypeVar('Item')


class Worker(Generic[Item]):
    """
    Calls `process` on each item of `mailbox`, one at a time, from `start` to `stop`.

    What `process` raises goes to `refuse` and counts the item as refused; the thread goes on.
    """

    def __init__(
        self,
        mailbox: Mailbox[Item],
        process: Callable[[Item], None],
        refuse: Callable[[Exception], None],
    ) -> None:
        self._mailbox = mailbox
        self._process = process
        self._refuse = refuse
        self._thread: Thread | None = None

    def start(self) -> None:
        """Open the mailbox and begin."""
        self._mailbox.open()
        self._thread = Thread(target=self._run, name='perception', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the mailbox and wait until the item in hand is done; stopping twice is fine."""
        self._mailbox.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            item = self._mailbox.take()
            if item is None:
                return
            refused = True
            try:
                self._process(item)
                refused = False
            except Exception as error:
                self._refuse(error)
            finally:
                self._mailbox.finish(refused=refused)
