# SPDX-License-Identifier: Apache-2.0
"""Replays whose right answer is known: the truth itself, known errors, plain numpy sums."""

from __future__ import annotations

import csv
import json
import mmap
from pathlib import Path
import time
from typing import Any

import cv2
from mtl_perception.bags import frames
from mtl_perception.bags.frames import BagReader
from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.memory import resident_mib
from mtl_perception.evaluation.replay import Replay
from mtl_perception.evaluation.replay_report import MEASURED, ReplayReport
from mtl_perception.inference import Perceiver
from mtl_perception.manifest import Manifest
from mtl_perception.tasks import standard_tasks
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import pytest

CAMERA = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
TASKS = standard_tasks('rooms')
KINDS = ('depth', 'semantic', 'normals', 'edges')
FRAMES = 6
MS = 1_000_000
Maps = dict[str, np.ndarray]


class FakeEngine:
    """An engine whose n-th run gives the n-th of the maps it was made with."""

    name = 'fake'
    manifest = Manifest(
        name='fake',
        system='none',
        backbone='none',
        tasks=TASKS,
        network_size=(48, 64),
        reference_focal_px=60.0,
        depth_range_m=(0.1, 20.0),
    )

    def __init__(self, maps: list[Maps]) -> None:
        self._maps = iter(maps)

    def run(self, image: np.ndarray, depth_scale: np.ndarray) -> Maps:
        assert depth_scale == 1.0
        return {name: values[None] for name, values in next(self._maps).items()}


def scene(index: int) -> Maps:
    """A sloped floor before a wall, as the graph of a perfect network would give it."""
    y = np.repeat((np.arange(48.0)[:, None] - 23.5) / 60.0, 64, axis=1)
    wall = 4.0 + 0.1 * index
    with np.errstate(divide='ignore'):
        floor = np.where(y > 0, 1.2 / y, np.inf)
    depth = np.minimum(floor, wall).astype(np.float32)
    is_floor = floor < wall
    normals = np.where(is_floor[..., None], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0])
    labels = np.where(is_floor, 1, 0).astype(np.uint8)
    labels[:, :8] = index  # something that changes
    edges = np.zeros((48, 64), np.uint8)
    edges[1:][labels[1:] != labels[:-1]] = 255
    return {
        'semantic': labels,
        'semantic_confidence': np.ones((48, 64), np.float32),
        'depth': depth,
        'normals': normals.astype(np.float32),
        'edges': edges,
    }


def truth_bag(bags: Any, path: Path, *, with_normals: bool = True) -> Path:
    """The scenes as a rendered bag: every fifth depth pixel unknown, a column unlabelled."""
    messages = []
    for index in range(FRAMES):
        stamp = 10**9 + index * 33 * MS
        maps = scene(index)
        depth, labels = maps['depth'].copy(), maps['semantic'].copy()
        depth.ravel()[::5] = np.nan
        labels[:, 30] = 255
        image = np.full((48, 64, 3), 40 * index, np.uint8)
        truth = '/ground_truth'
        entries = [
            ('/camera/image_raw', bags.image(image, 'rgb8', stamp)),
            ('/camera/camera_info', bags.camera_info(CAMERA, stamp)),
            (f'{truth}/depth/image_rect', bags.image(depth, '32FC1', stamp)),
            (f'{truth}/semantic/image_raw', bags.image(labels, 'mono8', stamp)),
            (f'{truth}/edges/image_raw', bags.image(maps['edges'], 'mono8', stamp)),
        ]
        if with_normals:
            normals = bags.image(maps['normals'], '32FC3', stamp)
            entries.append((f'{truth}/normals/image_raw', normals))
        messages += [(topic, stamp, message) for topic, message in entries]
    return bags.write(path, messages)


@pytest.fixture(scope='module')
def true_bag(bags: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return truth_bag(bags, tmp_path_factory.mktemp('truth') / 'bag')


def run(bag: Path, out: Path, maps: list[Maps]) -> ReplayReport:
    with BagReader(bag) as reader:
        perceive = Perceiver(FakeEngine(maps)).perceive
        return Replay(reader, perceive, TASKS, out).run()


def test_the_truth_scores_perfectly(true_bag: Path, tmp_path: Path) -> None:
    report = run(true_bag, tmp_path, [scene(index) for index in range(FRAMES)])
    assert report.frames == report.processed == FRAMES
    assert report.frames_scored.items() >= dict.fromkeys(KINDS, FRAMES).items()
    depth, normals = report.scores['depth'], report.scores['normals']
    for prefix in ('', 'scaled_'):
        for error in ('abs_rel', 'rmse_m', 'log10'):
            assert depth[prefix + error] == pytest.approx(0, abs=1e-12)
        for share in ('delta1', 'delta2', 'delta3'):
            assert depth[prefix + share] == 1
    assert normals['mean_deg'] == pytest.approx(0, abs=1e-9)
    assert normals['within_11.25'] == 1
    assert report.scores['semantic'] == {'miou': 1.0, 'pixel_accuracy': 1.0}
    assert report.class_iou['semantic']['floor'] == 1
    assert report.scores['edges']['f_best_tolerance'] == pytest.approx(1)
    assert (report.refused, report.notes, report.damage, report.lost) == ({}, {}, (), {})


def test_known_errors_give_the_known_numbers(true_bag: Path, tmp_path: Path) -> None:
    """Depth 10 % too far, normals turned by 10 degrees, labels wrong in half of the frames."""
    angle = np.radians(10)
    turn = np.array(
        [
            [np.cos(angle), -np.sin(angle), 0],
            [np.sin(angle), np.cos(angle), 0],
            [0, 0, 1],
        ]
    ) @ np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    wrong, right, angles = [], 0, []
    for index in range(FRAMES):
        maps = scene(index)
        maps['depth'] = maps['depth'] * np.float32(1.1)
        turned = maps['normals'] @ turn.T
        angles.append(np.degrees(np.arccos((turned * maps['normals']).sum(-1))))
        maps['normals'] = turned.astype(np.float32)
        if index % 2:
            maps['semantic'] = np.full((48, 64), 17, np.uint8)
        else:
            right += 48 * 63
        wrong.append(maps)
    report = run(true_bag, tmp_path, wrong)
    depth, normals = report.scores['depth'], report.scores['normals']
    assert depth['abs_rel'] == pytest.approx(0.1, rel=1e-6)
    assert depth['log10'] == pytest.approx(np.log10(1.1), rel=1e-6)
    assert depth['delta1'] == 1
    assert depth['scaled_abs_rel'] == pytest.approx(0, abs=1e-6)
    assert normals['mean_deg'] == pytest.approx(np.mean(angles), abs=1e-4)
    assert report.scores['semantic']['pixel_accuracy'] == right / (48 * 63 * FRAMES)


def test_normals_come_from_the_depth_where_none_are_recorded(bags: Any, tmp_path: Path) -> None:
    bag = truth_bag(bags, tmp_path / 'bag', with_normals=False)
    report = run(bag, tmp_path, [scene(index) for index in range(FRAMES)])
    # Right away from the crease, where the window rounds it off.
    assert report.scores['normals']['median_deg'] < 0.1
    assert report.scores['normals']['within_11.25'] > 0.6


def test_the_table_holds_every_frame(true_bag: Path, tmp_path: Path) -> None:
    maps = [scene(index) for index in range(FRAMES)]
    for index, entry in enumerate(maps):
        entry['depth'] = entry['depth'] * np.float32(1 + 0.01 * index)
    run(true_bag, tmp_path, maps)
    with (tmp_path / 'per_frame.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row['index']) for row in rows] == list(range(FRAMES))
    assert [int(row['stamp_ns']) for row in rows] == [
        10**9 + index * 33 * MS for index in range(FRAMES)
    ]
    for index, row in enumerate(rows):
        assert float(row['depth.abs_rel']) == pytest.approx(0.01 * index, abs=1e-6)
        assert float(row['semantic.miou']) == 1
        assert float(row['engine_ms']) >= 0


def test_two_runs_write_the_same(true_bag: Path, tmp_path: Path) -> None:
    documents, tables = [], []
    for name in ('first', 'second'):
        out = tmp_path / name
        out.mkdir()
        run(true_bag, out, [scene(index % 3) for index in range(FRAMES)])
        document = json.loads((out / 'metrics.json').read_text())
        measured = {name: document.pop(name) for name in MEASURED}
        assert measured['latency_ms']['engine']['median'] >= 0
        assert measured['frames_per_second'] > 0
        assert measured['peak_memory_mib'] > 50
        documents.append(document)
        with (out / 'per_frame.csv').open() as stream:
            tables.append(
                [
                    {key: value for key, value in row.items() if not key.endswith('_ms')}
                    for row in csv.DictReader(stream)
                ]
            )
    assert documents[0] == documents[1]
    assert tables[0] == tables[1]
    for name in ('samples.png', 'worst.png', 'best.png'):
        pictures = [(tmp_path / run / name).read_bytes() for run in ('first', 'second')]
        assert pictures[0] == pictures[1]


def test_the_memory_of_a_run_is_its_own(true_bag: Path, tmp_path: Path) -> None:
    before = resident_mib()
    with mmap.mmap(-1, 512 << 20) as pages:
        pages.write(bytes(512 << 20))
    report = run(true_bag, tmp_path, [scene(index) for index in range(FRAMES)])
    assert 50 < report.peak_memory_mib < before + 400


def test_the_first_frame_is_not_charged_with_the_motion(
    true_bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = frames.CameraPoses

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.5)
        return read(*arguments)

    monkeypatch.setattr(frames, 'CameraPoses', slowly)
    report = run(true_bag, tmp_path, [scene(index) for index in range(FRAMES)])
    assert report.latency_ms['decode']['max'] < 500


def test_interruption_keeps_what_is_done(true_bag: Path, tmp_path: Path) -> None:
    engine = Perceiver(FakeEngine([scene(index) for index in range(FRAMES)]))
    count = 0

    def perceive(frame: Frame) -> PerceptionMaps:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return engine.perceive(frame)

    with BagReader(true_bag) as reader:
        report = Replay(reader, perceive, TASKS, tmp_path).run()
    assert report.interrupted
    assert report.processed == 3
    assert report.scores['depth']['delta1'] == 1
    assert len((tmp_path / 'per_frame.csv').read_text().splitlines()) == 4
    assert (tmp_path / 'worst.png').exists()


def test_refused_frames_are_counted_and_the_rest_is_scored(bags: Any, tmp_path: Path) -> None:
    """A resolution that does not fit the camera_info, and bytes that are no image."""
    messages = []
    for index in range(4):
        stamp = 10**9 + index * 33 * MS
        size = (24, 32, 3) if index == 1 else (48, 64, 3)
        image = bags.image(np.zeros(size, np.uint8), 'rgb8', stamp)
        if index == 2:
            image.data = image.data[:-1]
        messages += [
            ('/camera/image_raw', stamp, image),
            ('/camera/camera_info', stamp, bags.camera_info(CAMERA, stamp)),
            ('/camera/depth', stamp, bags.image(scene(0)['depth'], '32FC1', stamp)),
        ]
    report = run(bags.write(tmp_path / 'bag', messages), tmp_path, [scene(0)] * 4)
    assert (report.frames, report.processed) == (4, 2)
    assert sum(report.refused.values()) == 2
    assert any('64x48' in reason and '32x24' in reason for reason in report.refused)
    assert any('9215 bytes' in reason for reason in report.refused)
    assert report.frames_scored['depth'] == 2
    assert report.scores['depth']['abs_rel'] == 0
    with (tmp_path / 'per_frame.csv').open() as stream:
        assert [bool(row['refused']) for row in csv.DictReader(stream)] == [
            False, True, True, False,
        ]  # fmt: skip


def test_depth_of_another_size_is_said_and_not_compared(bags: Any, tmp_path: Path) -> None:
    messages = [
        ('/camera/image_raw', 1, bags.image(np.zeros((48, 64, 3), np.uint8), 'rgb8', 1)),
        ('/camera/camera_info', 1, bags.camera_info(CAMERA, 1)),
        ('/camera/depth', 1, bags.image(scene(0)['depth'][::2, ::2], '32FC1', 1)),
    ]
    report = run(bags.write(tmp_path / 'bag', messages), tmp_path, [scene(0)])
    assert report.processed == 1
    assert set(report.scores) == {'consistency'}  # which needs no ground truth
    (note,) = report.notes
    assert note.startswith('/camera/depth: is 32x24, the image 64x48')
    assert (tmp_path / 'samples.png').exists()
    assert not (tmp_path / 'worst.png').exists()


def test_labels_beyond_the_models_classes_are_said(bags: Any, tmp_path: Path) -> None:
    labels = np.full((48, 64), 200, np.uint8)
    messages = [
        ('/camera/image_raw', 1, bags.image(np.zeros((48, 64, 3), np.uint8), 'rgb8', 1)),
        ('/truth/labels', 1, bags.image(labels, 'mono8', 1)),
    ]
    report = run(bags.write(tmp_path / 'bag', messages), tmp_path, [scene(0)])
    assert set(report.scores) == {'consistency'}  # which needs no ground truth
    (note,) = report.notes
    assert '200' in note
    assert '18 classes' in note


@pytest.mark.slow
def test_a_rendered_walk_scores_its_own_truth_perfectly(tmp_path: Path) -> None:
    """The topics and encodings of `rooms --bag`, with the renderer's samples as predictions."""
    pytest.importorskip('embreex')
    from mtl_perception.datasets.bag_writer import BagWriter
    from mtl_perception.simulation.rooms import rooms_frames

    samples = list(rooms_frames(5, 3, size=(96, 72), frames_per_world=3))
    with BagWriter(tmp_path / 'bag') as writer:
        for index, sample in enumerate(samples):
            writer.sample(10**9 + index * 33 * MS, sample)
    remaining = iter(samples)

    def perceive(frame: Frame) -> PerceptionMaps:
        sample = next(remaining)
        maps = {**sample.targets, 'edges': sample.targets['edges'] * np.uint8(255)}
        np.testing.assert_array_equal(frame.image, sample.image)
        return PerceptionMaps(maps, {}, frame.image, frame.camera)

    with BagReader(tmp_path / 'bag') as reader:
        report = Replay(reader, perceive, TASKS, tmp_path).run()
    assert report.frames_scored.items() >= dict.fromkeys(KINDS, 3).items()
    assert report.scores['semantic']['miou'] == 1
    assert report.scores['depth']['abs_rel'] == 0
    assert report.scores['normals']['mean_deg'] == pytest.approx(0, abs=1e-6)
    assert report.scores['edges']['f_best_tolerance'] == pytest.approx(1)
    assert report.notes == {}


def test_worst_and_best_frames_are_found(true_bag: Path, tmp_path: Path) -> None:
    """Only the fourth frame is wrong: the top row of worst.png shows its image."""
    maps = [scene(index) for index in range(FRAMES)]
    maps[4]['depth'] = maps[4]['depth'] * np.float32(3)
    run(true_bag, tmp_path, maps)
    worst = cv2.imread(str(tmp_path / 'worst.png'))
    # Below the title, inside the first tile: the plain grey of that image.
    assert (worst[60:200, 20:200] == 160).all()
