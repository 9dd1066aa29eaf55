# SPDX-License-Identifier: Apache-2.0
"""The rooms folder: what is read is what was rendered; stopping and damage are survived."""

from __future__ import annotations

import json
from pathlib import Path
import shutil

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.camera import CameraModel
from mtl_perception.datasets import rooms_command
from mtl_perception.datasets.dataset import Dataset, open_dataset
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.rooms import DEPTH_STEP_M, RoomsDataset, write_frame
from mtl_perception.datasets.rooms_command import main, write_dataset
from mtl_perception.simulation.rooms import rooms_frames
from mtl_perception.values import Sample
import numpy as np
import pytest

SIZE = (48, 36)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three frames in two worlds, written by the command."""
    out = tmp_path_factory.mktemp('rooms') / 'data'
    code = main(['--frames', '3', '--seed', '2', '--size', '48x36', '--frames-per-world', '2',
                 '--out', str(out)])
    assert code == 0
    return out


def test_reads_what_was_rendered(folder):
    """Every frame against the renderer's own, within the stated steps."""
    dataset = RoomsDataset(folder)
    rendered = list(rooms_frames(2, 3, size=SIZE, frames_per_world=2))
    assert len(dataset) == len(rendered) == 3
    assert dataset.names == tuple(sample.name for sample in rendered)
    assert [task.name for task in dataset.tasks] == ['semantic', 'depth', 'normals', 'edges']
    for index, expected in enumerate(rendered):
        found = dataset[index]
        assert found.name == expected.name
        assert found.camera == expected.camera
        np.testing.assert_array_equal(found.pose, expected.pose)
        assert found.image.dtype == np.uint8
        # JPEG: close on average, and channels in their order.
        error = np.abs(found.image.astype(int) - expected.image)
        assert error.mean() < 5
        for name in ('semantic', 'edges'):
            np.testing.assert_array_equal(found.targets[name], expected.targets[name])
            assert found.targets[name].dtype == np.uint8
        np.testing.assert_allclose(
            found.targets['depth'], expected.targets['depth'], atol=DEPTH_STEP_M / 2 + 1e-6)
        cosine = (found.targets['normals'] * expected.targets['normals']).sum(-1)
        assert np.degrees(np.arccos(np.clip(cosine.astype(np.float64), -1, 1))).max() < 0.05
        np.testing.assert_allclose(np.linalg.norm(found.targets['normals'], axis=-1), 1, atol=1e-5)
        assert found.targets['depth'].dtype == found.targets['normals'].dtype == np.float32


RENDER = 'rooms:render?frames=3&seed=2&size=48,36&frames_per_world=2'


def test_rendered_on_demand_by_workers_it_is_the_same_world(folder):
    """Out of order, in two processes: the renderer's sequence, and the folder's files."""
    data = pytest.importorskip('torch.utils.data')
    dataset, stored = open_dataset(RENDER, 'train'), RoomsDataset(folder)
    assert isinstance(dataset, Dataset)
    assert dataset.names == stored.names
    assert dataset.tasks == stored.tasks
    loader = data.DataLoader(
        dataset, batch_size=None, sampler=[2, 0, 1], num_workers=2, collate_fn=lambda each: each)
    rendered = list(rooms_frames(2, 3, size=SIZE, frames_per_world=2))
    for index, found in zip([2, 0, 1], loader, strict=True):
        expected, file = rendered[index], stored[index]
        assert found.name == expected.name == file.name
        assert found.camera == expected.camera == file.camera
        np.testing.assert_array_equal(found.image, expected.image)
        for name, target in expected.targets.items():
            np.testing.assert_array_equal(found.targets[name], target)
        for name in ('semantic', 'edges'):
            np.testing.assert_array_equal(found.targets[name], file.targets[name])
        np.testing.assert_array_equal(found.pose, file.pose)
        np.testing.assert_allclose(
            found.targets['depth'], file.targets['depth'], atol=DEPTH_STEP_M / 2 + 1e-6)


def test_rendered_splits_share_no_world():
    """Train and val: other seeds, as the command's examples have them."""
    train, val = open_dataset(RENDER, 'train'), open_dataset(RENDER, 'val')
    assert (len(train), len(val)) == (3, 1)
    assert {name.split('_')[1] for name in train.names} == {'2'}
    assert {name.split('_')[1] for name in val.names} == {'900002'}
    assert train.settings['seed'] != val.settings['seed']
    with pytest.raises(IndexError):
        train[3]


@pytest.mark.parametrize(('spec', 'match'), [
    ('rooms:render', 'number of frames, as in rooms:render'),
    ('rooms:render?frames=0', 'should be positive'),
    ('rooms:render?frames=2&seed=-1', '-1 is negative'),
    ('rooms:render?frames=2&size=320', 'width and height'),
    ('rooms:/data/rooms?frames=2', 'frames is for rooms:render'),
])
def test_what_cannot_be_rendered_is_refused(spec, match):
    """And options of rendering do not pass unnoticed by a folder."""
    with pytest.raises(DatasetError, match=match):
        open_dataset(spec, 'train')


def test_files_are_what_the_layout_says(folder):
    """Read the files with OpenCV and JSON alone, as another program would."""
    lines = (folder / 'worlds/00000/frames.jsonl').read_text().splitlines()
    expected = next(iter(rooms_frames(2, 1, size=SIZE, frames_per_world=2)))
    entry = json.loads(lines[0])
    assert len(lines) == 2
    assert entry['camera']['fx'] == expected.camera.fx
    depth = cv2.imread(str(folder / 'worlds/00000/0000_depth.png'), cv2.IMREAD_UNCHANGED)
    assert depth.dtype == np.uint16
    np.testing.assert_allclose(depth * 0.00025, expected.targets['depth'], atol=0.000126)
    bgr = cv2.imread(str(folder / 'worlds/00000/0000_normals.png'), cv2.IMREAD_UNCHANGED)
    normals = (bgr[..., ::-1].astype(float) - 32768) / 32767
    np.testing.assert_allclose(normals, expected.targets['normals'], atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(
    depth=st.lists(st.one_of(st.floats(0.2, 16.3), st.just(float('nan')), st.just(50.0)),
                   min_size=6, max_size=6),
    angles=st.lists(st.tuples(st.floats(0, 6.28), st.floats(0, 1.57)), min_size=6, max_size=6),
)
def test_any_frame_survives_the_files(tmp_path_factory, depth, angles):
    """Depth within half a step, too far or NaN = NaN; normals within 0.003 degrees."""
    directory = tmp_path_factory.mktemp('frame')
    deep = np.array(depth, np.float32).reshape(2, 3)
    turn, tilt = np.array(angles, np.float64).reshape(2, 3, 2).transpose(2, 0, 1)
    normals = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), -np.cos(tilt)],
                       axis=-1).astype(np.float32)
    normals[np.isnan(deep)] = np.nan
    labels = np.array([[0, 17, 255], [3, 4, 5]], np.uint8)
    camera = CameraModel(3, 2, 2.0, 2.5, 1.0, 0.5)
    sample = Sample(np.zeros((2, 3, 3), np.uint8), {
        'semantic': labels, 'depth': deep, 'normals': normals,
        'edges': np.array([[0, 1, 255], [1, 1, 0]], np.uint8),
    }, camera, 'a', np.eye(4))
    world = directory / 'worlds/00000'
    world.mkdir(parents=True)
    (world / 'frames.jsonl').write_text(json.dumps(write_frame(sample, world, 0)) + '\n')
    (directory / 'rooms.json').write_text('{"format_version": 1}')
    (directory / 'tasks.yaml').write_text(
        rooms_command.yaml.safe_dump([t.to_json() for t in rooms_command.standard_tasks('rooms')]))
    found = RoomsDataset(directory)[0]
    expected = np.where(deep > 16.4, np.nan, deep)
    np.testing.assert_allclose(found.targets['depth'], expected, atol=0.000126)
    np.testing.assert_array_equal(found.targets['semantic'], labels)
    np.testing.assert_array_equal(found.targets['edges'], sample.targets['edges'])
    chord = np.linalg.norm(found.targets['normals'] - normals, axis=-1)
    assert np.nanmax(chord, initial=0.0) < np.radians(0.003)
    assert np.array_equal(np.isnan(chord), np.isnan(deep))


def test_a_stopped_run_is_continued(folder, tmp_path, monkeypatch):
    """Only the missing world is rendered, and the folder ends as in one go."""
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / 'worlds/00001')
    asked = []
    render = rooms_command.render_world
    monkeypatch.setattr(
        rooms_command, 'render_world', lambda *job: asked.append(job[2]) or render(*job))
    write_dataset(copy, 2, 3, size=SIZE, frames_per_world=2)
    assert asked == [1]
    names = sorted(path.relative_to(folder) for path in folder.rglob('*'))
    assert names == sorted(path.relative_to(copy) for path in copy.rglob('*'))
    for name in names:
        if (folder / name).is_file():
            assert (folder / name).read_bytes() == (copy / name).read_bytes(), name


def test_an_interrupted_world_leaves_nothing(tmp_path, monkeypatch):
    """A world that fails half way does not appear."""
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rooms_command, 'write_frame', fail)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / 'x', 2, 1, size=SIZE, frames_per_world=1)
    assert list((tmp_path / 'x/worlds').iterdir()) == []
    with pytest.raises(DatasetError, match='no finished world'):
        RoomsDataset(tmp_path / 'x')


def test_worker_processes_write_the_same(folder, tmp_path):
    """Two processes, the same bytes."""
    write_dataset(tmp_path / 'two', 2, 3, size=SIZE, frames_per_world=2, workers=2)
    for file in folder.rglob('*.*'):
        assert file.read_bytes() == (tmp_path / 'two' / file.relative_to(folder)).read_bytes()


def test_other_settings_are_refused(folder, tmp_path):
    """A folder of another seed, or of other things, is not written into."""
    with pytest.raises(DatasetError, match='begun with'):
        write_dataset(folder, 3, 3, size=SIZE, frames_per_world=2)
    (tmp_path / 'mine.txt').write_text('x')
    with pytest.raises(DatasetError, match='not empty'):
        write_dataset(tmp_path, 2, 1)


@pytest.mark.parametrize('damage', ['image', 'size', 'cut_image', 'cut_target'])
def test_damage_is_named(folder, tmp_path, damage):
    """Each broken file is named in the message."""
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    world = copy / 'worlds/00000'
    match = {'image': '0000_image', 'size': '0000_edges',
             'cut_image': r'0000_image\.jpg is cut short.*resume rendering',
             'cut_target': r'0000_depth\.png is cut short'}[damage]
    if damage == 'image':
        (world / '0000_image.jpg').write_bytes(b'not a picture')
    elif damage == 'size':
        cv2.imwrite(str(world / '0000_edges.png'), np.zeros((5, 5), np.uint8))
    else:
        file = world / ('0000_image.jpg' if damage == 'cut_image' else '0000_depth.png')
        data = file.read_bytes()
        file.write_bytes(data[:len(data) // 2])
        if damage == 'cut_image':
            # The trap: OpenCV returns a frame of full size and fills what is missing.
            assert cv2.imread(str(file)).shape == (36, 48, 3)
    dataset = RoomsDataset(copy)
    with pytest.raises(DatasetError, match=match):
        dataset[0]
    assert dataset[1].name == dataset.names[1]


@pytest.mark.parametrize(('lacks', 'match'), [
    ('rooms.json', 'no rooms dataset'),
    ('worlds/00001/0000_image.jpg', r'00001/0000_image\.jpg is missing'),
    ('worlds/00000/0001_depth.png', r'00000/0001_depth\.png is missing; .*copy it again'),
    ('worlds/00001/frames.jsonl', r'00001/frames\.jsonl is missing'),
])
def test_an_incomplete_folder_is_not_opened(folder, tmp_path, lacks, match):
    """What a copy that stopped lacks is named before the first frame is read."""
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    (copy / lacks).unlink()
    with pytest.raises(DatasetError, match=match):
        RoomsDataset(copy)


@pytest.mark.parametrize(('file', 'text', 'match'), [
    ('worlds/00000/frames.jsonl', '{"name": "a"}', 'frames.jsonl: bad line'),
    ('rooms.json', '{', 'rooms.json'),
    ('rooms.json', '{"format_version": 99}', 'format_version'),
])
def test_a_broken_description_is_named(folder, tmp_path, file, text, match):
    """The descriptions are read when the folder is opened."""
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    (copy / file).write_text(text)
    with pytest.raises(DatasetError, match=match):
        RoomsDataset(copy)


def test_a_world_that_is_being_rendered_is_not_there_yet(folder, tmp_path):
    """A folder that still grows can be read."""
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    (copy / 'worlds/.00002.abc').mkdir()
    (copy / 'worlds/.00002.abc/frames.jsonl').write_text('{"name"')
    assert len(RoomsDataset(copy)) == 3


@pytest.mark.parametrize('arguments', [
    ['--out', 'x'], ['--frames', '0', '--out', 'x'], ['--frames', '5'],
    ['--frames', '5', '--out', 'x', '--size', '320'],
    ['--frames', '5', '--out', 'x', '--size', '0x240'],
])
def test_bad_arguments_are_usage_errors(arguments):
    """Exit code 2, as argparse does."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
