# SPDX-License-Identifier: Apache-2.0
"""Keep the engine busy on one thread while another reads frames and scores them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
import time

from mtl_perception.bags.frames import BagFrame, RefusedFrame
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.values import Frame, PerceptionMaps

# One at the engine, one that waits for it: more would cost memory and gain nothing.
_AHEAD = 2


@dataclass(frozen=True, eq=False)
class Perceived:
    """A frame of a recording and its maps; without maps `reason` says why."""

    entry: BagFrame | RefusedFrame
    decode_ms: float  # reading and decoding it
    maps: PerceptionMaps | None = None
    reason: str = ''
    perceive_ms: float = 0.0


def pipelined(
    frames: Iterator[BagFrame | RefusedFrame], perceive: Callable[[Frame], PerceptionMaps]
) -> Iterator[Perceived]:
    """
    Yield every frame in order with its maps.

    `perceive` runs on one thread of its own, one frame at a time; `frames` is read, and the
    results are used, on the caller's.
    """
    waiting: deque[tuple[Perceived, Future[tuple[PerceptionMaps, float]] | None]] = deque()
    executor = ThreadPoolExecutor(1, 'engine')
    try:
        while True:
            started = time.perf_counter()
            entry = next(frames, None)
            if entry is None:
                break
            decode_ms = (time.perf_counter() - started) * 1e3
            future = None
            if isinstance(entry, BagFrame):
                future = executor.submit(_timed, perceive, entry.frame)
            waiting.append((Perceived(entry, decode_ms), future))
            if len(waiting) > _AHEAD:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        executor.shutdown(cancel_futures=True)


def _timed(
    perceive: Callable[[Frame], PerceptionMaps], frame: Frame
) -> tuple[PerceptionMaps, float]:
    started = time.perf_counter()
    maps = perceive(frame)
    return maps, (time.perf_counter() - started) * 1e3


def _finished(
    begun: Perceived, future: Future[tuple[PerceptionMaps, float]] | None
) -> Perceived:
    if future is None:
        return begun
    try:
        maps, perceive_ms = future.result()
        return Perceived(begun.entry, begun.decode_ms, maps, perceive_ms=perceive_ms)
    except MtlPerceptionError as error:
        return Perceived(begun.entry, begun.decode_ms, reason=str(error))
