# SPDX-License-Identifier: Apache-2.0
"""Problems are told at most once a period, each kind for itself."""

from __future__ import annotations

from mtl_perception.ros.problems import ProblemLog


def test_each_kind_is_told_once_a_period_and_the_rest_is_counted() -> None:
    now = 0.0
    lines: list[tuple[float, str]] = []
    log = ProblemLog(lambda text: lines.append((now, text)), 1.0, clock=lambda: now)
    assert log.last == ''
    for tick in range(31):  # 3 s at 10 Hz
        now = tick / 10
        log.report('frame', f'bad {tick}')
        if tick == 5:
            log.report('camera', 'no camera')
            assert log.last == 'no camera'
    assert lines == [
        (0.0, 'bad 0'),
        (0.5, 'no camera'),
        (1.0, 'bad 10 (9 more like this since)'),
        (2.0, 'bad 20 (9 more like this since)'),
        (3.0, 'bad 30 (9 more like this since)'),
    ]
    assert log.last == 'bad 30'
