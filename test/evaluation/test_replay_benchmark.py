# SPDX-License-Identifier: Apache-2.0
"""The two halves of a replay and the whole, with sleeps of known length for both."""

from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import time
from typing import Any

from mtl_perception.bags.frames import BagReader
from mtl_perception.evaluation import replay_benchmark_command
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.replay_benchmark_command import measure
from mtl_perception.ros.benchmark_command import main
from mtl_perception.tasks import standard_tasks
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import pytest

TASKS = standard_tasks('rooms')


@pytest.mark.parametrize(('engine_s', 'read_s'), [(0.10, 0.04), (0.04, 0.10)])
def test_the_slower_half_sets_the_pace(
    walk_bag: Path, monkeypatch: pytest.MonkeyPatch, engine_s: float, read_s: float
) -> None:
    """Sleeping threads do not wait for each other: both at once last as long as the slower."""

    class SlowReader:
        path = walk_bag

        def __init__(self, reader: BagReader) -> None:
            self._reader = reader

        def frames(self) -> Iterator[Any]:
            for entry in self._reader.frames():
                time.sleep(read_s)
                yield entry

    def perceive(frame: Frame) -> PerceptionMaps:
        time.sleep(engine_s)
        return PerceptionMaps({}, {}, frame.image, frame.camera)

    monkeypatch.setattr(replay_benchmark_command, 'frame_result', lambda *given: None)
    with BagReader(walk_bag) as reader:
        slow: Any = SlowReader(reader)
        found = measure(slow, perceive, TASKS, 100)
    assert found.frames == 8
    assert found.engine_s == pytest.approx(8 * engine_s, rel=0.4)
    assert found.decode_and_score_s == pytest.approx(8 * read_s, rel=0.4)
    assert found.together_s < 8 * (engine_s + read_s) * 0.98
    assert found.ratio == pytest.approx(
        max(found.engine_s, found.decode_and_score_s) / found.together_s
    )


def test_the_command_writes_what_it_measured(
    walk_bag: Path, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / 'replay.json'
    command = ['replay', str(walk_bag), '--model', str(small_bundle), '--frames', '4']
    assert main([*command, '--json', str(file)]) == 0
    document = json.loads(file.read_text())
    assert (document['frames'], document['threads'], document['model']) == (4, 1, 'small')
    slower = max(document['engine_s'], document['decode_and_score_s'])
    assert document['ratio'] == pytest.approx(slower / document['together_s'])
    assert f"{document['ratio']:.2f} of the throughput" in capsys.readouterr().out


def test_a_bag_without_a_frame_is_an_error(
    bags: Any, small_bundle: Path, tmp_path: Path
) -> None:
    broken = bags.image(np.zeros((4, 4, 3), np.uint8), 'rgb8', 1)
    broken.step = 1
    bag = bags.write(tmp_path / 'bag', [('/image', 1, broken)])
    with pytest.raises(EvaluationError, match='no frame to measure with'):
        main(['replay', str(bag), '--model', str(small_bundle)])
