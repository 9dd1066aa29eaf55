# SPDX-License-Identifier: Apache-2.0
"""Bring together the messages of several topics that were taken at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Payload = TypeVar('Payload')

# How long a message waits for its partners, and how far stamps may run ahead before they are
# taken for another turn of a looped recording.
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
    with rising stamps; a stream that falls silent delays the others by at most 2 s of recorded
    time, so memory stays bounded. Message-filters' ApproximateTime drops what has no partner;
    here every frame of the reference counts.
    """
    waiting: deque[Stamped[Payload]] = deque()
    buffers: dict[str, deque[Stamped[Payload]]] = {stream: deque() for stream in others}
    for message in messages:
        # What was recorded so long ago belongs to another turn of a looped recording, however
        # near its stamp is; those that still wait for a partner take it first.
        if any(_is_stale(buffer, message) for buffer in buffers.values()):
            while waiting and message.recorded_ns - waiting[0].recorded_ns > HORIZON_NS:
                yield _take(waiting.popleft(), buffers, tolerance_ns)
            for buffer in buffers.values():
                while _is_stale(buffer, message):
                    buffer.popleft()
        if message.stream == reference:
            waiting.append(message)
        elif message.stream in buffers:
            buffer = buffers[message.stream]
            if buffer and message.stamp_ns < buffer[-1].stamp_ns - HORIZON_NS:
                buffer.clear()
            buffer.append(message)
        while waiting and (
            message.recorded_ns - waiting[0].recorded_ns > HORIZON_NS
            or all(_is_settled(waiting[0].stamp_ns, buffer) for buffer in buffers.values())
        ):
            yield _take(waiting.popleft(), buffers, tolerance_ns)
    while waiting:
        yield _take(waiting.popleft(), buffers, tolerance_ns)


def _is_stale(buffer: deque[Stamped[Payload]], message: Stamped[Payload]) -> bool:
    return bool(buffer) and message.recorded_ns - buffer[0].recorded_ns > 2 * HORIZON_NS


def _is_settled(stamp_ns: int, buffer: deque[Stamped[Payload]]) -> bool:
    """Whether no later message of the stream can be nearer than what is buffered."""
    return any(0 <= entry.stamp_ns - stamp_ns <= HORIZON_NS for entry in buffer)


def _take(
    reference: Stamped[Payload],
    buffers: dict[str, deque[Stamped[Payload]]],
    tolerance_ns: int,
) -> Match[Payload]:
    partners = {}
    for stream, buffer in buffers.items():
        nearest = min(
            buffer, key=lambda entry: abs(entry.stamp_ns - reference.stamp_ns), default=None
        )
        if nearest and abs(nearest.stamp_ns - reference.stamp_ns) <= tolerance_ns:
            partners[stream] = nearest
        # The next reference is not earlier, so what lies before this one's reach is spent.
        while buffer and buffer[0].stamp_ns < reference.stamp_ns - tolerance_ns:
            buffer.popleft()
    return Match(reference, partners)
