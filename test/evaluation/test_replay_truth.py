# SPDX-License-Identifier: Apache-2.0
"""A rendered walk, replayed with its own truth and with known errors as predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import errno
import json
from pathlib import Path
from typing import Any

from mtl_perception.bags.frames import BagReader
from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.frame_table import FrameTable
from mtl_perception.evaluation.replay import Replay
from mtl_perception.evaluation.replay_report import MEASURED, ReplayReport
from mtl_perception.tasks import standard_tasks
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import pytest

pytest.importorskip('embreex')
TASKS = standard_tasks('rooms')
FRAMES, SIZE, STEP_NS = 10, (96, 72), 33_000_000
Maps = dict[str, np.ndarray]


class Walk:
    """The samples of a walk and their bag."""

    def __init__(self, path: Path) -> None:
        from mtl_perception.datasets.bag_writer import BagWriter
        from mtl_perception.simulation.rooms import rooms_frames

        self.path = path
        self.samples = list(rooms_frames(5, FRAMES, size=SIZE, frames_per_world=FRAMES))
        with BagWriter(path) as writer:
            for index, sample in enumerate(self.samples):
                writer.sample(10**9 + index * STEP_NS, sample)

    def truth(self, index: int) -> Maps:
        targets = dict(self.samples[index].targets)
        return {**targets, 'edges': targets['edges'] * np.uint8(255)}

    def replay(
        self, out: Path, maps: Callable[[int], Maps], camera: CameraModel | None = None,
        resume: bool = False, observers: Any = (), settings: Any = None,
    ) -> ReplayReport:
        """Replay with `maps(index)` as predictions."""
        out.mkdir(exist_ok=True)

        def perceive(frame: Frame) -> PerceptionMaps:
            index = (frame.stamp_ns - 10**9) // STEP_NS
            return PerceptionMaps(maps(index), {}, frame.image, frame.camera, {'engine': 1.0})

        with BagReader(self.path, camera=camera) as reader:
            return Replay(
                reader, perceive, TASKS, out, observers, resume=resume, settings=settings
            ).run()


@pytest.fixture(scope='module')
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp('walk') / 'bag')


@pytest.fixture(scope='module')
def perfect(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReplayReport, Path]:
    out = tmp_path_factory.mktemp('perfect')
    return walk.replay(out, walk.truth), out


class Looker:
    """An observer that remembers what it was told."""

    def __init__(self, *, needs_every_frame: bool = False) -> None:
        self.needs_every_frame = needs_every_frame
        self.frames: list[int] = []
        self.scores: list[float] = []
        self.finished = 0

    def begin(self, context: Any) -> None:
        assert context.tasks == TASKS

    def frame(self, result: Any) -> None:
        self.frames.append(result.index)
        self.scores.append(result.scores['depth']['abs_rel'])

    def finish(self, report: ReplayReport) -> None:
        self.finished += 1


def pictures(out: Path) -> list[bytes]:
    return [(out / f'{name}.png').read_bytes() for name in ('samples', 'worst', 'best')]


def numbers(out: Path) -> tuple[Any, list[str]]:
    """Return metrics.json and per_frame.csv without what is measured."""
    document = json.loads((out / 'metrics.json').read_text())
    for name in MEASURED:
        del document[name]
    rows = [line.split(',') for line in (out / 'per_frame.csv').read_text().splitlines()]
    kept = [index for index, name in enumerate(rows[0]) if not name.endswith('_ms')]
    return document, [','.join(row[index] for index in kept) for row in rows]


def test_the_truth_is_perfect_on_every_metric(perfect: tuple[ReplayReport, Path]) -> None:
    report, _ = perfect
    scores = report.scores
    assert set(scores) >= {
        'semantic', 'depth', 'normals', 'edges', 'depth_by_distance', 'depth_edges', 'temporal',
        'consistency',
    }  # fmt: skip
    assert scores['semantic'] == {'miou': 1.0, 'pixel_accuracy': 1.0}
    confusion = np.array(report.confusion['semantic'])
    assert confusion.shape == (18, 19)
    assert confusion.sum() == np.trace(confusion) > 0
    assert scores['depth']['abs_rel'] == scores['depth']['rmse_m'] == 0
    assert scores['depth']['delta1'] == scores['depth']['scaled_delta1'] == 1
    bands = scores['depth_by_distance']
    assert {value for name, value in bands.items() if name.startswith('delta')} == {1.0}
    errors = [value for name, value in bands.items() if not name.startswith(('pixels', 'delta'))]
    assert set(errors) == {0.0}
    assert scores['normals']['mean_deg'] == pytest.approx(0, abs=1e-6)
    assert scores['edges']['f_best_tolerance'] == pytest.approx(1)
    assert scores['depth_edges']['f'] == pytest.approx(1)
    # Between pixels: exact on planes, which is what most pixels show.
    assert 0 < report.frames_scored['temporal'] < FRAMES
    assert scores['temporal']['depth_log_ratio'] < 1e-4
    assert scores['temporal']['label_flicker'] < 0.01
    assert scores['temporal']['normals_deg'] < 0.1
    # Windows of 11 pixels round creases off, at 96 columns many.
    assert scores['consistency']['normals_vs_depth_deg'] < 4
    assert report.warnings == []
    assert report.notes == {}


def test_known_errors_are_measured_as_such(
    walk: Walk, perfect: tuple[ReplayReport, Path], tmp_path: Path
) -> None:
    """Depth x1.1, normals turned 10 degrees about a tangent, labels shifted by 8 pixels."""
    hits = total = 0

    def wrong(index: int) -> Maps:
        nonlocal hits, total
        maps = walk.truth(index)
        labels = np.roll(maps['semantic'], 8, axis=1)
        known = maps['semantic'] != 255
        hits += int((labels == maps['semantic'])[known].sum())
        total += int(known.sum())
        normals = maps['normals'].astype(np.float64)
        # A unit vector square to the normal: turning towards it is turning by that angle.
        tangent = np.cross(normals, [0.0, 1.0, 0.3])
        tangent /= np.linalg.norm(tangent, axis=-1, keepdims=True)
        angle = np.radians(10)
        turned = np.cos(angle) * normals + np.sin(angle) * tangent
        return {
            **maps, 'semantic': labels, 'depth': maps['depth'] * np.float32(1.1),
            'normals': turned.astype(np.float32),
        }  # fmt: skip

    report = walk.replay(tmp_path / 'wrong', wrong)
    scores = report.scores
    assert scores['depth']['abs_rel'] == pytest.approx(0.1, rel=1e-6)
    assert scores['depth']['log10'] == pytest.approx(np.log10(1.1), rel=1e-6)
    assert scores['depth']['scaled_abs_rel'] == pytest.approx(0, abs=1e-6)
    for name, value in scores['depth_by_distance'].items():
        if name.startswith('abs_rel'):
            assert value == pytest.approx(0.1, rel=1e-5)
        elif name.startswith('log10'):
            assert value == pytest.approx(np.log10(1.1), rel=1e-5)
        elif name.startswith('scaled'):
            assert value == pytest.approx(0, abs=1e-5)
    assert scores['normals']['mean_deg'] == pytest.approx(10, abs=1e-3)
    assert scores['normals']['within_11.25'] == 1
    assert scores['semantic']['pixel_accuracy'] == pytest.approx(hits / total, abs=1e-12)
    # A factor on depth leaves jumps and normals where they are.
    assert scores['depth_edges']['f'] == pytest.approx(1, abs=0.01)
    right = perfect[0].scores['consistency']['normals_vs_depth_deg']
    assert scores['consistency']['normals_vs_depth_deg'] == pytest.approx(10, abs=right + 0.5)


def test_frozen_frames_are_seen_in_the_motion(
    walk: Walk, perfect: tuple[ReplayReport, Path], tmp_path: Path
) -> None:
    """Only the pairs with a frozen frame change: two in three."""
    walk.replay(tmp_path / 'frozen', lambda index: walk.truth(index - (index % 3 == 2)))
    rows = []
    for out in (perfect[1], tmp_path / 'frozen'):
        lines = (out / 'per_frame.csv').read_text().splitlines()
        column = lines[0].split(',').index('temporal.depth_log_ratio')
        rows.append([line.split(',')[column] for line in lines[1:]])
    for index in range(1, FRAMES):
        if not rows[0][index]:
            continue  # these two see too little of the same
        right, frozen = float(rows[0][index]), float(rows[1][index])
        if index % 3 == 1:
            assert frozen == right
        else:
            assert frozen > 10 * max(right, 1e-5)


def test_wrong_intrinsics_are_flagged(walk: Walk, tmp_path: Path) -> None:
    """True maps, and a camera_info whose focal length is 1.3 times the true one."""
    camera = walk.samples[0].camera
    assert camera is not None
    wrong = replace(camera, fx=1.3 * camera.fx, fy=1.3 * camera.fy)
    report = walk.replay(tmp_path / 'wrong', walk.truth, wrong)
    assert report.scores['focal']['factor'] == pytest.approx(1 / 1.3, rel=0.06)
    assert any('times the focal length' in sentence for sentence in report.warnings)


def test_a_resumed_replay_ends_like_one_that_was_not_interrupted(
    walk: Walk, perfect: tuple[ReplayReport, Path], tmp_path: Path
) -> None:
    out = tmp_path / 'resumed'
    for stop in (4, 7):

        def until(index: int, stop: int = stop) -> Maps:
            if index == stop:
                raise KeyboardInterrupt
            return walk.truth(index)

        report = walk.replay(out, until, resume=True)
        assert report.interrupted
        assert report.frames == stop
    looker = Looker(needs_every_frame=True)
    walk.replay(out, walk.truth, resume=True, observers=[looker])
    assert looker.frames == list(range(FRAMES))
    assert looker.scores == [pytest.approx(0)] * FRAMES
    assert numbers(out) == numbers(perfect[1])
    assert pictures(out) == pictures(perfect[1])
    # Once more, without a new frame: nothing is lost.
    walk.replay(out, walk.truth, resume=True)
    assert numbers(out) == numbers(perfect[1])
    assert pictures(out) == pictures(perfect[1])
    with pytest.raises(EvaluationError, match="results with weights None, not 'abc'"):
        walk.replay(out, walk.truth, resume=True, settings={'weights': 'abc'})
    with pytest.raises(EvaluationError, match='results with bag'):
        other = Walk.__new__(Walk)
        other.path = tmp_path / 'moved'
        other.path.symlink_to(walk.path)
        (tmp_path / 'copy').mkdir()
        for file in walk.path.iterdir():
            (tmp_path / 'copy' / file.name).write_bytes(file.read_bytes())
        other.path = tmp_path / 'copy'
        other.replay(out, walk.truth, resume=True)


def test_what_one_observer_cannot_write_costs_the_others_nothing(
    walk: Walk, tmp_path: Path
) -> None:
    class Failing(Looker):
        def finish(self, report: ReplayReport) -> None:
            msg = 'nothing to export'
            raise EvaluationError(msg)

    class Full(Looker):
        def finish(self, report: ReplayReport) -> None:
            if (tmp_path / '.reserve').exists():
                raise OSError(errno.ENOSPC, 'No space left on device')
            super().finish(report)

    class Finder(Looker):
        def finish(self, report: ReplayReport) -> None:
            super().finish(report)
            report.warnings.append('found at the end')

    last, full = Finder(), Full()
    with pytest.raises(EvaluationError, match='nothing to export'):
        walk.replay(tmp_path, walk.truth, observers=[Failing(), full, last])
    assert (full.finished, last.finished) == (1, 1)
    assert 'found at the end' in json.loads((tmp_path / 'metrics.json').read_text())['warnings']


def test_a_full_disk_costs_nothing_that_was_computed(
    walk: Walk, perfect: tuple[ReplayReport, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The disk is full until the reserve is given back."""
    out = tmp_path / 'out'
    write = FrameTable.write

    def full(self: FrameTable, result: Any) -> None:
        if result.index == 6 and (out / '.reserve').exists():
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(self, result)

    monkeypatch.setattr(FrameTable, 'write', full)
    with pytest.raises(EvaluationError, match=r'No space left.*7 frames are kept.*--resume'):
        walk.replay(out, walk.truth)
    assert len((out / 'per_frame.csv').read_text().splitlines()) == 8
    assert json.loads((out / 'metrics.json').read_text())['processed'] == 7
    assert not (out / '.reserve').exists()
    assert (out / 'worst.png').exists()
    monkeypatch.undo()
    walk.replay(out, walk.truth, resume=True)
    assert numbers(out) == numbers(perfect[1])
