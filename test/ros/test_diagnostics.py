# SPDX-License-Identifier: Apache-2.0
"""What the node says about itself, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip('rclpy')
from mtl_perception.inference.serving import EngineStatus
from mtl_perception.ros.diagnostics import diagnose, FrameTimings, key_values, Snapshot
from mtl_perception.ros.mailbox import MailboxCounts

pytestmark = pytest.mark.ros
OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'
BEFORE = Snapshot(
    state='active',
    counts=MailboxCounts(received=100, processed=90, dropped=6, refused=4),
    is_heard=True,
    image_topic='/front/image',
    image_timeout_s=2.0,
)
RUNNING = replace(
    BEFORE,
    counts=MailboxCounts(received=114, processed=100, dropped=8, refused=4, in_flight=2),
)
REFUSING = MailboxCounts(received=110, processed=90, dropped=6, refused=14)
SOME_REFUSED = MailboxCounts(received=110, processed=97, dropped=6, refused=7)


@pytest.mark.parametrize(
    ('now', 'level', 'text'),
    [
        (RUNNING, OK, 'running at 5.0 Hz'),
        (replace(RUNNING, state='inactive'), OK, 'inactive'),
        (
            Snapshot('unconfigured', transition_problem='cannot configure: no model'),
            ERROR,
            'unconfigured: cannot configure: no model',
        ),
        (replace(RUNNING, is_heard=False), OK, 'idle: nobody subscribes to an output'),
        (
            replace(RUNNING, silence_s=2.5),
            ERROR,
            'no image on /front/image for 2.5 s; is the camera running, and `image` remapped to '
            'its topic?',
        ),
        (
            replace(RUNNING, silence_s=2.5, mismatch='incompatible QoS (RELIABILITY)'),
            ERROR,
            'no image on /front/image for 2.5 s; incompatible QoS (RELIABILITY)',
        ),
        # Nobody listening is no excuse for a camera that is gone.
        (replace(RUNNING, silence_s=2.5, is_heard=False), ERROR, None),
        (
            replace(RUNNING, counts=REFUSING, last_error='step 3 lies'),
            ERROR,
            'every frame is refused: step 3 lies',
        ),
        (
            replace(RUNNING, counts=SOME_REFUSED, last_error='step 3 lies'),
            WARN,
            '3 frames refused: step 3 lies',
        ),
        (replace(RUNNING, camera_problem='K is zero'), WARN, 'no metric depth: K is zero'),
        (
            replace(RUNNING, camera_problem='K is zero', assumed_focal_px=520.5),
            WARN,
            'depth by the assumed focal length of 520.5 px: K is zero',
        ),
        (replace(RUNNING, assumed_focal_px=520.5), OK, 'running at 5.0 Hz'),
        (replace(RUNNING, mismatch='incompatible QoS'), WARN, 'incompatible QoS'),
        # Whoever cannot hear an output is not counted among those who do.
        (
            replace(RUNNING, mismatch='incompatible QoS', is_heard=False),
            WARN,
            'incompatible QoS',
        ),
        (
            replace(RUNNING, engine_status=EngineStatus('torch', 'tensorrt', 'building', 41.7)),
            OK,
            'running at 5.0 Hz on torch while tensorrt is built, 42 s',
        ),
        (
            replace(
                RUNNING, engine_status=EngineStatus('torch', 'tensorrt', 'failed', 3.0, 'no GPU')
            ),
            WARN,
            'running at 5.0 Hz; torch serves instead of tensorrt: no GPU',
        ),
    ],
)
def test_level_and_message(now: Snapshot, level: bytes, text: str | None) -> None:
    assert diagnose(now, BEFORE, elapsed_s=2.0)[0] == level
    if text is not None:
        assert diagnose(now, BEFORE, elapsed_s=2.0)[1] == text


def test_an_incompatible_qos_is_told_as_long_as_it_is_known() -> None:
    unheard = replace(RUNNING, mismatch='incompatible QoS')
    assert diagnose(unheard, unheard, elapsed_s=1.0) == (WARN, 'incompatible QoS')
    assert diagnose(RUNNING, unheard, elapsed_s=1.0)[0] == OK


def test_received_is_always_the_sum_of_the_fates() -> None:
    values = key_values(replace(RUNNING, medians_ms={'engine': 41.237}), BEFORE, elapsed_s=2.0)
    assert values['rate_hz'] == '5.00'
    assert values['engine_ms'] == '41.24'
    assert [int(values[name]) for name in ('received', 'processed', 'dropped', 'refused')] == [
        112, 100, 8, 4,
    ]  # fmt: skip
    assert values['in_flight'] == '2'


def test_the_engine_that_serves_is_named_with_the_reason() -> None:
    status = EngineStatus('torch', 'tensorrt', 'building', 41.72, 'it is not in the cache yet')
    values = key_values(
        replace(RUNNING, engine='torch', engine_status=status), BEFORE, elapsed_s=2.0
    )
    assert values['engine'] == 'torch'
    assert values['engine_wanted'] == 'tensorrt'
    assert values['engine_state'] == 'building'
    assert values['engine_build_s'] == '41.7'
    assert values['engine_why'] == 'it is not in the cache yet'


def test_medians_are_of_the_latest_frames() -> None:
    timings = FrameTimings()
    for value in range(1000):
        timings.add({'engine': float(value), 'publish': 7.0})
    assert timings.medians() == {'engine': 949.5, 'publish': 7.0}
    timings.clear()
    assert timings.medians() == {}
