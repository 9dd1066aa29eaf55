# SPDX-License-Identifier: Apache-2.0
"""Bring together the messages of several topics that were taken at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
import struct
from typing import Any, Generic, TypeVar

Payload = TypeVar('Payload')

# How long a message waits for its partners, and after how long every stream must have followed a
# clock that was turned back.
HORIZON_NS = 2_000_000_000


@dataclass(frozen=True)
class Stamped(Generic[Payload]):
    """A message of one stream: when it was taken (header) and when it was recorded (bag)."""

    stream: str
    stamp_ns: int
    recorded_ns: int
    payload: Payload


@dataclass(frozen=True)
class Match(Generic[Payload]):
    """A message of the reference stream with the nearest one of each other stream."""

    reference: Stamped[Payload]
    partners: dict[str, Stamped[Payload]]  # by stream; a stream without a partner is absent


@dataclass(frozen=True)
class _Entry(Generic[Payload]):
    """A message and which turn of the clock it belongs to."""

    turn: int
    message: Stamped[Payload]


_Buffers = dict[str, deque[_Entry[Payload]]]


def header_stamp_ns(data: bytes) -> int | None:
    """Return the stamp of the std_msgs/Header that a CDR message begins with; None if cut off."""
    if len(data) < 12:
        return None
    order = '<' if data[1] & 1 else '>'
    seconds, nanoseconds = struct.unpack_from(f'{order}iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def match_stamps(
    messages: Iterable[Stamped[Payload]],
    reference: str,
    others: Collection[str],
    tolerance_ns: int,
) -> Iterator[Match[Payload]]:
    """
    Yield every message of `reference`, in order, with its partners from `others`.

    A partner is the message of that stream whose stamp is nearest, at most `tolerance_ns`
    away (the earlier of two equally near). `messages` come in recorded order, each stream
    with rising stamps. Where the stamps of a stream fall by more than `tolerance_ns` the clock
    was turned back (a looped recording, a simulation that was reset): a new turn begins, and
    messages are partners only within a turn. A stream that was silent then and does not fall
    itself is taken to be in the new turn 2 s later. A stream that falls silent delays the others
    by at most 2 s of recorded time, so memory stays bounded. Message-filters' ApproximateTime
    drops what has no partner; here every frame of the reference counts.
    """
    waiting: deque[_Entry[Payload]] = deque()
    buffers: _Buffers[Payload] = {stream: deque() for stream in others}
    turns = _Turns(tolerance_ns)
    for message in messages:
        # What was recorded so long ago belongs to another turn of a looped recording, however
        # near its stamp is; those that still wait for a partner take it first.
        if any(_is_stale(buffer, message) for buffer in buffers.values()):
            while waiting and _has_waited(waiting[0], message):
                yield _take(waiting.popleft(), buffers, tolerance_ns)
            for buffer in buffers.values():
                while _is_stale(buffer, message):
                    buffer.popleft()
        if message.stream == reference:
            waiting.append(_Entry(turns.of(message), message))
        elif message.stream in buffers:
            buffers[message.stream].append(_Entry(turns.of(message), message))
        while waiting and (
            _has_waited(waiting[0], message)
            or all(_is_settled(waiting[0], buffer) for buffer in buffers.values())
        ):
            yield _take(waiting.popleft(), buffers, tolerance_ns)
    while waiting:
        yield _take(waiting.popleft(), buffers, tolerance_ns)


class _Turns:
    """Counts, stream by stream, how often the clock was turned back."""

    def __init__(self, tolerance_ns: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._streams: dict[str, tuple[int, int]] = {}  # last stamp, turn
        self._newest = 0
        self._newest_since_ns = 0  # of recording

    def of(self, message: Stamped[Any]) -> int:
        """Return the turn of the next message of its stream."""
        last_ns, turn = self._streams.get(message.stream, (message.stamp_ns, 0))
        if message.stamp_ns < last_ns - self._tolerance_ns:
            turn += 1
        elif message.recorded_ns - self._newest_since_ns > HORIZON_NS:
            turn = max(turn, self._newest)
        if turn > self._newest:
            self._newest, self._newest_since_ns = turn, message.recorded_ns
        self._streams[message.stream] = (message.stamp_ns, turn)
        return turn


def _has_waited(entry: _Entry[Payload], message: Stamped[Payload]) -> bool:
    return message.recorded_ns - entry.message.recorded_ns > HORIZON_NS


def _is_stale(buffer: deque[_Entry[Payload]], message: Stamped[Payload]) -> bool:
    return bool(buffer) and message.recorded_ns - buffer[0].message.recorded_ns > 2 * HORIZON_NS


def _is_settled(reference: _Entry[Payload], buffer: deque[_Entry[Payload]]) -> bool:
    """Whether no later message of the stream can be nearer than what is buffered."""
    return any(
        entry.turn > reference.turn
        or (
            entry.turn == reference.turn
            and entry.message.stamp_ns >= reference.message.stamp_ns
        )
        for entry in buffer
    )


def _take(
    reference: _Entry[Payload], buffers: _Buffers[Payload], tolerance_ns: int
) -> Match[Payload]:
    stamp_ns = reference.message.stamp_ns
    # The next reference of this turn may be earlier by the tolerance, but not by more.
    spent = (reference.turn, stamp_ns - 2 * tolerance_ns)
    partners = {}
    for stream, buffer in buffers.items():
        nearest = min(
            (entry.message for entry in buffer if entry.turn == reference.turn),
            key=lambda message: abs(message.stamp_ns - stamp_ns),
            default=None,
        )
        if nearest and abs(nearest.stamp_ns - stamp_ns) <= tolerance_ns:
            partners[stream] = nearest
        while buffer and (buffer[0].turn, buffer[0].message.stamp_ns) < spent:
            buffer.popleft()
    return Match(reference.message, partners)
