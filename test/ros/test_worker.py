# SPDX-License-Identifier: Apache-2.0
"""The worker outlives what its work raises, and stops when told."""

from __future__ import annotations

import threading
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


def test_an_item_that_fails_is_refused_and_the_next_is_taken() -> None:
    mailbox: Mailbox[int] = Mailbox()
    done: list[int] = []
    errors: list[str] = []

    def process(item: int) -> None:
        if item == 1:
            raise ValueError(f'bad {item}')
        done.append(item)

    worker = Worker(mailbox, process, lambda error: errors.append(str(error)))
    worker.start()
    for number in range(4):
        mailbox.put(number)
        wait_for_settled(mailbox, number + 1)
    worker.stop()
    assert done == [0, 2, 3]
    assert errors == ['bad 1']
    counts = mailbox.counts()
    assert (counts.processed, counts.refused, counts.dropped) == (3, 1, 0)


def test_stop_waits_for_the_item_in_hand_and_start_goes_on() -> None:
    mailbox: Mailbox[int] = Mailbox()
    begun, done = threading.Event(), []

    def process(item: int) -> None:
        begun.set()
        time.sleep(0.05)
        done.append(item)

    worker = Worker(mailbox, process, lambda error: None)
    worker.start()
    mailbox.put(1)
    assert begun.wait(5)
    mailbox.put(2)  # waits while the first is in hand
    worker.stop()
    assert done == [1]
    mailbox.put(3)  # nobody is there
    worker.stop()
    worker.start()
    mailbox.put(4)
    wait_for_settled(mailbox, 4)
    worker.stop()
    assert done == [1, 4]
    assert mailbox.counts().dropped == 2
    assert not [one for one in threading.enumerate() if one.name == 'perception']
