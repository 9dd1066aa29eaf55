# SPDX-License-Identifier: Apache-2.0
"""Virtual KITTI 2: coloured classes, centimetres, sky, scene splits, variations and poses."""

from __future__ import annotations

import random

import cv2
from mtl_perception.datasets import vkitti2
from mtl_perception.datasets.dataset import open_dataset
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.vkitti2 import SCENES, VARIATIONS
import numpy as np
import pytest

# The published colours (R, G, B) in the published order, and the 8 classes of DenseMTL's table.
COLOURS = [
    (210, 0, 200), (90, 200, 255), (0, 199, 0), (90, 240, 0), (140, 140, 140), (100, 60, 100),
    (250, 100, 255), (255, 255, 0), (200, 200, 0), (255, 130, 0), (80, 80, 80), (160, 60, 60),
    (255, 127, 80), (0, 139, 139),
]
EIGHT = {5: 0, 4: 1, 9: 2, 8: 3, 7: 4, 2: 5, 3: 5, 1: 6, 11: 7, 12: 7, 13: 7}
FRAMES_HERE = 2
POSE = np.array([[0.0, -1, 0, 3], [0, 0, -1, 1.5], [1, 0, 0, -7], [0, 0, 0, 1]])


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])


def write_tree(root, variations=VARIATIONS):
    """All scenes and variations with two tiny frames each; one frame of the true size."""
    colours = np.zeros((15, 4, 3), np.uint8)  # the last row is Undefined, black
    colours[:14] = np.array(COLOURS, np.uint8)[:, None]
    depth = np.full((15, 4), 2000, np.uint16)
    depth[0], depth[1] = 65535, 65534
    image = np.zeros((15, 4, 3), np.uint8)
    for scene in SCENES:
        for variation in variations:
            base = root / scene / variation
            for camera in (0, 1):
                for frame in range(FRAMES_HERE):
                    where = f'Camera_{camera}'
                    frames = base / 'frames'
                    write(frames / 'rgb' / where / f'rgb_{frame:05d}.jpg', image)
                    write(frames / 'depth' / where / f'depth_{frame:05d}.png', depth + frame)
                    write(
                        frames / 'classSegmentation' / where / f'classgt_{frame:05d}.png', colours
                    )
    big = root / 'Scene01' / 'clone'
    write(big / 'frames/rgb/Camera_0/rgb_00001.jpg', np.zeros((375, 1242, 3), np.uint8))
    rows = np.arange(375)[:, None] * np.ones((1, 1242))
    # The ground 1.5 m below the camera, in whole centimetres; above the horizon the sky.
    with np.errstate(divide='ignore'):
        ground = np.where(rows > 187, 725.0087 * 1.5 / (rows - 187.0), 655.35)
    centimetres = np.minimum(np.rint(ground * 100), 65535).astype(np.uint16)
    write(big / 'frames/depth/Camera_0/depth_00001.png', centimetres)
    write(
        big / 'frames/classSegmentation/Camera_0/classgt_00001.png',
        np.full((375, 1242, 3), COLOURS[5], np.uint8),
    )
    header = 'frame cameraID ' + ' '.join(f'r{i},{j}' for i in range(4) for j in range(4))
    world_to_camera = np.linalg.inv(POSE)
    lines = [
        ' '.join(map(str, (frame, camera, *(world_to_camera + shift(camera)).ravel())))
        for frame in range(FRAMES_HERE) for camera in (0, 1)
    ]
    (big / 'extrinsic.txt').write_text('\n'.join([header, *lines]) + '\n')


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp('vkitti2')
    write_tree(root)
    return root


def shift(camera):
    """The right camera is 0.532725 m to the right."""
    move = np.zeros((4, 4))
    move[0, 3] = -0.532725 * camera
    return move


@pytest.fixture
def short_scenes(monkeypatch):
    monkeypatch.setattr(vkitti2, 'SCENES', dict.fromkeys(SCENES, FRAMES_HERE))


def test_the_published_numbers_of_frames():
    assert sum(SCENES.values()) == 2126
    assert len(VARIATIONS) == 10


@pytest.mark.usefixtures('short_scenes')
def test_colours_become_classes(tree):
    sample = open_dataset(f'vkitti2:{tree}?variations=fog', 'train')[0]
    for index in range(14):
        assert (sample.targets['semantic'][index] == index).all(), index
    assert (sample.targets['semantic'][14] == 255).all(), 'Undefined'
    dataset = open_dataset(f'vkitti2:{tree}?variations=fog&labels=streets8', 'train')
    for index in range(14):
        assert (dataset[0].targets['semantic'][index] == EIGHT.get(index, 255)).all(), index
    names = dataset.tasks[0].label_set.names
    assert [names[each] for each in (EIGHT[4], EIGHT[12])] == ['building', 'vehicle']


@pytest.mark.usefixtures('short_scenes')
def test_depth_is_centimetres_and_sky_has_none(tree):
    depth = open_dataset(f'vkitti2:{tree}?variations=rain', 'train')[0].targets['depth']
    assert np.isnan(depth[0]).all()
    np.testing.assert_allclose(depth[1], 655.34)
    np.testing.assert_allclose(depth[2:], 20.0)


@pytest.mark.usefixtures('short_scenes')
def test_whole_scenes_are_held_out_and_nothing_depends_on_chance(tree):
    orders = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        orders.append([open_dataset(f'vkitti2:{tree}', each).names for each in ('train', 'val')])
    assert orders[0] == orders[1]
    train, val = orders[0]
    scenes = [{name.split('/')[0] for name in names} for names in (train, val)]
    assert scenes == [{'Scene02', 'Scene06', 'Scene18', 'Scene20'}, {'Scene01'}]
    assert len(train) == 4 * 10 * FRAMES_HERE
    assert len(open_dataset(f'vkitti2:{tree}', 'all')) == 5 * 10 * FRAMES_HERE
    assert len(set(train + val)) == len(train) + len(val)
    both = open_dataset(f'vkitti2:{tree}?cameras=0,1&variations=clone,sunset', 'val')
    assert len(both) == 2 * 2 * FRAMES_HERE


@pytest.mark.usefixtures('short_scenes')
def test_intrinsics_poses_and_derived_normals(tree):
    spec = f'vkitti2:{tree}?variations=clone&tasks=semantic,depth,normals&cameras=0,1'
    dataset = open_dataset(spec, 'val')
    sample = dataset[dataset.names.index('Scene01/clone/Camera_0/00001')]
    camera = sample.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (725.0087, 725.0087, 620.5, 187.0)
    np.testing.assert_allclose(sample.pose, POSE, atol=1e-9, err_msg='camera to world')
    right = dataset[dataset.names.index('Scene01/clone/Camera_1/00001')]
    moved = POSE[:3, :3] @ [0.532725, 0, 0] + POSE[:3, 3]
    np.testing.assert_allclose(right.pose[:3, 3], moved, atol=1e-9)
    # Up to 30 m the ground's normal points up, and faces the camera.
    normals = sample.targets['normals'][225:370, 5:-5]
    angle = np.degrees(np.arccos(np.clip(-normals[..., 1], -1, 1)))
    assert np.isfinite(angle).mean() > 0.99
    assert np.nanmedian(angle) < 2
    assert np.nanpercentile(angle, 95) < 8
    assert dataset[0].camera is None, 'another size than published: no intrinsics'
    other = open_dataset(f'vkitti2:{tree}?variations=fog', 'val')[0]
    assert other.pose is None, 'the text ground truth is optional'


@pytest.mark.usefixtures('short_scenes')
def test_wrong_files_are_named(tree, tmp_path):
    for folder in ('rgb', 'depth', 'classSegmentation'):
        target = tmp_path / 'Scene01/clone/frames' / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(tree / 'Scene01/fog/frames' / folder)
    spec = f'vkitti2:{tmp_path}?variations=clone'
    assert len(open_dataset(spec, 'val')) == FRAMES_HERE
    with pytest.raises(DatasetError, match=r'Scene01/15-deg-left.*naverlabs'):
        open_dataset(f'vkitti2:{tmp_path}', 'val')
    (tmp_path / 'Scene01/clone/frames/classSegmentation').unlink()
    wrong = tmp_path / 'Scene01/clone/frames/classSegmentation/Camera_0/classgt_00000.png'
    write(wrong, np.full((15, 4, 3), (1, 2, 3), np.uint8))
    write(wrong.with_name('classgt_00001.png'), np.zeros((15, 4), np.uint8))
    dataset = open_dataset(spec, 'val')
    with pytest.raises(DatasetError, match=r'classgt_00000\.png: holds colour 1, 2, 3 in 60'):
        dataset[0]
    with pytest.raises(DatasetError, match=r'classgt_00001\.png.*colours'):
        dataset[1]
    with pytest.raises(DatasetError, match='foggy'):
        open_dataset(f'vkitti2:{tree}?variations=foggy', 'val')
    with pytest.raises(DatasetError, match='cameras'):
        open_dataset(f'vkitti2:{tree}?cameras=2', 'val')


def test_a_half_downloaded_scene_is_not_a_shorter_scene(tree):
    with pytest.raises(DatasetError, match=r'of 1341 files are missing'):
        open_dataset(f'vkitti2:{tree}?variations=clone', 'val')
