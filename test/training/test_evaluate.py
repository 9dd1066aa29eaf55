# SPDX-License-Identifier: Apache-2.0
"""`evaluate` gives the truth a perfect score, and known errors the scores that they have."""

from __future__ import annotations

from dataclasses import replace
import json

import cv2
from mtl_perception import cli
from mtl_perception.inference.engine import open_engine
from mtl_perception.manifest import load_manifest, Manifest
from mtl_perception.tasks import load_label_set, standard_tasks, Task
from mtl_perception.thinning import thin
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.evaluate import comparable_tasks, evaluate, evaluation_grid
import numpy as np
import pytest

TASKS = standard_tasks('rooms')
SIZE = (72, 96)  # that of the box frames: nothing is resized


class TruthEngine:
    """Knows each frame by its pixels, and gives its targets as a graph gives maps."""

    name = 'truth'

    def __init__(self, frames, depth_factor=1.0):
        self.manifest = Manifest(
            name='truth', system='multi_task', backbone='mobilenetv2_100', tasks=TASKS,
            network_size=SIZE, reference_focal_px=40.0, depth_range_m=(0.1, 20.0),
        )
        self._frames = {frame.image.tobytes(): frame for frame in frames}
        self._depth_factor = depth_factor
        self.scales = []

    def run(self, image, depth_scale):
        self.scales.extend(depth_scale.tolist())
        found = [self._frames[each.tobytes()] for each in image]
        targets = {
            task.name: np.stack([frame.targets[task.name] for frame in found]) for task in TASKS
        }
        return {
            'semantic': targets['semantic'],
            'semantic_confidence': np.ones((len(found), *SIZE), np.float32),
            'depth': targets['depth'] * np.float32(self._depth_factor),
            'normals': targets['normals'],
            'edges': targets['edges'] * np.uint8(255),
        }


@pytest.mark.parametrize('protocol', ['training', 'nyud_mti', 'densemtl'])
def test_the_truth_scores_perfectly(box_frames, protocol):
    engine = TruthEngine(box_frames)
    counts = []
    result = evaluate(engine, box_frames, TASKS, protocol, counts.append)
    assert (result.frames, result.tasks, counts[-1]) == (8, TASKS, 8)
    # The frames' focal length goes into the graph: sqrt(fx fy) over the reference.
    assert engine.scales == pytest.approx([80 * 1.02**0.5 / 40.0] * 8)
    # The lines of the boxes are two pixels wide in places: those that thinning takes are missed.
    edges = [frame.targets['edges'] for frame in box_frames]
    recall = sum(thin(each).astype(bool).sum() for each in edges) / np.sum(edges)
    for name, (metric, value, higher_is_better) in result.headlines.items():
        expected = 1.0 if higher_is_better else 0.0
        if metric == 'ods_f':
            expected = 2 * recall / (1 + recall)
        assert value == pytest.approx(expected, abs=1e-4), (name, metric)
    seen = np.unique(np.concatenate([each.targets['semantic'].ravel() for each in box_frames]))
    names = load_label_set('rooms').names
    found = {name for name, value in result.class_iou['semantic'].items() if value == 1}
    assert found == {names[label] for label in seen}


def test_a_known_error_has_its_known_scores(box_frames):
    result = evaluate(TruthEngine(box_frames, 1.1), box_frames, TASKS, 'nyud_astmt')
    depth = [frame.targets['depth'].astype(float) for frame in box_frames]
    assert result.scores['depth.abs_rel'] == pytest.approx(0.1, rel=1e-5)
    assert result.scores['depth.sq_rel_m'] == pytest.approx(0.01 * np.mean(depth), rel=1e-5)
    by_image = [np.sqrt(np.mean((0.1 * each) ** 2)) for each in depth]
    assert result.headlines['depth'] == (
        'image_rmse_m', pytest.approx(np.mean(by_image), rel=1e-5), False
    )
    assert result.scores['depth.scaled_abs_rel'] == pytest.approx(0, abs=1e-6)


def test_only_what_both_have_is_compared(box_frames):
    manifest = TruthEngine(box_frames).manifest
    edges = Task('edges', 'edges', edge_meaning='depth_jumps')
    given = (Task('semantic', 'semantic', load_label_set('nyu13')), Task('depth', 'depth'), edges)
    tasks, notes = comparable_tasks(manifest, given)
    assert [task.name for task in tasks] == ['depth', 'edges']
    text = '\n'.join(notes)
    assert 'semantic: the model knows the 18 classes of rooms, the data hold 13 of nyu13' in text
    assert 'normals: not in the data' in text
    assert 'the data depth_jumps; they are compared all the same' in text
    with pytest.raises(TrainingError, match=r'no task of the model truth.*semantic: the model'):
        comparable_tasks(manifest, given[:1])
    partial = [
        replace(frame, targets={'depth': frame.targets['depth']}) for frame in box_frames[:2]
    ]
    result = evaluate(TruthEngine(box_frames), partial, given)
    assert result.scores['depth.abs_rel'] == 0
    assert result.to_json()['scores']['edges.f_best_tolerance'] in (None, 0.0)
    with pytest.raises(TrainingError, match='no frames to score'):
        evaluate(TruthEngine(box_frames), [], given)


def test_the_pictures_show_truth_and_prediction_alike(box_frames):
    picture = evaluation_grid(TruthEngine(box_frames), box_frames, TASKS, rows=2)
    # Nine tiles: the image, then truth and prediction of each task, with a gap of 4.
    assert picture.shape == (2 * (72 + 28), 9 * (96 + 4), 3)
    tiles = [picture[24:96, 100 * index : 100 * index + 96] for index in range(9)]
    np.testing.assert_array_equal(tiles[0], box_frames[0].image)
    for truth, prediction in zip(tiles[1::2], tiles[2::2]):
        np.testing.assert_array_equal(truth, prediction)


def _write_folder(frames, path):
    """Write frames as the folder layout has them; depth in millimetres."""
    for name in ('images/val', 'labels/semantic/val', 'labels/depth/val'):
        (path / name).mkdir(parents=True)
    camera = frames[0].camera
    (path / 'tasks.yaml').write_text(
        'tasks:\n  semantic: {kind: semantic, label_set: rooms}\n'
        '  depth: {kind: depth, unit_m: 0.001}\n'
        f'camera: {{fx: {camera.fx}, fy: {camera.fy}, cx: {camera.cx}, cy: {camera.cy}}}\n'
    )
    for frame in frames:
        millimetres = np.rint(frame.targets['depth'] * 1000).astype(np.uint16)
        cv2.imwrite(str(path / f'images/val/{frame.name}.png'), frame.image[..., ::-1])
        cv2.imwrite(
            str(path / f'labels/semantic/val/{frame.name}.png'), frame.targets['semantic']
        )
        cv2.imwrite(str(path / f'labels/depth/val/{frame.name}.png'), millimetres)


def test_the_command_scores_a_folder_of_frames(box_frames, small_bundle, tmp_path, capsys):
    frames = box_frames[:3]
    _write_folder(frames, tmp_path / 'data')
    out = tmp_path / 'results'
    arguments = [
        'evaluate', '--model', str(small_bundle), '--data', f'folder:{tmp_path / "data"}',
        '--protocol', 'nyud_astmt', '--out', str(out), '--threads', '1',
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    document = json.loads((out / 'evaluation.json').read_text())
    assert (document['frames'], document['split'], document['engine']) == (3, 'val', 'onnxruntime')
    assert document['headlines'] == {'semantic': 'miou', 'depth': 'image_rmse_m'}
    printed = capsys.readouterr().out
    assert f'{document["scores"]["depth.image_rmse_m"]:.4f}' in printed
    assert 'normals: not in the data' in printed
    picture = cv2.imread(str(out / 'evaluation.png'))
    assert picture is not None
    # The same by hand: the engine on the fitted frames, the metric from its formula.
    manifest, errors = load_manifest(small_bundle), []
    with open_engine(small_bundle, threads=1) as engine:
        for frame in frames:
            image = cv2.resize(frame.image, (128, 96), interpolation=cv2.INTER_LINEAR)
            focal = frame.camera.focal_px * 128 / 96
            scale = np.array([focal / manifest.reference_focal_px], np.float32)
            depth = engine.run(image[None], scale)['depth'][0].astype(float)
            # The pixel under the centre of each of the network's.
            rows = ((np.arange(96) + 0.5) * 72 / 96).astype(int)
            columns = ((np.arange(128) + 0.5) * 96 / 128).astype(int)
            truth = np.rint(frame.targets['depth'] * 1000)[rows[:, None], columns] / 1000
            errors.append(np.sqrt(np.mean((depth - truth) ** 2)))
    assert document['scores']['depth.image_rmse_m'] == pytest.approx(np.mean(errors), rel=1e-4)


def test_what_is_wrong_ends_with_the_right_exit_code(small_bundle, tmp_path, capsys):
    model = ['evaluate', '--model', str(small_bundle), '--out', str(tmp_path / 'out')]
    assert cli.main([*model, '--data', f'folder:{tmp_path}/nothing']) == 1
    assert 'nothing' in capsys.readouterr().err
    with pytest.raises(SystemExit, match='2'):
        cli.main([*model, '--data', 'folder:x', '--protocol', 'nyud'])
    assert not (tmp_path / 'out').exists()
