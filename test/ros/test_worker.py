# SPDX-License-Identifier: Apache-2.0
"""The worker outlives what its work raises, overlaps its halves, and stops when told."""

from __future__ import annotations

import threading
from threading import Event
import time

from mtl_perception.ros.mailbox import Mailbox
from mtl_perception.ros.worker import Worker


def wait_for_settled(mailbox: Mailbox[int], count: int) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        counts = mailbox.counts()
        if counts.received - counts.in_flight >= count:
            return
        time.sleep(0.001)
    raise AssertionError(mailbox.counts())


def test_an_item_that_fails_in_either_half_is_refused_and_the_next_is_taken() -> None:
    mailbox: Mailbox[int] = Mailbox()
    done: list[str] = []
    errors: list[str] = []

    def begin(item: int) -> str | None:
        if item == 1:
            raise ValueError(f'bad {item}')
        return None if item == 3 else f'half {item}'

    def end(half: str) -> None:
        if half == 'half 2':
            raise ValueError(f'bad {half}')
        done.append(half)

    worker = Worker(mailbox, begin, end, lambda error: errors.append(str(error)))
    worker.start()
    for number in range(6):
        mailbox.put(number)
        wait_for_settled(mailbox, number + 1)
    worker.stop()
    assert done == ['half 0', 'half 4', 'half 5']
    assert errors == ['bad 1', 'bad half 2']
    counts = mailbox.counts()
    assert (counts.processed, counts.refused, counts.dropped) == (4, 2, 0)


def test_the_next_is_begun_while_the_last_is_ended_and_the_newest_is_taken_late() -> None:
    mailbox: Mailbox[int] = Mailbox()
    begun: list[int] = []
    ended: list[int] = []
    was_begun = {number: Event() for number in range(10)}
    go_on = Event()

    def begin(item: int) -> int:
        begun.append(item)
        was_begun[item].set()
        return item

    def end(half: int) -> None:
        assert go_on.wait(5)
        ended.append(half)

    worker = Worker(mailbox, begin, end, lambda error: None)
    worker.start()
    mailbox.put(0)
    assert was_begun[0].wait(5)
    deadline = time.monotonic() + 5
    while mailbox.counts().in_flight != 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    # The first is being ended and does not get on: the second is begun all the same.
    mailbox.put(1)
    assert was_begun[1].wait(5)
    for number in (2, 3, 4):
        mailbox.put(number)
        time.sleep(0.02)
    # No third: it waits in the mailbox, where newer ones replace it.
    assert begun == [0, 1]
    counts = mailbox.counts()
    assert (counts.in_flight, counts.dropped, counts.processed) == (3, 2, 0)
    go_on.set()
    wait_for_settled(mailbox, 5)
    worker.stop()
    assert begun == ended == [0, 1, 4]
    counts = mailbox.counts()
    assert (counts.processed, counts.dropped, counts.in_flight) == (3, 2, 0)


def test_items_end_in_the_order_in_which_they_came() -> None:
    mailbox: Mailbox[int] = Mailbox()
    ended: list[int] = []

    def end(half: int) -> None:
        time.sleep(0.002 * (half % 3))
        ended.append(half)

    worker = Worker(mailbox, lambda item: item, end, lambda error: None)
    worker.start()
    for number in range(1, 200):
        mailbox.put(number)
        time.sleep(0.001)
    worker.stop()
    assert len(ended) > 10
    assert ended == sorted(set(ended))
    counts = mailbox.counts()
    assert counts.processed == len(ended)
    assert counts.processed + counts.dropped == counts.received == 199


def test_stop_drains_both_halves_and_start_goes_on() -> None:
    mailbox: Mailbox[int] = Mailbox()
    begun = {number: Event() for number in range(6)}
    done: list[int] = []

    def begin(item: int) -> int:
        begun[item].set()
        return item

    def end(half: int) -> None:
        time.sleep(0.05)
        done.append(half)

    worker = Worker(mailbox, begin, end, lambda error: None)
    worker.start()
    for number in (1, 2):
        mailbox.put(number)
        assert begun[number].wait(5)
    mailbox.put(3)  # waits while the others are in hand
    worker.stop()
    assert done == [1, 2]
    mailbox.put(4)  # nobody is there
    worker.stop()
    worker.start()
    mailbox.put(5)
    wait_for_settled(mailbox, 5)
    worker.stop()
    assert done == [1, 2, 5]
    assert mailbox.counts().dropped == 2
    names = {one.name for one in threading.enumerate()}
    assert not names & {'perception', 'publishing'}
