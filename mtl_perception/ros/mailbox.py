# SPDX-License-Identifier: Apache-2.0
"""One slot between the subscription and the worker: the newest frame wins, losses are counted."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Condition
from typing import Generic, TypeVar

Item = TypeVar('Item')


@dataclass(frozen=True)
class MailboxCounts:
    """What became of the items put so far: `received` is the sum of all the others."""

    received: int = 0
    processed: int = 0
    dropped: int = 0  # replaced by a newer one, or left over when the mailbox was closed
    refused: int = 0
    in_flight: int = 0  # waiting in the slot, or taken and not finished


class Mailbox(Generic[Item]):
    """
    A queue of length one for one producer and one taker.

    `put` never waits: an item still in the slot is dropped for the new one, so that the taker
    always gets the latest. For each `take` somebody says with `finish` how the item ended, and
    every item put is accounted for exactly once; several may be in hand, and any thread may
    finish one.
    """

    def __init__(self) -> None:
        self._condition = Condition()
        self._slot: list[Item] = []
        self._in_hand = 0
        self._closed = False
        self._received = self._processed = self._dropped = self._refused = 0

    def put(self, item: Item) -> None:
        """Offer an item; a closed mailbox counts it as dropped."""
        with self._condition:
            self._received += 1
            if self._closed:
                self._dropped += 1
                return
            self._dropped += len(self._slot)
            self._slot = [item]
            self._condition.notify()

    def take(self, timeout_s: float | None = None) -> Item | None:
        """Wait for an item and take it; None when the time is over or the mailbox is closed."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._slot) or self._closed, timeout_s)
            if not self._slot:
                return None
            self._in_hand += 1
            return self._slot.pop()

    def finish(self, *, refused: bool = False) -> None:
        """
        Account for an item that was taken.

        Raises
        ------
        RuntimeError
            If none is in hand.

        """
        with self._condition:
            if not self._in_hand:
                raise RuntimeError('finish() without an item in hand; take() one first')
            self._in_hand -= 1
            if refused:
                self._refused += 1
            else:
                self._processed += 1

    def close(self) -> None:
        """Drop what waits and wake the taker; `open` lets items in again."""
        with self._condition:
            self._closed = True
            self._dropped += len(self._slot)
            self._slot = []
            self._condition.notify_all()

    def open(self) -> None:
        """Let items in again after `close`; the counts go on."""
        with self._condition:
            self._closed = False

    def counts(self) -> MailboxCounts:
        """Return all counts of one and the same moment."""
        with self._condition:
            return MailboxCounts(
                received=self._received,
                processed=self._processed,
                dropped=self._dropped,
                refused=self._refused,
                in_flight=len(self._slot) + self._in_hand,
            )
