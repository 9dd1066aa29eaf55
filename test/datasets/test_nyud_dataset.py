# SPDX-License-Identifier: Apache-2.0
"""NYUD-v2 in both packings: units, offsets, masks, axes, crops, splits, and the real frame 433."""

from __future__ import annotations

import random
import warnings

import cv2
from mtl_perception.camera import CameraModel
from mtl_perception.datasets.dataset import Dataset, open_dataset
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.tasks import load_label_set
import numpy as np
import pytest

SPLITS = {'train': ['12', '3', '7'], 'val': ['5', '1']}
SMALL = (6, 8)


def write_png(path, array):
    """OpenCV takes the last channel first, so colours are turned round."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])


def write_tree(root, layout, *, shape=SMALL, normals=None, depth=None):
    """Write a whole small dataset in the layout of the published archive."""
    generator = np.random.default_rng(0)
    for folder in ('gt_sets', 'depth', 'normals', 'edge'):
        (root / folder).mkdir(parents=True)
    for split, names in SPLITS.items():
        (root / 'gt_sets' / f'{split}.txt').write_text('\n'.join(names) + '\n')
    truth = {}
    for name in SPLITS['train'] + SPLITS['val']:
        labels = generator.integers(0, 41, shape).astype(np.uint8)
        edges = generator.integers(0, 2, shape).astype(np.uint8)
        metres = generator.uniform(0.7, 9.0, shape).astype(np.float32) if depth is None else depth
        vectors = generator.normal(size=(*shape, 3)) if normals is None else normals
        image = generator.integers(0, 256, (*shape, 3)).astype(np.uint8)
        write_png(root / 'images' / f'{name}.{"jpg" if layout == "npy" else "png"}', image)
        write_png(root / 'segmentation' / f'{name}.png', labels)
        np.save(root / 'depth' / f'{name}.npy', metres)
        vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        if layout == 'npy':
            np.save(root / 'normals' / f'{name}.npy', vectors.astype(np.float32))
            np.save(root / 'edge' / f'{name}.npy', edges.astype(np.float32))
        else:
            write_png(
                root / 'normals' / f'{name}.png', np.rint((vectors + 1) / 2 * 255).astype(np.uint8)
            )
            write_png(root / 'edge' / f'{name}.png', edges * 255)
        truth[name] = (image, labels, metres, vectors, edges)
    return truth


@pytest.mark.parametrize('layout', ['npy', 'png'])
def test_both_packings_give_the_same_conventions(tmp_path, layout):
    truth = write_tree(tmp_path, layout)
    dataset = open_dataset(f'nyud:{tmp_path}', 'train')
    assert isinstance(dataset, Dataset)
    assert [task.name for task in dataset.tasks] == ['semantic', 'depth', 'normals', 'edges']
    assert dataset.tasks[3].edge_meaning == 'label_borders'
    assert len(dataset) == 3
    for index, name in enumerate(SPLITS['train']):
        image, labels, metres, vectors, edges = truth[name]
        sample = dataset[index]
        assert sample.name == name
        if layout == 'png':
            np.testing.assert_array_equal(sample.image, image, err_msg='RGB, not BGR')
        for (row, column), stored in np.ndenumerate(labels):
            expected = 255 if stored == 0 else stored - 1
            assert sample.targets['semantic'][row, column] == expected
        np.testing.assert_array_equal(sample.targets['depth'], metres)
        assert sample.targets['depth'].dtype == np.float32
        # Stored: x right, y up, z to the camera. Ours: x right, y down, z forward.
        seen = sample.targets['normals']
        tolerance = 1e-6 if layout == 'npy' else 0.006
        np.testing.assert_allclose(seen[..., 0], vectors[..., 0], atol=tolerance)
        np.testing.assert_allclose(seen[..., 1], -vectors[..., 1], atol=tolerance)
        np.testing.assert_allclose(seen[..., 2], -vectors[..., 2], atol=tolerance)
        np.testing.assert_allclose(np.linalg.norm(seen, axis=-1), 1, atol=1e-6)
        np.testing.assert_array_equal(sample.targets['edges'], edges)
        assert sample.targets['edges'].max() == 1


@pytest.mark.parametrize('layout', ['npy', 'png'])
def test_holes_of_depth_and_normals_are_invalid_not_numbers(tmp_path, layout):
    write_tree(tmp_path, layout)
    depth = np.full((*SMALL, 1), 2.5, np.float32)  # some archives carry a channel axis
    depth[0, 0] = 0.0
    np.save(tmp_path / 'depth' / '12.npy', depth)
    if layout == 'npy':
        normals = np.full((*SMALL, 3), 1.0, np.float32)
        normals[0, 1] = 0.0
        np.save(tmp_path / 'normals' / '12.npy', normals)
    else:
        # Zero lies between two bytes, so no reader ever sees an exact zero.
        normals = np.full((*SMALL, 3), 255, np.uint8)
        normals[0, 1], normals[0, 2] = 127, 128
        write_png(tmp_path / 'normals' / '12.png', normals)
    targets = open_dataset(f'nyud:{tmp_path}', 'train')[0].targets
    assert np.isnan(targets['depth'][0, 0])
    assert np.isfinite(targets['depth']).sum() == depth.size - 1
    assert np.isnan(targets['normals'][0, 1]).all()
    if layout == 'png':
        assert np.isnan(targets['normals'][0, 2]).all()
    np.testing.assert_allclose(targets['normals'][5, 5], np.array([1, -1, -1]) / np.sqrt(3))


def test_splits_are_the_published_lists_whatever_the_random_state(tmp_path):
    write_tree(tmp_path, 'npy')
    orders = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        orders.append([open_dataset(f'nyud:{tmp_path}', each).names for each in ('train', 'val')])
    assert orders[0] == orders[1] == [('12', '3', '7'), ('5', '1')]
    assert not set(orders[0][0]) & set(orders[0][1])


def test_a_half_downloaded_folder_says_what_is_expected_missing_and_where_to_get_it(tmp_path):
    write_tree(tmp_path, 'npy')
    (tmp_path / 'depth' / '3.npy').unlink()
    (tmp_path / 'edge' / '7.npy').unlink()
    with pytest.raises(DatasetError) as caught:
        open_dataset(f'nyud:{tmp_path}', 'train')
    words = str(caught.value)
    for part in (str(tmp_path), '2 of 15', 'depth/3.npy', 'segmentation/<id>.png', 'https://'):
        assert part in words
    assert '\n' not in words
    # Without the tasks that lack files it opens.
    assert len(open_dataset(f'nyud:{tmp_path}?tasks=semantic,normals', 'train')) == 3
    with pytest.raises(DatasetError, match=r'val\.txt is missing; the folder holds labels'):
        (tmp_path / 'other' / 'labels').mkdir(parents=True)
        open_dataset(f'nyud:{tmp_path / "other"}', 'val')
    with pytest.raises(DatasetError, match='no such folder'):
        open_dataset(f'nyud:{tmp_path / "nowhere"}', 'val')


def test_damaged_files_are_named(tmp_path):
    write_tree(tmp_path, 'png')
    dataset = open_dataset(f'nyud:{tmp_path}', 'train')
    labels = np.full(SMALL, 41, np.uint8)
    write_png(tmp_path / 'segmentation' / '12.png', labels)
    with pytest.raises(DatasetError, match=r'12\.png: holds label 41'):
        dataset[0]
    np.save(tmp_path / 'depth' / '7.npy', np.array([{'a': 1}], object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r'7\.npy'):
        dataset[2]
    write_png(tmp_path / 'segmentation' / '5.png', np.zeros((3, 8), np.uint8))
    with pytest.raises(DatasetError, match="'semantic' is 8x3, but the image is 8x6"):
        open_dataset(f'nyud:{tmp_path}', 'val')[0]


def test_a_list_that_was_cut_is_noticed(tmp_path):
    """All that a cut list names is there: only its length tells."""
    write_tree(tmp_path, 'png')
    with pytest.warns(UserWarning, match='train has 3 frames, the published split 795'):
        open_dataset(f'nyud:{tmp_path}', 'train')
    with pytest.warns(UserWarning, match='val has 2 frames, the published split 654'):
        open_dataset(f'nyud:{tmp_path}', 'val')
    names = [str(number) for number in range(795)]
    (tmp_path / 'gt_sets' / 'train.txt').write_text('\n'.join(names))
    for name in names:
        (tmp_path / 'images' / f'{name}.png').touch()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(open_dataset(f'nyud:{tmp_path}?tasks=', 'train')) == 795


def room(camera):
    """Depth and outward-facing normals of a box room, from the equations of its planes."""
    rays = camera.rays().astype(np.float64)
    planes = (  # inward normal in the optical frame, distance from the camera
        ((0, -1, 0), 1.3), ((0, 1, 0), 1.2), ((1, 0, 0), 1.5), ((-1, 0, 0), 2.1), ((0, 0, -1), 3.4)
    )
    depth = np.full(rays.shape[:2], np.inf)
    normals = np.zeros_like(rays)
    for normal, distance in planes:
        with np.errstate(divide='ignore'):
            along = -distance / (rays @ np.array(normal, float))
        hit = (along > 0) & (along < depth)
        depth[hit] = along[hit]
        normals[hit] = normal
    return depth.astype(np.float32), normals


FULL = CameraModel(640, 480, 518.857901, 519.469611, 325.582449, 253.736166)


@pytest.mark.parametrize(('axes', 'vectors'), [
    ('right,up,backward', lambda n: n * (1, -1, -1)),
    ('right,down,forward', lambda n: n),
    ('left,up,forward', lambda n: n * (-1, -1, 1)),
    ('right,forward,up', lambda n: (n * (1, -1, 1))[..., [0, 2, 1]]),
])
def test_normals_in_other_axes_than_declared_are_caught_by_the_depth(tmp_path, axes, vectors):
    camera = FULL.cropped(40, 45, 560, 425)
    depth, truth = room(camera)
    write_tree(tmp_path, 'png', shape=(425, 560), normals=vectors(truth), depth=depth)
    default = 'right,up,backward'
    if axes != default:
        with pytest.raises(DatasetError, match=f'normals_axes={axes}'):
            open_dataset(f'nyud:{tmp_path}?tasks=normals', 'train')
    sample = open_dataset(f'nyud:{tmp_path}?normals_axes={axes}', 'train')[0]
    np.testing.assert_allclose(sample.targets['normals'], truth, atol=0.01)
    assert (np.sum(sample.targets['normals'] * sample.camera.rays(), -1) < 0).all()


@pytest.mark.parametrize(('shape', 'corner'), [
    ((480, 640), (0, 0)), ((427, 561), (40, 44)), ((425, 560), (40, 45)),
])
def test_intrinsics_follow_the_crop_of_the_white_border(tmp_path, shape, corner):
    write_tree(tmp_path, 'npy', shape=shape)
    camera = open_dataset(f'nyud:{tmp_path}?tasks=', 'train')[0].camera
    assert (camera.width, camera.height) == (shape[1], shape[0])
    np.testing.assert_allclose((camera.fx, camera.fy), (518.8579, 519.4696), atol=1e-3)
    np.testing.assert_allclose(
        (camera.cx + corner[0], camera.cy + corner[1]), (325.5824, 253.7362), atol=1e-3
    )


def test_axes_that_span_no_space_are_refused(tmp_path):
    write_tree(tmp_path, 'npy')
    for axes in ('right,left,up', 'right,up', 'east,up,forward'):
        with pytest.raises(DatasetError, match='normals_axes'):
            open_dataset(f'nyud:{tmp_path}?normals_axes={axes}', 'train')


@pytest.fixture
def frame_433(tmp_path, sample_data):
    """The real frame 433 in the png layout."""
    source = sample_data / 'nyuv2'
    for folder in ('gt_sets', 'images', 'segmentation', 'depth', 'normals', 'edge'):
        (tmp_path / folder).mkdir()
    (tmp_path / 'gt_sets' / 'val.txt').write_text('433\n')
    (tmp_path / 'images' / '433.png').write_bytes((source / '0433_rgb.png').read_bytes())
    normals = (source / '0433_normal_RxGzBup.png').read_bytes()
    (tmp_path / 'normals' / '433.png').write_bytes(normals)
    labels = cv2.imread(str(source / '0433_label40_0based_255void.png'), cv2.IMREAD_UNCHANGED)
    stored = np.where(labels == 255, 0, labels.astype(int) + 1).astype(np.uint8)
    write_png(tmp_path / 'segmentation' / '433.png', stored)
    depth = cv2.imread(str(source / '0433_depth_mm.png'), cv2.IMREAD_UNCHANGED)
    np.save(tmp_path / 'depth' / '433.npy', depth.astype(np.float32) / 1000)
    write_png(tmp_path / 'edge' / '433.png', np.zeros(depth.shape, np.uint8))
    return tmp_path


@pytest.mark.realdata
def test_normals_of_the_real_frame_agree_with_its_depth(frame_433):
    sample = open_dataset(f'nyud:{frame_433}?normals_axes=right,forward,up', 'val')[0]
    expected = normals_from_depth(sample.targets['depth'], sample.camera, 11).astype(np.float64)
    seen = sample.targets['normals'].astype(np.float64)
    cross = np.linalg.norm(np.cross(expected, seen), axis=-1)
    angle = np.degrees(np.arctan2(cross, (expected * seen).sum(-1)))
    assert np.isfinite(angle).mean() > 0.6
    assert np.nanmedian(angle) < 12
    with pytest.raises(DatasetError, match='normals_axes=right,forward,up'):
        open_dataset(f'nyud:{frame_433}', 'val')


@pytest.mark.realdata
def test_labels_of_the_real_frame_agree_with_those_in_13_classes(frame_433, sample_data):
    """Two published label images of one frame, numbered differently, agree by name."""
    labels = open_dataset(f'nyud:{frame_433}?tasks=semantic', 'val')[0].targets['semantic']
    thirteen = cv2.imread(str(sample_data / 'nyuv2' / '0433_label13.png'), cv2.IMREAD_UNCHANGED)
    for name in ('wall', 'floor', 'chair', 'table', 'window', 'ceiling'):
        ours = labels == load_label_set('nyu40').names.index(name)
        theirs = thirteen == load_label_set('nyu13').names.index(name) + 1
        assert not (ours & ~theirs).any(), name
    assert (labels == 255).sum() == (thirteen == 0).sum()
