# SPDX-License-Identifier: Apache-2.0
"""Matching by stamp against a search over everything, and where recordings misbehave."""

from __future__ import annotations

from collections.abc import Iterator
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.bags.stamps import HORIZON_NS, Match, match_stamps, Stamped

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
