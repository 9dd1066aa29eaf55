# SPDX-License-Identifier: Apache-2.0
"""A replay that goes on shows the frames that it would have shown without the interruption."""

from __future__ import annotations

from mtl_perception.evaluation.picture_choice import (
    frames_for_pictures,
    slider_step,
    stretch_length,
)
from mtl_perception.evaluation.report.extremes import Extremes
from mtl_perception.evaluation.report.run_record import FrameStrip
import numpy as np
import pytest


def shown(scores: list[float], frames: list[int], total: int) -> tuple[list[int], list[int]]:
    """Return the worst and the best frames after these frames were looked at."""
    extremes = Extremes(total)
    for index in frames:
        if extremes.wants(index, scores[index]):
            extremes.add(index, scores[index], FrameStrip(index, 0, '', ()))
    return [one.index for one in extremes.worst], [one.index for one in extremes.best]


@pytest.mark.parametrize(('total', 'stopped'), [(400, 250), (7, 3), (161, 161), (1000, 1)])
def test_the_pictures_are_those_of_a_replay_without_interruption(total: int, stopped: int) -> None:
    random = np.random.default_rng(total)
    scores = random.normal(size=total).tolist()
    refused = set(random.choice(total, total // 10, replace=False).tolist())
    seen = [index for index in range(total) if index not in refused]
    rows = [
        {'refused': 'broken' if index in refused else '', 'depth.abs_rel': str(scores[index])}
        if index not in refused else {'refused': 'broken', 'depth.abs_rel': ''}
        for index in range(stopped)
    ]
    again = frames_for_pictures(rows, total, 'depth.abs_rel')
    assert not again & refused
    went_on = sorted(again | {index for index in seen if index >= stopped})
    assert shown(scores, went_on, total) == shown(scores, seen, total)
    step = slider_step(total)
    assert total / step <= 80
    assert [i for i in seen if i % step == 0] == [i for i in went_on if i % step == 0]
    # The computing is bounded, whatever the length.
    assert len(again) <= 80 + 2 * 21 + 5


def test_steps_are_powers_of_two_and_stretches_twentieths() -> None:
    assert [slider_step(count) for count in (1, 80, 81, 160, 161, 321)] == [1, 1, 2, 2, 4, 8]
    assert [stretch_length(count) for count in (None, 5, 400)] == [5, 1, 20]
