# SPDX-License-Identifier: Apache-2.0
"""The replay command as a user runs it: files, exit codes, and one line when it cannot."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
import shutil
from typing import Any

import cv2
from mtl_perception import cli
from mtl_perception.bags.errors import BagError
from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.replay_command import main
from mtl_perception.manifest import file_digest, load_manifest, save_manifest
import numpy as np
import pytest

CAMERA = CameraModel(128, 96, 120.0, 120.0, 63.5, 47.5)
MS = 1_000_000
FREE = {'consistency', 'focal'}  # scores that need no ground truth


def make_bag(bags: Any, path: Path, *, frames: int = 5, with_depth: bool = True) -> Path:
    """A camera that looks at a wall 2 m away, by JPEG; depth 3 ms off."""
    messages = []
    for index in range(frames):
        stamp = 10**9 + index * 33 * MS
        pixels = np.random.default_rng(index).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        jpeg = cv2.imencode('.jpg', cv2.GaussianBlur(pixels, (0, 0), 5))[1].tobytes()
        depth = np.full((96, 128), 2000, np.uint16)
        messages += [
            ('/camera/color/image_raw/compressed', stamp, bags.compressed(jpeg, stamp)),
            ('/camera/color/camera_info', stamp, bags.camera_info(CAMERA, stamp)),
        ]
        if with_depth:
            message = bags.image(depth, '16UC1', stamp + 3 * MS)
            messages.append(('/camera/aligned_depth_to_color/image_raw', stamp, message))
    return bags.write(path, messages)


def test_a_bag_becomes_numbers_and_pictures(
    bags: Any, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = make_bag(bags, tmp_path / 'bag')
    out = tmp_path / 'deep' / 'out'
    command = ['replay', str(bag), '--out', str(out), '--model', str(small_bundle)]
    assert cli.main([*command, '--threads', '1']) == 0
    document = json.loads((out / 'metrics.json').read_text())
    assert document['model'] == 'small'
    assert document['engine'] == 'onnxruntime'
    assert document['processed'] == 5
    assert document['topics']['depth'] == '/camera/aligned_depth_to_color/image_raw'
    assert document['frames_scored']['depth'] == document['frames_scored']['normals'] == 5
    assert 0 < document['scores']['depth']['abs_rel'] < 100
    assert 0 < document['scores']['normals']['mean_deg'] < 180
    assert set(document['latency_ms']) == {'decode', 'fit', 'engine', 'finish', 'score'}
    for name in ('samples.png', 'worst.png', 'best.png'):
        picture = cv2.imread(str(out / name))
        assert picture.std() > 10
    printed = capsys.readouterr().out
    assert '5 of 5 frames processed' in printed
    assert 'abs_rel' in printed
    # A tolerance that is too narrow: nothing to compare, and it says so.
    assert cli.main([*command, '--tolerance-ms', '1']) == 0
    assert 'note (5 frames): /camera/aligned_depth_to_color' in capsys.readouterr().out
    assert set(json.loads((out / 'metrics.json').read_text())['scores']) <= FREE


def test_the_node_that_ran_while_recording_is_not_scored_against_itself(
    bags: Any, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = []
    for index in range(2):
        stamp = 10**9 + index * 33 * MS
        random = np.random.default_rng(index)
        pixels = random.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        labels = random.integers(0, 18, (96, 128), dtype=np.uint8)
        messages += [
            ('/camera/color/image_raw', stamp, bags.image(pixels, 'rgb8', stamp)),
            ('/semantic/image_raw', stamp, bags.image(labels, 'mono8', stamp)),
            ('/semantic/confidence', stamp,
             bags.image(np.ones((96, 128), np.float32), '32FC1', stamp)),
        ]  # fmt: skip
    bag = bags.write(tmp_path / 'bag', messages)
    out = tmp_path / 'out'
    command = [str(bag), '--out', str(out), '--model', str(small_bundle)]
    assert main(command) == 0
    assert json.loads((out / 'metrics.json').read_text())['topics']['semantic'] is None
    printed = ' '.join(capsys.readouterr().out.split())
    assert 'note: /semantic/image_raw is the output of a perception node' in printed
    assert main([*command, '--semantic-topic', '/semantic/image_raw']) == 0
    assert 'semantic' in json.loads((out / 'metrics.json').read_text())['scores']
    assert 'note: /semantic' not in ' '.join(capsys.readouterr().out.split())


def test_without_depth_there_are_pictures_and_latencies(
    bags: Any, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = make_bag(bags, tmp_path / 'bag', with_depth=False)
    out = tmp_path / 'out'
    assert main([str(bag), '--out', str(out), '--model', str(small_bundle)]) == 0
    assert 'pictures and latencies only' in capsys.readouterr().out
    document = json.loads((out / 'metrics.json').read_text())
    assert set(document['scores']) <= FREE
    assert document['latency_ms']['engine']['median'] > 0
    assert (out / 'samples.png').exists()


def test_a_cut_bag_is_scored_as_far_as_it_goes(
    bags: Any, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = make_bag(bags, tmp_path / 'bag', frames=40)
    (file,) = bag.glob('*.mcap')
    # The writer's chunks are of 1 MB: here the first of them is whole.
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 95 // 100])
    out = tmp_path / 'out'
    assert main([str(bag), '--out', str(out), '--model', str(small_bundle)]) == 0
    document = json.loads((out / 'metrics.json').read_text())
    assert 10 < document['processed'] < 40
    assert str(file) in document['damage'][0]
    (lost,) = {entry['recorded'] for entry in document['lost'].values()}
    assert lost == 40
    printed = capsys.readouterr().out
    assert 'lost: ' in printed
    assert 'damaged: ' in printed


def test_a_bag_without_frames_is_an_error(
    bags: Any, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = bags.image(np.zeros((4, 4, 3), np.uint8), 'rgb8', 1)
    broken.step = 1
    bag = bags.write(tmp_path / 'bag', [('/image', 1, broken)])
    command = [str(bag), '--out', str(tmp_path / 'out'), '--model', str(small_bundle)]
    with pytest.raises(EvaluationError, match='no frame could be processed: image step 1'):
        main(command)
    assert json.loads((tmp_path / 'out/metrics.json').read_text())['processed'] == 0
    empty = bags.write(tmp_path / 'empty', [('/cam/camera_info', 1, bags.camera_info(CAMERA, 1))])
    with pytest.raises(BagError, match='no colour image'):
        main([str(empty), *command[1:]])
    silent = bags.write(
        tmp_path / 'silent', [('/cam/camera_info', 1, bags.camera_info(CAMERA, 1))],
        silent={'/cam/image_raw': 'sensor_msgs/msg/Image'},
    )  # fmt: skip
    # As the command line: one line, exit code 1.
    for path, sentence in (
        (empty, 'no colour image'),
        (silent, 'no frame could be processed: the image topic has no messages'),
    ):  # fmt: skip
        capsys.readouterr()
        assert cli.main(['replay', str(path), *command[1:]]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert str(path) in line
        assert sentence in line


def test_ctrl_c_writes_the_results(
    bags: Any, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_perception.inference import Perceiver

    perceive, calls = Perceiver.perceive, []

    def interrupted(self: Perceiver, frame: Any) -> Any:
        calls.append(frame)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return perceive(self, frame)

    monkeypatch.setattr(Perceiver, 'perceive', interrupted)
    bag = make_bag(bags, tmp_path / 'bag')
    out = tmp_path / 'out'
    assert main([str(bag), '--out', str(out), '--model', str(small_bundle)]) == 130
    document = json.loads((out / 'metrics.json').read_text())
    assert document['interrupted'] is True
    assert document['processed'] == 2


@pytest.mark.parametrize(
    'wrong', [['--engine', 'magic'], ['--tolerance-ms', '-1'], ['--threads', 'many'], []]
)
def test_wrong_usage_ends_with_2(tmp_path: Path, wrong: list[str]) -> None:
    arguments = [str(tmp_path)] if not wrong else [str(tmp_path), '--out', 'x', *wrong]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_nothing_to_export_still_leaves_the_report(
    bags: Any, small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = make_bag(bags, tmp_path / 'bag', frames=1)
    out = tmp_path / 'out'
    command = ['replay', str(bag), '--out', str(out), '--model', str(small_bundle)]
    assert cli.main([*command, '--export-worst', str(tmp_path / 'split'), '--write-bag']) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    for name in ('metrics.json', 'report.html', 'samples.png', 'bag'):
        assert (out / name).exists(), name


def test_resuming_with_other_settings_is_refused(
    bags: Any, small_bundle: Path, tmp_path: Path
) -> None:
    bag = make_bag(bags, tmp_path / 'bag', frames=3)
    own = shutil.copytree(small_bundle, tmp_path / 'model')
    command = [str(bag), '--out', str(tmp_path / 'out'), '--threads', '1', '--model', str(own)]
    assert main(command) == 0
    assert main([*command, '--resume']) == 0
    depth = '/camera/aligned_depth_to_color/image_raw'
    camera = tmp_path / 'camera.yaml'
    camera.write_text(
        'image_width: 128\nimage_height: 96\ndistortion_model: plumb_bob\n'
        'camera_matrix: {rows: 3, cols: 3, data: [120, 0, 63, 0, 120, 47, 0, 0, 1]}\n'
        'distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n'
        'rectification_matrix: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}\n'
        'projection_matrix: {rows: 3, cols: 4, data: [120, 0, 63, 0, 0, 120, 47, 0, 0, 0, 1, 0]}\n'
    )
    for other, name in (
        (['--tolerance-ms', '5'], 'tolerance_ms'), (['--depth-topic', depth], 'given_topics'),
        (['--camera', str(camera)], 'topics|camera_file'),
        (['--image-is-rectified'], 'image_is_rectified'),
    ):  # fmt: skip
        with pytest.raises(EvaluationError, match=f'results with ({name}) '):
            main([*command, '--resume', *other])
    # Another network of the same name: field 6 of an ONNX model is a remark.
    graph = own / 'graph.onnx'
    graph.write_bytes(graph.read_bytes() + b'\x32\x01x')
    manifest = load_manifest(own)
    files = {**manifest.files, 'graph.onnx': file_digest(graph)}
    save_manifest(replace(manifest, files=files), own)
    with pytest.raises(EvaluationError, match='results with model_files '):
        main([*command, '--resume'])
    assert main(command) == 0


def test_the_help_shows_commands_that_can_be_copied(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['--help'])
    example = capsys.readouterr().out.partition('example:')[2]
    lines = [line.rstrip() for line in example.splitlines()]
    continued = [lines[index - 1] for index, line in enumerate(lines) if line.startswith('     ')]
    assert len(continued) == 2
    assert all(line.endswith(chr(92)) for line in continued)


def test_results_that_cannot_be_written_are_an_error(
    bags: Any, small_bundle: Path, tmp_path: Path
) -> None:
    bag = make_bag(bags, tmp_path / 'bag', frames=1)
    (tmp_path / 'file').write_text('')
    with pytest.raises(EvaluationError, match='--out'):
        main([str(bag), '--out', str(tmp_path / 'file'), '--model', str(small_bundle)])
    blocked = tmp_path / 'blocked'
    (blocked / 'per_frame.csv').mkdir(parents=True)
    with pytest.raises(EvaluationError, match=f'cannot be written to {blocked}'):
        main([str(bag), '--out', str(blocked), '--model', str(small_bundle)])
