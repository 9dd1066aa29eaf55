# SPDX-License-Identifier: Apache-2.0
"""Tasks and label sets: what they refuse, and colours against the published palettes."""

from __future__ import annotations

from mtl_perception.tasks import LabelSet, load_label_set, standard_tasks, Task, TaskError
from mtl_perception.tasks.colours import DEPTH_PICTURE_RANGE_M
import numpy as np
import pytest

SIZES = {
    'rooms': 18, 'nyu13': 13, 'nyu40': 40, 'cityscapes19': 19, 'pascal21': 21,
    'pascal_parts7': 7, 'cityscapes16': 16, 'streets8': 8, 'vkitti14': 14,
}


@pytest.mark.parametrize(('name', 'size'), SIZES.items())
def test_label_sets_ship_complete_and_with_distinct_colours(name, size):
    labels = load_label_set(name)
    assert len(labels) == size
    assert len(set(labels.colours)) == size
    assert LabelSet.from_json(labels.to_json()) == labels
    assert not labels.palette[255].any(), '255 = unlabelled is black'


def test_known_ids_of_the_published_sets():
    assert load_label_set('nyu40').names[0] == 'wall'
    assert load_label_set('nyu40').names[39] == 'other prop'
    assert load_label_set('nyu13').names[4] == 'floor'
    assert load_label_set('cityscapes19').names[13] == 'car'
    assert load_label_set('cityscapes19').colours[13] == (0, 0, 142)
    assert load_label_set('pascal21').names[15] == 'person'
    # The VOC palette by its bit rule: 15 = 0b1111 -> r gets bits 0 and 3, g bit 1, b bit 2.
    assert load_label_set('pascal21').colours[15] == (192, 128, 128)


def test_unknown_label_set_lists_what_there_is():
    with pytest.raises(TaskError, match='cityscapes19'):
        load_label_set('ade150')


@pytest.mark.parametrize(('fields', 'words'), [
    ({'name': 'a b', 'kind': 'depth'}, 'a b'),
    ({'name': 'a', 'kind': 'flow'}, 'flow'),
    ({'name': 'a', 'kind': 'semantic'}, 'label set'),
    ({'name': 'a', 'kind': 'parts'}, 'label set'),
    ({'name': 'a', 'kind': 'saliency', 'edge_meaning': 'contours'}, 'edge_meaning'),
    ({'name': 'a', 'kind': 'edges'}, 'edge_meaning'),
    ({'name': 'a', 'kind': 'edges', 'edge_meaning': 'all'}, 'contours'),
    ({'name': 'a', 'kind': 'depth', 'edge_meaning': 'contours'}, 'edge_meaning'),
    ({'kind': 'depth'}, 'name'),
    ({'name': 'a', 'kind': 'semantic', 'label_set': {'name': 'x'}}, 'names'),
    ([], 'mapping'),
])
def test_tasks_that_make_no_sense_are_refused(fields, words):
    with pytest.raises(TaskError, match=words):
        Task.from_json(fields)


@pytest.mark.parametrize(('names', 'colours', 'words'), [
    ((), (), '0 classes'),
    (('a', 'a'), ((0, 0, 0), (1, 1, 1)), 'more than once'),
    (('a',), (), '0 colours'),
    (('a',), ((0, 0, 256),), '256'),
])
def test_label_sets_that_make_no_sense_are_refused(names, colours, words):
    with pytest.raises(TaskError, match=words):
        LabelSet('x', names, colours)


def test_tasks_survive_json():
    for task in standard_tasks('nyu40'):
        assert Task.from_json(task.to_json()) == task
    assert [task.channels for task in standard_tasks('nyu40')] == [40, 1, 3, 1]


def test_parts_and_saliency_are_kinds_of_their_own():
    parts = Task('parts', 'parts', label_set=load_label_set('pascal_parts7'))
    saliency = Task('saliency', 'saliency')
    assert (parts.channels, saliency.channels) == (7, 1)
    assert Task.from_json(parts.to_json()) == parts
    assert Task.from_json(saliency.to_json()) == saliency
    picture = saliency.colourise(np.array([[0, 255, 100]], np.uint8))
    np.testing.assert_array_equal(picture[0, :, 2], [0, 255, 100])
    assert tuple(parts.colourise(np.array([[1]], np.uint8))[0, 0]) == parts.label_set.colours[1]


def test_label_colours_are_the_label_sets_own():
    semantic = standard_tasks('rooms')[0]
    labels = np.array([[0, 5], [17, 255]], np.uint8)
    picture = semantic.colourise(labels)
    for row, column in np.ndindex(labels.shape):
        label = labels[row, column]
        expected = semantic.label_set.colours[label] if label != 255 else (0, 0, 0)
        assert tuple(picture[row, column]) == expected


def test_depth_colours_run_from_warm_to_cool_and_black_is_invalid():
    near, far = DEPTH_PICTURE_RANGE_M
    depth = np.array([[near, far, np.nan, np.inf, -1.0, 0.0]], np.float32)
    picture = standard_tasks('rooms')[1].colourise(depth)[0].astype(int)
    assert picture[0, 0] > picture[0, 2], 'near is red'
    assert picture[1, 2] > picture[1, 0], 'far is blue'
    assert not picture[2:].any(), 'no colour for what is not a distance'


def test_normals_colours_follow_the_stated_axes():
    normals = np.array([[[0, 0, -1], [1, 0, 0], [0, -1, 0], [np.nan] * 3]], np.float32)
    picture = standard_tasks('rooms')[2].colourise(normals)[0]
    assert tuple(picture[0]) == (128, 128, 255), 'facing the camera'
    assert tuple(picture[1]) == (255, 128, 128), 'facing right'
    assert tuple(picture[2]) == (128, 255, 128), 'facing up: y is down in the optical frame'
    assert tuple(picture[3]) == (0, 0, 0)


def test_edges_are_dark_on_white():
    picture = standard_tasks('rooms')[3].colourise(np.array([[0, 255, 100]], np.uint8))
    np.testing.assert_array_equal(picture[0, :, 1], [255, 0, 155])
