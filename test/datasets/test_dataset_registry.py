# SPDX-License-Identifier: Apache-2.0
"""One way to open any dataset: specs, options, errors, copies to workers, and no torch."""

from __future__ import annotations

import pickle
import subprocess
import sys

import cv2
from mtl_perception.datasets.dataset import Dataset, KINDS, open_dataset, parse_spec
from mtl_perception.datasets.errors import DatasetError
import numpy as np
import pytest
import yaml


@pytest.fixture
def folder(tmp_path):
    for path in ('images/train/0.png', 'labels/scene/train/0.png'):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(tmp_path / 'images/train/0.png'), np.full((4, 5, 3), 9, np.uint8))
    cv2.imwrite(str(tmp_path / 'labels/scene/train/0.png'), np.ones((4, 5), np.uint8))
    tasks = {'scene': {'kind': 'semantic', 'classes': ['a', 'b']}}
    (tmp_path / 'tasks.yaml').write_text(yaml.safe_dump({'tasks': tasks}))
    return tmp_path


def test_texts_and_mappings_open_the_same(folder):
    for spec in (
        f'folder:{folder}',
        f'folder:{folder}?tasks=scene',
        {'kind': 'folder', 'path': str(folder), 'tasks': ['scene']},
        {'kind': 'folder', 'path': folder, 'tasks': None},
    ):
        dataset = open_dataset(spec, 'train')
        assert isinstance(dataset, Dataset)
        assert dataset.names == ('0',)
        assert (dataset[0].targets['scene'] == 1).all()
        assert dataset[-1].name == '0'
        with pytest.raises(IndexError):
            dataset[1]
    assert dict(open_dataset(f'folder:{folder}?tasks=', 'train')[0].targets) == {}


def test_specs_are_read():
    assert parse_spec('vkitti2:/data/x?labels=streets8&variations=fog,rain') == {
        'kind': 'vkitti2', 'path': '/data/x', 'labels': 'streets8', 'variations': 'fog,rain',
    }


@pytest.mark.parametrize(('spec', 'words'), [
    ('/data/nyu', 'KIND:PATH'),
    ('imagenet:/data', "'imagenet' is unknown; there are nyud"),
    ('nyud:', 'path'),
    ({'path': '/data'}, 'None is unknown'),
    ('nyud:/data?tasks', 'no option'),
    ('nyud:/data?tasks=depth&tasks=normals', 'no option'),
    ('nyud:/data?size=3', "no option 'size'; its options are tasks, normals_axes"),
    ('vkitti2:/data?normals_window=wide', "'wide' is not a whole number"),
    ({'kind': 'vkitti2', 'path': '/data', 'labels': 8}, 'text'),
    ({'kind': 'vkitti2', 'path': '/data', 'cameras': 0}, 'list'),
    ('vkitti2:/data?cameras=left', 'whole number'),
    ('rosbag:/data?tolerance_s=soon', "'soon' is not a number"),
])
def test_specs_that_make_no_sense_are_refused(spec, words):
    with pytest.raises(DatasetError, match=words):
        open_dataset(spec, 'train')


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'rosbag'])
def test_a_folder_that_is_not_there_gives_one_sentence(kind, tmp_path):
    with pytest.raises(DatasetError) as caught:
        open_dataset(f'{kind}:{tmp_path / "nowhere"}', 'val')
    assert str(tmp_path / 'nowhere') in str(caught.value)
    assert '\n' not in str(caught.value)
    if kind != 'folder':  # its splits are whatever folders there are
        with pytest.raises(DatasetError, match="no split 'dev'"):
            open_dataset(f'{kind}:{tmp_path}', 'dev')


def test_an_unknown_task_lists_the_datasets_own(folder):
    with pytest.raises(DatasetError, match="no task 'depth'; this dataset has scene"):
        open_dataset(f'folder:{folder}?tasks=depth', 'train')


def test_datasets_can_be_sent_to_workers(folder):
    dataset = pickle.loads(pickle.dumps(open_dataset(f'folder:{folder}', 'train')))
    assert dataset[0].name == '0'


def test_opening_and_reading_needs_no_torch(folder):
    code = (
        'import sys\n'
        'from mtl_perception.datasets.dataset import KINDS, open_dataset\n'
        'from importlib import import_module\n'
        'for each in KINDS.values(): import_module(each.partition(":")[0])\n'
        f'open_dataset("folder:{folder}", "train")[0]\n'
        'assert "torch" not in sys.modules, "torch was imported"\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120)
