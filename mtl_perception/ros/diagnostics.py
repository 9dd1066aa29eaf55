# SPDX-License-Identifier: Apache-2.0
"""How the node fares, once a second on /diagnostics (REP-107)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from mtl_perception.inference.serving import EngineStatus
from mtl_perception.ros import qos
from mtl_perception.ros.mailbox import MailboxCounts
import numpy as np
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

PERIOD_S = 1.0
_WINDOW = 100  # frames that medians are taken of


class FrameTimings:
    """The latest times by stage, in milliseconds; added by one thread, read by another."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._windows: dict[str, deque[float]] = {}

    def add(self, timings_ms: Mapping[str, float]) -> None:
        """Remember the times of one frame."""
        with self._lock:
            for stage, value in timings_ms.items():
                self._windows.setdefault(stage, deque(maxlen=_WINDOW)).append(value)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._windows.clear()

    def medians(self) -> dict[str, float]:
        """Return the median of each stage."""
        with self._lock:
            windows = {stage: list(window) for stage, window in self._windows.items()}
        return {stage: float(np.median(values)) for stage, values in windows.items()}


@dataclass(frozen=True)
class Snapshot:
    """The state of the node at one moment, all that a diagnosis needs."""

    state: str  # of the lifecycle: unconfigured, inactive, active, finalized
    engine: str = ''
    engine_status: EngineStatus | None = None
    model: str = ''
    counts: MailboxCounts = field(default_factory=MailboxCounts)
    unheard: int = 0  # frames not even taken, as nobody subscribed to an output
    is_heard: bool = False
    image_topic: str = ''
    silence_s: float = 0.0  # since the last image, or since activation
    image_timeout_s: float = float('inf')
    camera_problem: str = ''  # why there is no camera of the image
    assumed_focal_px: float | None = None  # what depth goes by then; None = there is no depth
    transition_problem: str = ''
    mismatch: str = ''  # the last incompatible QoS since activation
    last_error: str = ''
    medians_ms: Mapping[str, float] = field(default_factory=dict)


def diagnose(now: Snapshot, before: Snapshot, elapsed_s: float) -> tuple[bytes, str]:
    """
    Return level and message.

    ERROR: no output comes out that somebody waits for. WARN: outputs come, but fewer or other
    than asked for. OK: all well, or nothing to do.
    """
    if now.state != 'active':
        if now.transition_problem:
            return DiagnosticStatus.ERROR, f'{now.state}: {now.transition_problem}'
        return DiagnosticStatus.OK, now.state
    if now.silence_s > now.image_timeout_s:
        reason = now.mismatch or 'is the camera running, and `image` remapped to its topic?'
        return (
            DiagnosticStatus.ERROR,
            f'no image on {now.image_topic} for {now.silence_s:.1f} s; {reason}',
        )
    processed = now.counts.processed - before.counts.processed
    refused = now.counts.refused - before.counts.refused
    if refused and not processed:
        return DiagnosticStatus.ERROR, f'every frame is refused: {now.last_error}'
    if refused:
        return DiagnosticStatus.WARN, f'{refused} frames refused: {now.last_error}'
    # Before the next: who cannot hear an output is not among its subscribers.
    if now.mismatch:
        return DiagnosticStatus.WARN, now.mismatch
    if not now.is_heard:
        return DiagnosticStatus.OK, 'idle: nobody subscribes to an output'
    if now.camera_problem:
        consequence = 'no metric depth'
        if now.assumed_focal_px is not None:
            consequence = f'depth by the assumed focal length of {now.assumed_focal_px:g} px'
        return DiagnosticStatus.WARN, f'{consequence}: {now.camera_problem}'
    text, status = f'running at {processed / elapsed_s:.1f} Hz', now.engine_status
    if status is not None and status.state == 'failed':
        reason = f'{status.serving} serves instead of {status.wanted}: {status.why}'
        return DiagnosticStatus.WARN, f'{text}; {reason}'
    if status is not None and status.state in ('opening', 'building'):
        verb = 'opened' if status.state == 'opening' else 'built'
        text += f' on {status.serving} while {status.wanted} is {verb}, {status.elapsed_s:.0f} s'
    return DiagnosticStatus.OK, text


def key_values(now: Snapshot, before: Snapshot, elapsed_s: float) -> dict[str, str]:
    """
    Return what stands beside the message.

    `received` counts the frames whose fate is known, so that it is always exactly
    `processed + dropped + refused`; up to four more are `in_flight`.
    """
    counts = now.counts
    processed = counts.processed - before.counts.processed
    values = {
        'state': now.state,
        'engine': now.engine,
        **_engine_values(now.engine_status),
        'model': now.model,
        'rate_hz': f'{processed / elapsed_s:.2f}',
        'received': str(counts.received - counts.in_flight),
        'processed': str(counts.processed),
        'dropped': str(counts.dropped),
        'refused': str(counts.refused),
        'in_flight': str(counts.in_flight),
        'unheard': str(now.unheard),
    }
    for stage, median in now.medians_ms.items():
        values[f'{stage}_ms'] = f'{median:.2f}'
    values['last_error'] = now.last_error
    return values


def _engine_values(status: EngineStatus | None) -> dict[str, str]:
    if status is None:
        return {}
    return {
        'engine_wanted': status.wanted,
        'engine_state': status.state,
        'engine_build_s': f'{status.elapsed_s:.1f}',
        'engine_why': status.why,
    }


class DiagnosticsPublisher:
    """
    Publishes what `snapshot` says once a second, in every lifecycle state.

    The timer runs on the steady clock: a simulation that stands still is still reported.
    """

    def __init__(self, node: Node, snapshot: Callable[[], Snapshot]) -> None:
        self._node = node
        self._snapshot = snapshot
        self._before = snapshot()
        self._published = time.monotonic()
        self._publisher = node.create_publisher(
            DiagnosticArray, '/diagnostics', qos.diagnostics()
        )
        self._timer = node.create_timer(
            PERIOD_S, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _publish(self) -> None:
        now, moment = self._snapshot(), time.monotonic()
        elapsed = max(moment - self._published, 1e-3)
        level, text = diagnose(now, self._before, elapsed)
        status = DiagnosticStatus(
            level=level,
            name=f'{self._node.get_name()}: perception',
            message=text,
            hardware_id='',
            values=[
                KeyValue(key=key, value=value)
                for key, value in key_values(now, self._before, elapsed).items()
            ],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
        self._before, self._published = now, moment
