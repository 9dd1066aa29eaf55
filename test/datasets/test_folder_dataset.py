# SPDX-License-Identifier: Apache-2.0
"""The folder layout: tasks.yaml, several tasks from one label file, and CamVid itself."""

from __future__ import annotations

import cv2
from mtl_perception.datasets.dataset import open_dataset
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.tasks import load_label_set
import numpy as np
import pytest
import yaml

CLASSES = ['sky', 'road', 'car', 'bicyclist']
TASKS = {
    'scene': {'kind': 'semantic', 'classes': CLASSES},
    'ground': {
        'kind': 'semantic', 'from': 'scene', 'classes': {'ground': ['road'], 'rest': '*'},
    },
    'movers': {
        'kind': 'semantic', 'from': 'scene',
        'classes': {'none': ['sky', 'road'], 'mover': ['car', 'bicyclist']},
    },
}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])


def describe(root, tasks, **more):
    (root / 'tasks.yaml').write_text(yaml.safe_dump({'tasks': tasks, **more}, sort_keys=False))


def write_tree(root):
    """Three frames with one label file each, and three tasks made of it."""
    describe(root, TASKS)
    labels = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
    for split, stems in (('train', ('b', 'a')), ('val', ('c',))):
        for stem in stems:
            suffix = '.jpg' if stem == 'a' else '.png'
            write(root / 'images' / split / (stem + suffix), np.zeros((2, 3, 3), np.uint8))
            write(root / 'labels/scene' / split / f'{stem}.png', labels)


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path)
    return tmp_path


def test_one_label_file_serves_several_tasks(tree):
    dataset = open_dataset(f'folder:{tree}', 'train')
    assert dataset.names == ('a', 'b')
    sets = {task.name: task.label_set.names for task in dataset.tasks}
    assert sets == {
        'scene': tuple(CLASSES), 'ground': ('ground', 'rest'), 'movers': ('none', 'mover'),
    }
    targets = dataset[0].targets
    np.testing.assert_array_equal(targets['scene'], [[0, 1, 2], [3, 255, 0]])
    np.testing.assert_array_equal(targets['ground'], [[1, 0, 1], [1, 255, 1]])
    np.testing.assert_array_equal(targets['movers'], [[0, 0, 1], [1, 255, 0]])
    for task in dataset.tasks:
        assert len(set(task.label_set.colours)) == len(task.label_set)


def test_classes_that_are_not_taken_are_unlabelled(tree):
    describe(tree, TASKS | {'movers': {
        'kind': 'semantic', 'from': 'scene', 'classes': {'vehicle': ['car'], 'rider': 'bicyclist'},
    }})
    movers = open_dataset(f'folder:{tree}?tasks=movers', 'val')[0].targets['movers']
    np.testing.assert_array_equal(movers, [[255, 255, 0], [1, 255, 255]])


def test_numbers_need_not_begin_at_zero_and_another_value_may_mean_ignore(tree):
    # In the files: 0 is void, 1 road, 2 car, 3 bicyclist; 9 means ignore.
    describe(tree, {'scene': {
        'kind': 'semantic', 'classes': [None, 'road', 'car', 'bicyclist'], 'ignore': 9,
    }})
    write(tree / 'labels/scene/val/c.png', np.array([[0, 1, 2], [3, 9, 1]], np.uint8))
    dataset = open_dataset(f'folder:{tree}', 'val')
    np.testing.assert_array_equal(dataset[0].targets['scene'], [[255, 0, 1], [2, 255, 0]])
    assert dataset.tasks[0].label_set.names == ('road', 'car', 'bicyclist')
    with pytest.raises(DatasetError, match='label 255'):
        open_dataset(f'folder:{tree}', 'train')[0]


def test_a_published_label_set_and_another_description(tree, tmp_path_factory):
    other = tmp_path_factory.mktemp('recipe')
    describe(other, {'scene': {'kind': 'semantic', 'label_set': 'rooms'}})
    spec = f'folder:{tree}?tasks_file={other / "tasks.yaml"}'
    assert open_dataset(spec, 'train').tasks[0].label_set == load_label_set('rooms')


def test_other_kinds_and_intrinsics(tree):
    describe(
        tree,
        {
            'scene': {'kind': 'parts', 'classes': CLASSES},
            'depth': {'kind': 'depth', 'unit_m': 0.0002},
            'normals': {'kind': 'normals', 'axes': ['right', 'down', 'forward']},
            'borders': {'kind': 'edges', 'edge_meaning': 'contours'},
            'front': {'kind': 'saliency'},
        },
        camera={'fx': 400, 'fy': 410, 'cx': 1.0, 'cy': 0.5},
    )
    write(tree / 'labels/depth/val/c.png', np.array([[0, 10000, 65535]] * 2, np.uint16))
    normals = np.full((2, 3, 3), (128, 128, 0), np.uint8)
    write(tree / 'labels/normals/val/c.png', normals)
    for task in ('borders', 'front'):
        write(tree / f'labels/{task}/val/c.png', np.array([[0, 255, 0]] * 2, np.uint8))
    sample = open_dataset(f'folder:{tree}', 'val')[0]
    np.testing.assert_allclose(sample.targets['depth'][0], [np.nan, 2.0, 13.107], rtol=1e-6)
    np.testing.assert_allclose(sample.targets['normals'][1, 1], [0, 0, -1], atol=0.01)
    for task in ('borders', 'front'):
        np.testing.assert_array_equal(sample.targets[task], [[0, 1, 0]] * 2)
    camera = sample.camera
    assert (camera.width, camera.height, camera.fx, camera.cy) == (3, 2, 400, 0.5)


def test_partial_tasks_may_lack_files_others_may_not(tree):
    (tree / 'labels/scene/train/a.png').unlink()
    with pytest.raises(DatasetError, match=r'labels/scene/train/a\.png.*partial: true'):
        open_dataset(f'folder:{tree}', 'train')
    tasks = {name: {**task, 'partial': True} for name, task in TASKS.items()}
    describe(tree, tasks)
    dataset = open_dataset(f'folder:{tree}', 'train')
    assert dict(dataset[0].targets) == {}
    assert set(dataset[1].targets) == set(TASKS)


@pytest.mark.parametrize(('tasks', 'words'), [
    ({}, 'tasks'),
    ({'a': {'kind': 'flow'}}, "'flow'"),
    ({'a': {'kind': 'semantic'}}, 'either classes or label_set'),
    ({'a': {'kind': 'semantic', 'classes': ['x'], 'label_set': 'rooms'}}, 'either'),
    ({'a': {'kind': 'semantic', 'classes': 'x'}}, 'list of names'),
    ({'a': {'kind': 'semantic', 'classes': ['x', 'x']}}, 'more than once'),
    ({'a': {'kind': 'semantic', 'classes': ['x'], 'ignore': 0}}, 'ignore'),
    ({'a': {'kind': 'semantic', 'classes': ['x'], 'colour': 1}}, "no field 'colour'"),
    ({'a': {'kind': 'semantic', 'from': 'b', 'classes': {'x': ['y']}}}, "from 'b'"),
    ({'a': {'kind': 'semantic', 'label_set': 'rooms'},
      'b': {'kind': 'semantic', 'from': 'a', 'classes': {'x': ['unicorn']}}}, 'unicorn'),
    ({'a': {'kind': 'semantic', 'label_set': 'rooms'},
      'b': {'kind': 'semantic', 'from': 'a', 'classes': {'x': ['bed'], 'y': ['bed']}}}, 'two'),
    ({'a': {'kind': 'edges'}}, 'edge_meaning'),
    ({'a': {'kind': 'depth', 'unit_m': 0}}, 'unit_m'),
    ({'a': {'kind': 'normals', 'axes': ['right', 'up']}}, 'normals_axes'),
])
def test_descriptions_that_make_no_sense_are_refused(tree, tasks, words):
    describe(tree, tasks)
    with pytest.raises(DatasetError, match=words) as caught:
        open_dataset(f'folder:{tree}', 'train')
    assert 'tasks.yaml' in str(caught.value)


def test_folders_that_are_not_as_expected(tree):
    with pytest.raises(DatasetError, match=r'images/test/<frame>\.jpg'):
        open_dataset(f'folder:{tree}', 'test')
    write(tree / 'images/train/a.png', np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DatasetError, match='same name'):
        open_dataset(f'folder:{tree}', 'train')
    (tree / 'tasks.yaml').write_text('tasks: [')
    with pytest.raises(DatasetError, match='YAML'):
        open_dataset(f'folder:{tree}', 'val')
    (tree / 'tasks.yaml').unlink()
    with pytest.raises(DatasetError, match=r'tasks\.yaml is missing'):
        open_dataset(f'folder:{tree}', 'val')


@pytest.mark.realdata
def test_camvid_as_published_and_as_two_correlated_tasks(sample_data, tmp_path):
    root = sample_data / 'camvid'
    plain = open_dataset(f'folder:{root}', 'train')
    assert len(plain) == 367
    assert len(open_dataset(f'folder:{root}', 'val')) == 101
    names = yaml.safe_load((root / 'tasks.yaml').read_text())['tasks']['semantic']['classes']
    assert plain.tasks[0].label_set.names == tuple(names)
    describe(tmp_path, {
        'semantic': {'kind': 'semantic', 'classes': names},
        'ground': {'kind': 'semantic', 'from': 'semantic', 'classes': {
            'ground': ['road', 'pavement'], 'structure': ['building', 'fence', 'pole', 'sign'],
            'other': '*',
        }},
        'movers': {'kind': 'semantic', 'from': 'semantic', 'classes': {
            'still': '*', 'car': 'car', 'person': ['pedestrian', 'bicyclist'],
        }},
    })
    mapped = open_dataset(f'folder:{root}?tasks_file={tmp_path / "tasks.yaml"}', 'train')
    for index in (0, 200, 366):
        file = root / 'labels/semantic/train' / f'{plain.names[index]}.png'
        stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        sample = mapped[index]
        assert sample.image.shape == (360, 480, 3)
        np.testing.assert_array_equal(sample.targets['semantic'], stored)
        ground = np.isin(stored, [names.index('road'), names.index('pavement')])
        np.testing.assert_array_equal(sample.targets['ground'] == 0, ground)
        np.testing.assert_array_equal(
            sample.targets['movers'] == 1, stored == names.index('car')
        )
        for task in ('ground', 'movers'):
            np.testing.assert_array_equal(sample.targets[task] == 255, stored == 255)
