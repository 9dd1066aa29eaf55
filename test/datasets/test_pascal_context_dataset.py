# SPDX-License-Identifier: Apache-2.0
"""PASCAL-Context: palettes, people of many parts, distilled targets, borders, the mask."""

from __future__ import annotations

import cv2
from mtl_perception.datasets.dataset import open_dataset
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.label_map import load_table
from mtl_perception.datasets.pascal_context import label_borders
import numpy as np
from PIL import Image
import pytest
from scipy.io import savemat

SHAPE = (12, 16)
HORSE, PERSON = 13, 15
CHAIR, SKY, ROAD = 72, 360, 329 + 1000  # ids of the 459; 72 is a class of rooms, too


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array if array.ndim == 2 else array[..., ::-1])


def mask(rows, columns):
    where = np.zeros(SHAPE, np.uint8)
    where[rows, columns] = 1
    return where


def annotation(objects):
    """Objects as PASCAL-Part's MATLAB structures: (class, [(part, mask)], mask)."""
    kinds = [(name, object) for name in ('class', 'class_ind', 'mask', 'parts')]
    array = np.zeros((1, len(objects)), kinds)
    for index, (class_index, parts, silhouette) in enumerate(objects):
        listed = np.zeros((1, len(parts)), [('part_name', object), ('mask', object)])
        for number, (name, where) in enumerate(parts):
            listed[0, number] = (name, where)
        empty = np.zeros((0, 0))
        array[0, index] = (
            'person' if class_index == PERSON else 'horse', class_index, silhouette,
            listed if parts else empty,
        )
    return {'anno': {'imname': 'x', 'objects': array}}


def palette_png(path, indices):
    """VOC stores labels as palette images: the colours are for people."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices, mode='P')
    image.putpalette([value for i in range(256) for value in ((i * 37) % 256, i, 255 - i)])
    image.save(path)


def write_tree(root):
    """Three photographs with the targets of all tasks."""
    names = {'train': ['2008_000008', '2008_000015'], 'val': ['2008_000002']}
    for split, listed in names.items():
        file = root / 'ImageSets' / 'Context' / f'{split}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\n'.join(listed) + '\n')
    for folder in ('human_parts', 'pascal-context/trainval'):
        (root / folder).mkdir(parents=True)
    semantic = np.zeros(SHAPE, np.uint8)
    semantic[:4], semantic[4:6], semantic[6] = 15, 255, 20
    label_map = np.full(SHAPE, CHAIR, np.uint16)
    label_map[:, 8:] = SKY
    normals = np.full((*SHAPE, 3), 128, np.uint8)
    normals[..., 1] = 255  # up
    normals[0, 0] = 128  # none
    saliency = np.full(SHAPE, 100, np.uint8)
    saliency[:6] = 180
    people = annotation([
        (PERSON, [('head', mask(slice(0, 2), slice(0, 4))), ('neck', mask(2, slice(0, 4)))],
         mask(slice(0, 4), slice(0, 4))),
        (HORSE, [('head', mask(slice(0, 12), slice(12, 16)))],
         mask(slice(0, 12), slice(12, 16))),
        (PERSON, [('ruarm', mask(5, slice(5, 9))), ('lhand', mask(6, slice(5, 9))),
                  ('luleg', mask(7, slice(5, 9))), ('rfoot', mask(8, slice(5, 9)))],
         mask(slice(5, 9), slice(5, 9))),
        (PERSON, [], mask(slice(2, 12), slice(3, 5))),
    ])
    nobody = annotation([(HORSE, [('head', mask(0, 0))], mask(0, 0))])
    for name in (*names['train'], *names['val']):
        write(root / 'JPEGImages' / f'{name}.jpg', np.zeros((*SHAPE, 3), np.uint8))
        write(root / 'normals_distill' / f'{name}.png', normals)
        write(root / 'sal_distill' / f'{name}.png', saliency)
        savemat(root / 'pascal-context/trainval' / f'{name}.mat', {'LabelMap': label_map})
        savemat(
            root / 'human_parts' / f'{name}.mat',
            people if name == '2008_000008' else nobody,
        )
    palette_png(root / 'semseg/VOC12/2008_000008.png', semantic)
    write(root / 'semseg/pascal-context/2008_000008.png', np.zeros(SHAPE, np.uint8))
    palette_png(root / 'semseg/pascal-context/2008_000015.png', semantic)
    write(root / 'semseg/pascal-context/2008_000002.png', semantic)


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path)
    return tmp_path


def test_five_tasks(tree):
    dataset = open_dataset(f'pascal_context:{tree}', 'train')
    assert dataset.names == ('2008_000008', '2008_000015')
    kinds = [(task.name, task.kind, task.channels) for task in dataset.tasks]
    assert kinds == [
        ('semantic', 'semantic', 21), ('parts', 'parts', 7), ('saliency', 'saliency', 1),
        ('normals', 'normals', 3), ('edges', 'edges', 1),
    ]
    assert dataset[0].camera is None, 'photographs from anywhere have no intrinsics'


def test_a_list_that_was_cut_is_noticed(tree):
    with pytest.warns(UserWarning, match='train has 2 frames, the published split 4998'):
        open_dataset(f'pascal_context:{tree}', 'train')
    with pytest.warns(UserWarning, match='val has 1 frames, the published split 5105'):
        open_dataset(f'pascal_context:{tree}', 'val')


def test_labels_are_the_indices_of_the_palette_not_its_colours(tree):
    for index, split in ((0, 'train'), (1, 'train'), (0, 'val')):
        labels = open_dataset(f'pascal_context:{tree}?tasks=semantic', split)[index].targets
        semantic = labels['semantic']
        assert semantic.dtype == np.uint8
        assert (semantic[:4] == 15).all()
        assert (semantic[4:6] == 255).all()
        assert (semantic[6] == 20).all()
        assert (semantic[7:] == 0).all()


def test_parts_of_every_person_are_drawn_and_undrawn_people_are_unknown(tree):
    parts = open_dataset(f'pascal_context:{tree}?tasks=parts', 'train')[0].targets['parts']
    expected = np.zeros(SHAPE, np.uint8)
    expected[2:12, 3:5] = 255  # a person whose parts nobody drew
    expected[0:2, 0:4] = 1  # head
    expected[2, 0:4] = 2  # the neck belongs to the torso
    expected[5, 5:9], expected[6, 5:9], expected[7, 5:9], expected[8, 5:9] = 3, 4, 5, 6
    # A horse's head is no person's.
    np.testing.assert_array_equal(parts, expected)


def test_a_frame_without_people_is_not_annotated_rather_than_all_background(tree):
    dataset = open_dataset(f'pascal_context:{tree}?tasks=parts,saliency', 'train')
    assert set(dataset[1].targets) == {'saliency'}


def test_saliency_is_a_mask(tree):
    dataset = open_dataset(f'pascal_context:{tree}?tasks=saliency', 'train')
    saliency = dataset[0].targets['saliency']
    assert (saliency[:6] == 1).all()
    assert (saliency[6:] == 0).all()


def test_normals_are_kept_on_indoor_classes_only_and_point_as_ours(tree):
    normals = open_dataset(f'pascal_context:{tree}?tasks=normals', 'train')[0].targets['normals']
    assert np.isnan(normals[:, 8:]).all(), 'sky'
    assert np.isnan(normals[0, 0]).all(), 'no vector'
    up = normals[2, 2]
    assert up[1] < -0.99, 'up is negative y'
    np.testing.assert_allclose(np.linalg.norm(up), 1, atol=1e-6)


def test_the_trusted_classes_are_169_of_both_lists_and_tvmonitor():
    classes = load_table('pascal_context_normals')['classes']
    assert len(classes) == 170
    assert len(set(classes.values())) == 170
    known = {'chair': 72, 'sofa': 368, 'wall': 440, 'floor': 158, 'person': 284, 'tvmonitor': 427}
    assert known.items() <= classes.items()
    assert not {'sky', 'grass', 'water', 'road', 'tree', 'horse'} & set(classes)


def test_edges_are_the_borders_of_the_context_classes(tree):
    edges = open_dataset(f'pascal_context:{tree}?tasks=edges', 'train')[0].targets['edges']
    columns = np.unique(np.nonzero(edges)[1])
    assert columns.size == 1
    assert columns[0] in (7, 8)
    assert (edges[1:-1, columns[0]] == 1).all()


def test_borders_do_not_cancel_where_the_laplacian_of_the_ids_does():
    """A ramp of ids 1, 2, 3 has no second derivative, but two borders."""
    labels = np.repeat([1, 1, 1, 1, 2, 3, 3, 3, 3], 1)[None].repeat(9, axis=0).astype(np.uint16)
    laplacian = cv2.Laplacian(labels.astype(np.float64), cv2.CV_64F)
    assert not laplacian[:, 4].any(), 'the trap'
    assert label_borders(labels)[1:-1, 3:6].any(axis=1).all()
    labels = np.full((31, 31), 7, np.uint16)
    labels[8:23, 8:23] = 300
    borders = label_borders(labels)
    # A closed line, nowhere farther than a pixel from where the labels meet.
    _, inside = cv2.connectedComponents(1 - borders, connectivity=4)
    assert inside[15, 15] != inside[0, 0]
    rows, columns = np.nonzero(borders)
    distance = np.maximum(np.abs(rows - 15), np.abs(columns - 15))
    assert set(distance) <= {7, 8}
    assert 4 * 13 <= borders.sum() <= 4 * 16


def test_missing_and_damaged_files_are_named(tree):
    (tree / 'sal_distill' / '2008_000015.png').unlink()
    with pytest.raises(DatasetError, match=r'sal_distill/2008_000015\.png.*astmt'):
        open_dataset(f'pascal_context:{tree}', 'train')
    (tree / 'human_parts' / '2008_000008.mat').write_bytes(b'MATLAB 5.0 MAT-file')
    with pytest.raises(DatasetError, match=r'2008_000008\.mat'):
        open_dataset(f'pascal_context:{tree}?tasks=parts', 'train')[0]
    person = annotation([(PERSON, [('tail', mask(0, 0))], mask(0, 0))])
    savemat(tree / 'human_parts' / '2008_000008.mat', person)
    with pytest.raises(DatasetError, match="'tail'"):
        open_dataset(f'pascal_context:{tree}?tasks=parts', 'train')[0]
    (tree / 'semseg/VOC12/2008_000008.png').unlink()
    (tree / 'semseg/pascal-context/2008_000008.png').unlink()
    with pytest.raises(DatasetError, match=r'semseg/pascal-context/2008_000008\.png'):
        open_dataset(f'pascal_context:{tree}?tasks=semantic', 'train')
