# SPDX-License-Identifier: Apache-2.0
"""The mailbox against a plain model of it, and between two threads."""

from __future__ import annotations

from dataclasses import astuple
from threading import Thread
import time

from hypothesis import given
from hypothesis import strategies as st
from mtl_perception.ros.mailbox import Mailbox, MailboxCounts
import pytest


@given(st.lists(st.sampled_from(['put', 'take', 'finish', 'refuse', 'close', 'open'])))
def test_the_newest_wins_and_every_item_is_counted_once(steps: list[str]) -> None:
    mailbox: Mailbox[int] = Mailbox()
    fates: dict[int, str] = {}
    waiting: list[int] = []
    in_hand: list[int] = []
    closed = False
    for number, step in enumerate(steps):
        if step == 'put':
            mailbox.put(number)
            if closed:
                fates[number] = 'dropped'
            else:
                fates.update(dict.fromkeys(waiting, 'dropped'))
                waiting = [number]
        elif step == 'take':
            taken = mailbox.take(timeout_s=0)
            assert taken == (waiting[0] if waiting else None)
            in_hand, waiting = in_hand + waiting, []
        elif step in ('finish', 'refuse') and in_hand:
            mailbox.finish(refused=step == 'refuse')
            fates[in_hand.pop(0)] = 'processed' if step == 'finish' else 'refused'
        elif step == 'close':
            mailbox.close()
            closed = True
            fates.update(dict.fromkeys(waiting, 'dropped'))
            waiting = []
        elif step == 'open':
            mailbox.open()
            closed = False
        settled = list(fates.values())
        expected = MailboxCounts(
            received=steps[: number + 1].count('put'),
            processed=settled.count('processed'),
            dropped=settled.count('dropped'),
            refused=settled.count('refused'),
            in_flight=len(waiting) + len(in_hand),
        )
        counts = mailbox.counts()
        assert counts == expected
        received, *rest = astuple(counts)
        assert received == sum(rest)


def test_a_slow_taker_gets_the_latest_and_the_sums_are_exact() -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken = []

    def work() -> None:
        while (item := mailbox.take()) is not None:
            taken.append(item)
            time.sleep(0.002)
            mailbox.finish(refused=item % 7 == 0)

    worker = Thread(target=work, daemon=True)
    worker.start()
    for number in range(2000):
        mailbox.put(number)
        if number % 100 == 0:
            time.sleep(0.001)
    time.sleep(0.05)
    assert taken[-1] == 1999  # the last one is never the one that is dropped
    mailbox.close()
    worker.join(5)
    assert not worker.is_alive()
    assert taken == sorted(taken)
    counts = mailbox.counts()
    assert counts.received == 2000
    assert counts.processed + counts.refused == len(taken)
    assert counts.refused == sum(item % 7 == 0 for item in taken)
    assert counts.dropped == 2000 - len(taken)
    assert counts.in_flight == 0


def test_take_waits_for_an_item_and_no_longer_than_it_should() -> None:
    mailbox: Mailbox[str] = Mailbox()
    start = time.monotonic()
    assert mailbox.take(timeout_s=0.05) is None
    assert time.monotonic() - start >= 0.05
    Thread(target=lambda: (time.sleep(0.05), mailbox.put('late'))).start()
    assert mailbox.take(timeout_s=5) == 'late'


def test_misuse_is_refused() -> None:
    mailbox: Mailbox[int] = Mailbox()
    with pytest.raises(RuntimeError, match='take'):
        mailbox.finish()
    mailbox.put(1)
    mailbox.take()
    mailbox.finish()
    with pytest.raises(RuntimeError, match='take'):
        mailbox.finish()
