# SPDX-License-Identifier: Apache-2.0
"""Matching by stamp against a search over everything, and where recordings misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
import weakref

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mtl_perception.bags.stamps import HORIZON_NS, Match, match_stamps, Stamped
import pytest

TOLERANCE = 20_000_000
MS = 1_000_000


def stamped(stream: str, stamp_ns: int, recorded_ns: int | None = None) -> Stamped[str]:
    recorded = stamp_ns if recorded_ns is None else recorded_ns
    return Stamped(stream, stamp_ns, recorded, f'{stream}@{stamp_ns}')


def found(matches: list[Match[str]]) -> list[tuple[int, dict[str, int]]]:
    return [
        (match.reference.stamp_ns, {name: m.stamp_ns for name, m in match.partners.items()})
        for match in matches
    ]


stamps = st.lists(st.integers(0, 3000), max_size=25, unique=True).map(sorted)


@settings(max_examples=200, deadline=None)
@given(
    images=stamps,
    depths=stamps,
    labels=stamps,
    delays=st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400)),
)
def test_equals_a_search_over_the_whole_recording(
    images: list[int], depths: list[int], labels: list[int], delays: tuple[int, int, int]
) -> None:
    streams = {'image': images, 'depth': depths, 'label': labels}
    messages = [
        stamped(name, stamp * MS, (stamp + delay) * MS)
        for (name, entries), delay in zip(streams.items(), delays)
        for stamp in entries
    ]
    messages.sort(key=lambda message: message.recorded_ns)
    result = found(list(match_stamps(messages, 'image', ['depth', 'label'], TOLERANCE)))

    expected = []
    for image in images:
        partners = {}
        for name in ('depth', 'label'):
            near = [stamp for stamp in streams[name] if abs(stamp - image) * MS <= TOLERANCE]
            if near:
                partners[name] = min(near, key=lambda stamp: (abs(stamp - image), stamp)) * MS
        expected.append((image * MS, partners))
    assert result == expected


def test_no_frame_waits_for_a_stream_that_fell_silent() -> None:
    period = 33 * MS
    consumed = 0

    def recording() -> Iterator[Stamped[str]]:
        nonlocal consumed
        for index in range(300):
            consumed += 1
            yield stamped('image', index * period)
            if index < 10:
                yield stamped('depth', index * period)

    largest_backlog = 0
    for number, match in enumerate(match_stamps(recording(), 'image', ['depth'], TOLERANCE)):
        largest_backlog = max(largest_backlog, consumed - number)
        assert bool(match.partners) == (number < 10)
    assert number == 299
    assert largest_backlog <= HORIZON_NS / period + 2


def test_a_looped_recording_matches_in_every_turn() -> None:
    turns = [
        stamped(stream, index * 33 * MS, (turn * 100 + index) * 33 * MS)
        for turn in range(3)
        for index in range(100)
        for stream in ('image', 'depth')
    ]
    result = found(list(match_stamps(turns, 'image', ['depth'], 0)))
    assert len(result) == 300
    assert all(partners == {'depth': stamp} for stamp, partners in result)


@pytest.mark.parametrize('back_ms', [500, 1000, 3000])
def test_a_clock_that_is_turned_back_costs_no_partner(back_ms: int) -> None:
    """No pause in the recording; depth is stamped 0 to 5 ms after its image."""
    messages = []
    for index in range(60):
        recorded = index * 33 * MS
        stamp = 10**10 + recorded - (back_ms * MS if index >= 30 else 0)
        messages.append(Stamped('image', stamp, recorded, f'image {index}'))
        late = index % 6 * MS
        messages.append(Stamped('depth', stamp + late, recorded + late, f'depth {index}'))
    result = list(match_stamps(messages, 'image', ['depth'], TOLERANCE))
    assert [match.reference.payload for match in result] == [f'image {i}' for i in range(60)]
    partners = [match.partners['depth'].payload for match in result if match.partners]
    assert partners == [f'depth {i}' for i in range(60)]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_turn_equals_a_search_over_that_turn(data: st.DataObject) -> None:
    """Dropped frames, streams that are recorded late, and any number of jumps back."""
    periods = {'image': 33, 'depth': 33, 'label': data.draw(st.integers(10, 90))}
    delays = {name: data.draw(st.integers(0, 400)) for name in periods}
    turns = data.draw(st.lists(
        st.tuples(st.integers(200, 900), st.integers(150, 3500)), min_size=1, max_size=4
    ))  # fmt: skip
    messages = []
    start = recorded = 0
    for number, (length, back) in enumerate(turns):
        for name, period in periods.items():
            for stamp in range(start, start + length, period):
                if data.draw(st.integers(0, 4)):
                    stamp_ns = (stamp + data.draw(st.integers(0, 8))) * MS
                    at = (recorded + stamp - start + delays[name]) * MS
                    messages.append(Stamped(name, stamp_ns, at, number))
        recorded += length
        start += length - back
    messages.sort(key=lambda message: message.recorded_ns)
    streams = {name: [entry for entry in messages if entry.stream == name] for name in periods}
    for entries in streams.values():
        # Every stream has to show each jump, and nothing that looks like one.
        falls = [
            (before.payload, after.payload)
            for before, after in pairwise(entries)
            if after.stamp_ns < before.stamp_ns - TOLERANCE
        ]
        assume(falls == [(turn, turn + 1) for turn in range(len(turns) - 1)])
    expected = []
    for image in streams['image']:
        partners = {}
        for name in ('depth', 'label'):
            near = [
                (abs(entry.stamp_ns - image.stamp_ns), entry.stamp_ns)
                for entry in streams[name]
                if entry.payload == image.payload
                and abs(entry.stamp_ns - image.stamp_ns) <= TOLERANCE
            ]
            if near:
                partners[name] = min(near)[1]
        expected.append((image.stamp_ns, partners))
    assert found(list(match_stamps(messages, 'image', ['depth', 'label'], TOLERANCE))) == expected


def test_a_stream_that_was_silent_at_the_jump_is_found_again() -> None:
    """Depth twice a second does not fall when the clock is turned back by a third of one."""
    messages = []
    for index in range(300):
        recorded = index * 33 * MS
        stamp = 10**10 + recorded - (340 * MS if index >= 100 else 0)
        messages.append(Stamped('image', stamp, recorded, index))
        if index % 15 == 0:
            messages.append(Stamped('depth', stamp, recorded, index))
    matches = match_stamps(messages, 'image', ['depth'], 0)
    paired = [match.reference.payload for match in matches if match.partners]
    # Until 2 s after the jump it is not known which turn it is in.
    lost = range(105, 100 + 2000 // 33 + 1, 15)
    assert paired == [index for index in range(0, 300, 15) if index not in lost]


def test_partners_do_not_pile_up_when_the_reference_falls_silent() -> None:
    kept: list[weakref.ref[Stamped[str]]] = []
    most = 0

    def recording() -> Iterator[Stamped[str]]:
        nonlocal most
        yield stamped('image', 0)
        for index in range(1, 1000):
            message = stamped('depth', index * 33 * MS)
            kept.append(weakref.ref(message))
            yield message
            del message
            most = max(most, sum(reference() is not None for reference in kept))

    assert len(list(match_stamps(recording(), 'image', ['depth'], TOLERANCE))) == 1
    assert most <= 2 * HORIZON_NS / (33 * MS) + 3


def test_without_other_streams_every_message_comes_at_once() -> None:
    messages = [stamped('image', index) for index in range(5)]
    assert found(list(match_stamps(messages, 'image', [], 0))) == [(i, {}) for i in range(5)]
