# SPDX-License-Identifier: Apache-2.0
"""SYNTHIA-RAND-CITYSCAPES: 16-bit channels, ids, centimetres, and a split that never moves."""

from __future__ import annotations

import random

import cv2
from mtl_perception.datasets import synthia
from mtl_perception.datasets.dataset import open_dataset
from mtl_perception.datasets.errors import DatasetError
import numpy as np
import pytest

# id -> class of the 16, by DenseMTL's table.
SIXTEEN = {
    3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 1: 9, 10: 10, 17: 11, 8: 12, 19: 13,
    12: 14, 11: 15,
}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])


def write_tree(root, numbers, depth_folder, *, channels):
    for number in numbers:
        name = f'{number:07d}.png'
        write(root / 'RGB' / name, np.full((23, 5, 3), (9, 8, 7), np.uint8))
        ids = np.repeat(np.arange(23, dtype=np.uint16)[:, None], 5, axis=1)
        # The instance is in the second channel; it exceeds a byte.
        instances = np.full_like(ids, 3000 + number)
        labels = np.stack([ids, instances, np.zeros_like(ids)], axis=-1)
        write(root / 'GT/LABELS' / name, labels if channels == 3 else ids)
        depth = np.full((23, 5), 300 + number, np.uint16)
        depth[0], depth[1] = 65535, 0
        stored = np.repeat(depth[..., None], 3, -1) if channels == 3 else depth
        write(root / depth_folder / name, stored)


@pytest.fixture
def two_and_one(monkeypatch):
    monkeypatch.setattr(
        synthia, '_SPLITS', {'train': range(2), 'val': range(2, 3), 'all': range(3)}
    )


@pytest.mark.usefixtures('two_and_one')
@pytest.mark.parametrize(('folder', 'channels'), [('Depth/Depth', 3), ('Depth', 1)])
def test_the_class_is_the_first_channel_and_depth_is_centimetres(tmp_path, folder, channels):
    write_tree(tmp_path, range(3), folder, channels=channels)
    dataset = open_dataset(f'synthia:{tmp_path}', 'train')
    sample = dataset[1]
    assert sample.name == '0000001'
    np.testing.assert_array_equal(sample.image[0, 0], (9, 8, 7))
    for number in range(23):
        assert (sample.targets['semantic'][number] == SIXTEEN.get(number, 255)).all(), number
    depth = sample.targets['depth']
    np.testing.assert_allclose(depth[2:], 3.01)
    assert np.isnan(depth[:2]).all(), 'sky, and no measurement'
    assert [task.channels for task in dataset.tasks] == [16, 1]


def test_the_last_fifth_by_number_is_held_out():
    splits = {name: set(numbers) for name, numbers in synthia._SPLITS.items()}
    assert not splits['train'] & splits['val']
    assert splits['train'] | splits['val'] == splits['all'] == set(range(9400))
    assert len(splits['val']) == 1880 == 9400 // 5
    assert min(splits['val']) > max(splits['train']), 'neighbours stay together'


@pytest.mark.usefixtures('two_and_one')
def test_order_does_not_depend_on_the_disk_or_chance(tmp_path):
    write_tree(tmp_path, (2, 0, 1), 'Depth', channels=1)
    for seed in (0, 1):
        random.seed(seed)
        names = open_dataset(f'synthia:{tmp_path}', 'all').names
        assert names == ('0000000', '0000001', '0000002')


def test_a_part_of_the_download_is_refused_not_split_anew(tmp_path):
    write_tree(tmp_path, range(10), 'Depth/Depth', channels=3)
    with pytest.raises(DatasetError, match=r'RGB/0007520\.png') as caught:
        open_dataset(f'synthia:{tmp_path}', 'val')
    assert 'synthia-dataset.net' in str(caught.value)


@pytest.mark.usefixtures('two_and_one')
def test_wrong_files_are_named_and_intrinsics_are_for_the_published_size(tmp_path):
    write_tree(tmp_path, range(3), 'Depth', channels=1)
    write(tmp_path / 'Depth/0000000.png', np.zeros((23, 5), np.uint8))
    write(tmp_path / 'GT/LABELS/0000001.png', np.full((23, 5), 77, np.uint16))
    dataset = open_dataset(f'synthia:{tmp_path}', 'train')
    with pytest.raises(DatasetError, match=r'Depth/0000000\.png: depth is uint8'):
        dataset[0]
    with pytest.raises(DatasetError, match=r'LABELS/0000001\.png: holds label 77'):
        dataset[1]
    write(tmp_path / 'RGB/0000002.png', np.zeros((760, 1280, 3), np.uint8))
    write(tmp_path / 'Depth/0000002.png', np.full((760, 1280), 1000, np.uint16))
    sample = open_dataset(f'synthia:{tmp_path}?tasks=depth,normals', 'val')[0]
    camera = sample.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (532.740352, 532.740352, 640.0, 380.0)
    normals = sample.targets['normals'][10:-10, 10:-10]
    np.testing.assert_allclose(normals, np.broadcast_to([0, 0, -1], normals.shape), atol=1e-4)
