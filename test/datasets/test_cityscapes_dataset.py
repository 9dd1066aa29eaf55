# SPDX-License-Identifier: Apache-2.0
"""Cityscapes: ids to classes, disparity to metres, calibration, splits, and real frames."""

from __future__ import annotations

import json

import cv2
from mtl_perception.datasets.cityscapes import depth_from_disparity
from mtl_perception.datasets.dataset import open_dataset
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.tasks import load_label_set
import numpy as np
import pytest

# id -> train id of the official table (cityscapesScripts, helpers/labels.py).
OFFICIAL = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}
SIXTEEN = (7, 8, 11, 12, 13, 17, 19, 20, 21, 23, 24, 25, 26, 28, 32, 33)
EIGHT = {7: 0, 11: 1, 17: 2, 19: 3, 20: 4, 21: 5, 23: 6, 26: 7, 28: 7}
FRAMES = {
    'train': ['aachen_000000_000019', 'zurich_000003_000019'],
    'val': ['munster_000001_000019'],
}
# Two cars had different rigs: the calibration is per frame.
CAMERAS = {
    'aachen': (0.209313, 2262.52, 2265.3017905988554, 1096.98, 513.137),
    'zurich': (0.222126, 2268.36, 2225.5405988775956, 1048.64, 519.277),
    'munster': (0.222384, 2263.54965, 2250.3728, 1079.0175620000002, 515.006621),
}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def write_tree(root):
    """The official layout at full size, for images that compress to nothing."""
    ids = np.zeros((1024, 2048), np.uint8)
    ids[:34] = np.arange(34, dtype=np.uint8)[:, None]  # one row per id
    ids[34] = 255  # license plate: -1 in a byte
    disparity = np.zeros((1024, 2048), np.uint16)
    disparity[100:200] = 256 * 40 + 1  # 40 px
    disparity[200] = 1  # 0 px: infinitely far
    disparity[201] = 3000  # more than a byte holds
    image = np.zeros((1024, 2048, 3), np.uint8)
    image[:] = (30, 20, 10)  # OpenCV's B, G, R
    for split, names in FRAMES.items():
        for name in names:
            city = name.split('_')[0]
            write(root / f'leftImg8bit/{split}/{city}/{name}_leftImg8bit.png', image)
            write(root / f'gtFine/{split}/{city}/{name}_gtFine_labelIds.png', ids)
            # These lie beside the ids and must not be taken for them.
            write(root / f'gtFine/{split}/{city}/{name}_gtFine_color.png', image)
            write(root / f'gtFine/{split}/{city}/{name}_gtFine_instanceIds.png', ids)
            write(root / f'disparity/{split}/{city}/{name}_disparity.png', disparity)
            baseline, fx, fy, u0, v0 = CAMERAS[city]
            camera = root / f'camera/{split}/{city}/{name}_camera.json'
            camera.parent.mkdir(parents=True, exist_ok=True)
            camera.write_text(json.dumps({
                'extrinsic': {'baseline': baseline, 'pitch': 0.038, 'roll': 0, 'x': 1.7,
                              'y': 0.1, 'yaw': -0.0195, 'z': 1.22},
                'intrinsic': {'fx': fx, 'fy': fy, 'u0': u0, 'v0': v0},
            }))
    write(root / 'leftImg8bit/test/bonn/bonn_000000_000019_leftImg8bit.png', image)


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp('cityscapes')
    write_tree(root)
    return root


def test_ids_become_the_19_classes_of_the_official_table(tree):
    sample = open_dataset(f'cityscapes:{tree}', 'train')[0]
    labels = sample.targets['semantic']
    for number in range(34):
        assert (labels[number] == OFFICIAL.get(number, 255)).all(), number
    assert (labels[34] == 255).all()
    np.testing.assert_array_equal(sample.image[0, 0], (10, 20, 30))


@pytest.mark.parametrize(('name', 'expected'), [
    ('cityscapes16', {number: index for index, number in enumerate(SIXTEEN)}),
    ('streets8', EIGHT),
])
def test_smaller_sets_of_classes(tree, name, expected):
    dataset = open_dataset(f'cityscapes:{tree}?labels={name}&tasks=semantic', 'val')
    labels = dataset[0].targets['semantic']
    for number in range(34):
        assert (labels[number] == expected.get(number, 255)).all(), number
    assert dataset.tasks[0].label_set == load_label_set(name)


@pytest.mark.parametrize(('index', 'city'), [(0, 'aachen'), (1, 'zurich')])
def test_depth_uses_the_frames_own_calibration_and_leaves_holes_open(tree, index, city):
    sample = open_dataset(f'cityscapes:{tree}', 'train')[index]
    baseline, fx, fy, u0, v0 = CAMERAS[city]
    depth = sample.targets['depth']
    np.testing.assert_allclose(depth[100:200], baseline * fx / 40, rtol=1e-6)
    np.testing.assert_allclose(depth[201], baseline * fx / ((3000 - 1) / 256), rtol=1e-6)
    assert np.isnan(depth[:100]).all(), 'no measurement'
    assert np.isnan(depth[200]).all(), 'infinitely far'
    camera = sample.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (fx, fy, u0, v0)
    assert sample.name == FRAMES['train'][index]


def test_normals_are_derived_with_that_calibration(tree):
    sample = open_dataset(f'cityscapes:{tree}?tasks=normals', 'train')[0]
    assert set(sample.targets) == {'normals'}
    inside = sample.targets['normals'][120:180]
    # One disparity over the whole image is a wall that faces the camera.
    np.testing.assert_allclose(inside, np.broadcast_to([0, 0, -1], inside.shape), atol=1e-3)


def test_disparity_cut_to_eight_bits_is_refused():
    with pytest.raises(DatasetError, match='16 bit'):
        depth_from_disparity(np.zeros((4, 4), np.uint8), 500.0, 'some.png')


def test_splits_are_the_folders(tree):
    assert open_dataset(f'cityscapes:{tree}', 'train').names == tuple(FRAMES['train'])
    assert open_dataset(f'cityscapes:{tree}', 'val').names == tuple(FRAMES['val'])
    # The test split has images only.
    sample = open_dataset(f'cityscapes:{tree}?tasks=semantic', 'test')[0]
    assert dict(sample.targets) == {}
    with pytest.raises(DatasetError, match='train, val, test'):
        open_dataset(f'cityscapes:{tree}', 'validation')


def test_missing_packages_are_named(tree, tmp_path):
    (tmp_path / 'leftImg8bit').symlink_to(tree / 'leftImg8bit')
    (tmp_path / 'gtFine').symlink_to(tree / 'gtFine')
    with pytest.raises(DatasetError) as caught:
        open_dataset(f'cityscapes:{tmp_path}', 'train')
    for words in ('4 of 8', 'disparity/train/aachen', 'cityscapes-dataset.com', 'tasks'):
        assert words in str(caught.value)
    sample = open_dataset(f'cityscapes:{tmp_path}?tasks=semantic', 'train')[0]
    assert sample.camera is None
    with pytest.raises(DatasetError, match='leftImg8bit/train'):
        open_dataset(f'cityscapes:{tree / "gtFine"}', 'train')


@pytest.mark.parametrize('tasks', ['semantic', 'depth', ''])
def test_labels_without_their_image_are_an_incomplete_folder(tree, tmp_path, tasks):
    """One image beside the labels of two is no dataset of one frame."""
    for folder in ('gtFine', 'disparity', 'camera'):
        (tmp_path / folder).symlink_to(tree / folder)
    kept = 'leftImg8bit/train/aachen'
    (tmp_path / kept).mkdir(parents=True)
    (tmp_path / kept / 'aachen_000000_000019_leftImg8bit.png').symlink_to(
        tree / kept / 'aachen_000000_000019_leftImg8bit.png'
    )
    lost = 'leftImg8bit/train/zurich/zurich_000003_000019_leftImg8bit.png'
    with pytest.raises(DatasetError, match=f'the first is {lost}'):
        open_dataset(f'cityscapes:{tmp_path}?tasks={tasks}', 'train')
    # Without labels the disparity tells, where depth is asked for.
    (tmp_path / 'gtFine').unlink()
    if tasks == 'depth':
        with pytest.raises(DatasetError, match=f'the first is {lost}'):
            open_dataset(f'cityscapes:{tmp_path}?tasks=depth', 'train')
    elif not tasks:
        with pytest.warns(UserWarning, match='train has 1 frames, the published split 2975'):
            assert len(open_dataset(f'cityscapes:{tmp_path}?tasks=', 'train')) == 1


def test_a_broken_calibration_is_named(tree, tmp_path):
    for folder in ('leftImg8bit', 'gtFine', 'disparity'):
        (tmp_path / folder).symlink_to(tree / folder)
    broken = tmp_path / 'camera/val/munster/munster_000001_000019_camera.json'
    broken.parent.mkdir(parents=True)
    broken.write_text('{"intrinsic": {"fx": 2262.52}}')
    with pytest.raises(DatasetError, match=r'munster_000001_000019_camera\.json'):
        open_dataset(f'cityscapes:{tmp_path}', 'val')[0]


@pytest.mark.realdata
def test_real_frames_by_the_official_table(sample_data):
    root = sample_data / 'cityscapes'
    dataset = open_dataset(f'cityscapes:{root}?tasks=semantic', 'train')
    assert len(dataset) == 3
    table = np.full(256, 255, np.uint8)
    table[list(OFFICIAL)] = list(OFFICIAL.values())
    for index in range(3):
        sample = dataset[index]
        file = root / 'gtFine/train/aachen' / f'{sample.name}_gtFine_labelIds.png'
        stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(sample.targets['semantic'], table[stored])
        assert sample.image.shape == (1024, 2048, 3)
    # The road of a street photograph is below, its sky above.
    labels = dataset[0].targets['semantic']
    rows = np.arange(1024)[:, None] * np.ones((1, 2048))
    assert rows[labels == 0].mean() > 600 > rows[labels == 8].mean()
