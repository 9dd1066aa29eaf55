# SPDX-License-Identifier: Apache-2.0
"""The benchmark with an engine whose time is known, and the command as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
import time

import cv2
from mtl_perception.evaluation.benchmark import (
    benchmark,
    benchmark_images,
    cloud_stage,
    machine,
    OUTSIDE_ENGINE,
    Variant,
    variant_report,
)
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.geometry.cloud import fused_cloud
from mtl_perception.manifest import Manifest
from mtl_perception.ros.benchmark_command import main
from mtl_perception.tasks import standard_tasks, Task
from mtl_perception.values import PerceptionMaps
import numpy as np
import pytest

TASKS = standard_tasks('rooms')


class SleepingEngine:
    """Takes a known time and remembers when it was asked."""

    name = 'sleeping'
    manifest = Manifest(
        name='sleeping',
        system='none',
        backbone='none',
        tasks=(Task('depth', 'depth'),),
        network_size=(24, 32),
        reference_focal_px=30.0,
        depth_range_m=(0.1, 20.0),
    )

    def __init__(self, seconds: float, diary: list[float]) -> None:
        self._seconds = seconds
        self._diary = diary

    def run(self, image: np.ndarray, depth_scale: np.ndarray) -> dict[str, np.ndarray]:
        self._diary.append(self._seconds)
        time.sleep(self._seconds)
        return {'depth': np.full((1, 24, 32), 2.0, np.float32)}


def test_engines_take_turns_and_their_time_is_theirs(small_bundle: Path) -> None:
    diary: list[float] = []

    def later(maps: PerceptionMaps) -> dict[str, float]:
        return {'cloud': 1.0, 'publish': 2.0}

    variants = [
        Variant(str(seconds), SleepingEngine(seconds, diary), later)  # type: ignore[arg-type]
        for seconds in (0.02, 0.05)
    ]
    images = benchmark_images(small_bundle, 64, 48)
    steps = []
    benchmark(variants, images, 5, lambda: steps.append(1))
    assert len(diary) % 2 == 0
    assert len(diary) > 2 * 5  # some to warm up
    assert diary == [0.02, 0.05] * (len(diary) // 2)
    assert len(steps) == 10
    for variant, seconds in zip(variants, (20, 50)):
        report = variant_report(variant)
        assert seconds <= report['latency_ms']['engine']['median'] < seconds + 30
        assert report['latency_ms']['publish']['max'] == 2
        outside = report['outside_engine_ms']['median']
        assert 3 < outside < 3 + 20
        assert set(OUTSIDE_ENGINE) < set(report['latency_ms'])


def test_the_images_are_those_of_the_bundle(small_bundle: Path) -> None:
    from safetensors.numpy import load_file

    frame = load_file(small_bundle / 'check.safetensors')['input.image'][0]
    height, width = frame.shape[:2]
    images = benchmark_images(small_bundle, width, height, count=4)
    first = np.frombuffer(images.raw[0], np.uint8).reshape(height, width, 3)
    np.testing.assert_array_equal(first[..., ::-1], frame)
    second = np.frombuffer(images.raw[1], np.uint8).reshape(height, width, 3)
    np.testing.assert_array_equal(second[:, width // 4 :, ::-1], frame[:, : -width // 4])
    # The same picture as a JPEG: of noise, only the brightness survives.
    shown = cv2.imdecode(np.frombuffer(images.jpeg[0], np.uint8), cv2.IMREAD_GRAYSCALE)
    grey = cv2.cvtColor(first, cv2.COLOR_BGR2GRAY)
    assert np.corrcoef(shown.ravel(), grey.ravel())[0, 1] > 0.95
    assert (images.camera.width, images.camera.height) == (width, height)


def test_a_bundle_without_a_check_frame_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r'check\.safetensors'):
        benchmark_images(tmp_path, 64, 48)
    (tmp_path / 'check.safetensors').write_bytes(b'nothing of that kind')
    with pytest.raises(EvaluationError, match=r'check\.safetensors'):
        benchmark_images(tmp_path, 64, 48)


def test_the_cloud_stage_makes_the_cloud(small_bundle: Path) -> None:
    camera = benchmark_images(small_bundle, 32, 24).camera
    random = np.random.default_rng(0)
    maps = PerceptionMaps(
        maps={
            'semantic': random.integers(0, 18, (24, 32), dtype=np.uint8),
            'depth': random.uniform(1, 5, (24, 32)).astype(np.float32),
            'normals': np.tile(np.float32([0, 0, -1]), (24, 32, 1)),
            'edges': np.zeros((24, 32), np.uint8),
        },
        confidence={},
        image=random.integers(0, 256, (24, 32, 3), dtype=np.uint8),
        camera=camera,
    )
    buffer = np.zeros((24, 32, 8), np.float32)
    assert cloud_stage(TASKS, lambda shape: buffer)(maps)['cloud'] > 0
    expected = fused_cloud(maps.maps, maps.image, camera).points
    np.testing.assert_array_equal(buffer.view(np.uint32), expected.view(np.uint32))
    without_depth = tuple(task for task in TASKS if task.kind != 'depth')
    assert cloud_stage(without_depth, lambda shape: buffer)(maps) == {}


def test_the_machine_is_named() -> None:
    about = machine()
    assert about['processor']
    assert 1 <= about['cores_available'] <= about['cores']
    assert about['versions']['numpy'] == np.__version__


def test_the_command_writes_what_it_prints(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = tmp_path / 'benchmark.json', tmp_path / 'benchmarks.md'
    command = ['--model', str(small_bundle), '--threads', '1,2', '--size', '160x120']
    command += ['--frames', '4', '--json', str(file), '--markdown', str(page)]
    assert main(command) == 0
    document = json.loads(file.read_text())
    assert document['camera_size'] == [160, 120]
    assert [entry['name'] for entry in document['variants']] == [
        'onnxruntime, 1 thread', 'onnxruntime, 2 threads',
    ]  # fmt: skip
    printed = capsys.readouterr().out
    for entry in document['variants']:
        stages = entry['latency_ms']
        assert list(stages)[:5] == ['decode', 'decode_jpeg', 'fit', 'engine', 'finish']
        for stage, values in stages.items():
            assert 0 <= values['median'] <= values['p95'] <= values['max']
            assert f'{values["median"]:.2f} ({values["p95"]:.2f})' in printed, stage
        # The median of sums lies between the sums of the extremes.
        parts = [stages[stage] for stage in OUTSIDE_ENGINE if stage in stages]
        assert entry['outside_engine_ms']['median'] <= sum(part['max'] for part in parts)
    assert document['machine']['processor'] in printed
    lines = page.read_text().splitlines()
    assert {'<!-- stages: begin -->', '<!-- stages: end -->'} <= set(lines)
    cells = {line.split(' | ')[0].strip('| '): line.split(' | ')[1:] for line in lines
             if line.startswith('| ')}  # fmt: skip
    engine = document['variants'][0]['latency_ms']['engine']
    assert cells['engine'][0] == f"{engine['median']:.1f} ({engine['p95']:.1f})"
    assert len(cells['stage']) == len(cells['all but the engine']) == 2


@pytest.mark.ros
def test_with_ros_every_message_is_filled(small_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip('rclpy')
    file = tmp_path / 'benchmark.json'
    command = ['--model', str(small_bundle), '--frames', '2', '--json', str(file)]
    assert main(command) == 0
    document = json.loads(file.read_text())
    assert document['left_out'] == ''
    (entry,) = document['variants']
    assert entry['latency_ms']['publish']['median'] > 0
    assert entry['latency_ms']['cloud']['median'] > 0


def test_without_ros_it_says_what_is_left_out(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'rclpy', None)
    file = tmp_path / 'benchmark.json'
    assert main(['--model', str(small_bundle), '--frames', '2', '--json', str(file)]) == 0
    document = json.loads(file.read_text())
    assert 'rclpy' in document['left_out']
    (entry,) = document['variants']
    assert 'publish' not in entry['latency_ms']
    assert entry['latency_ms']['cloud']['median'] > 0


@pytest.mark.parametrize(
    'wrong',
    [
        ['--engine', 'magic'],
        ['--threads', '0'],
        ['--threads', '1,'],
        ['--size', '640'],
        ['--size', '0x480'],
        ['--frames', '0'],
        ['--engine', 'torch', '--threads', '1,2'],
        ['--engine', 'onnxruntime,torch-compiled', '--threads', '1,2'],
    ],
)
def test_wrong_usage_ends_with_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
