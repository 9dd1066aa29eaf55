# SPDX-License-Identifier: Apache-2.0
"""Reading files: palettes, 16 bits, orientation tags, cut files; label maps and their tables."""

from __future__ import annotations

from io import BytesIO

import cv2
from hypothesis import given, settings, strategies
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.images import read_array, read_labels, read_rgb, read_stored
from mtl_perception.datasets.label_map import load_label_map, make_label_map
from mtl_perception.datasets.targets import decode_depth, decode_mask
from mtl_perception.tasks import LabelSet
import numpy as np
from PIL import Image
import pytest


def test_an_orientation_tag_does_not_turn_the_image_away_from_its_labels(tmp_path):
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, :16] = (255, 0, 0)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    image.save(tmp_path / 'turned.jpg', exif=exif, quality=95)
    read = read_rgb(tmp_path / 'turned.jpg')
    assert read.shape == (16, 48, 3)
    assert read[8, 4, 0] > 200 > 60 > read[8, 4, 2], 'red is first'
    assert read[8, 40, 0] < 60


@pytest.mark.parametrize('bits', [1, 4, 8])
def test_palette_indices_at_any_depth(tmp_path, bits):
    indices = (np.arange(48).reshape(6, 8) % min(2**bits, 21)).astype(np.uint8)
    if bits == 8:
        indices[0, 0] = 255
    image = Image.fromarray(indices, mode='P')
    # Several indices share a colour, as in palettes that are padded with black.
    image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / 'labels.png', bits=bits)
    np.testing.assert_array_equal(read_labels(tmp_path / 'labels.png'), indices)


def test_grey_labels_of_few_bits_would_be_stretched_and_are_refused(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / 'one.png')
    with pytest.raises(DatasetError, match='grey PNG of 1 bits'):
        read_labels(tmp_path / 'one.png')


def test_sixteen_bits_and_colours_come_as_stored(tmp_path):
    stored = np.array([[0, 1, 256], [65535, 40000, 7]], np.uint16)
    cv2.imwrite(str(tmp_path / 'depth.png'), stored)
    np.testing.assert_array_equal(read_stored(tmp_path / 'depth.png'), stored)
    np.testing.assert_array_equal(read_labels(tmp_path / 'depth.png'), stored)
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(colours).save(tmp_path / 'colours.png')
    np.testing.assert_array_equal(read_stored(tmp_path / 'colours.png'), colours)
    Image.fromarray(colours).convert('RGBA').save(tmp_path / 'alpha.png')
    np.testing.assert_array_equal(read_stored(tmp_path / 'alpha.png'), colours)
    with pytest.raises(DatasetError, match='3 channels'):
        read_labels(tmp_path / 'colours.png')


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('share', [0.02, 0.5, 0.95])
def test_a_file_that_was_cut_in_the_download_is_named(tmp_path, suffix, share):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    _, data = cv2.imencode(suffix, pixels)
    path = tmp_path / f'cut{suffix}'
    path.write_bytes(bytes(data)[: int(share * len(data))])
    with pytest.raises(DatasetError, match=f'cut{suffix}'):
        read_rgb(path)


@settings(max_examples=20, deadline=None)
@given(data=strategies.binary(max_size=200))
def test_bytes_that_are_no_image_end_in_an_error_with_the_name(tmp_path_factory, data):
    path = tmp_path_factory.mktemp('fuzz') / 'noise.bin'
    png, jpeg = bytes.fromhex('89504e470d0a1a0a'), bytes.fromhex('ffd8ff')
    palette = png + bytes.fromhex('0000000d49484452000000080000000808030000')
    last = b'IEND\xaeB`\x82'
    for start, end in (
        (b'', b''), (png, b''), (png, last), (palette, last), (jpeg, bytes.fromhex('ffd9')),
    ):
        path.write_bytes(start + data + end)
        for read in (read_rgb, read_stored, read_labels, read_array):
            with pytest.raises(DatasetError, match=r'noise\.bin'):
                read(path)


def test_pickles_are_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ('the pickle ran',))

    np.save(tmp_path / 'trap.npy', np.array([Trap()], object), allow_pickle=True)
    with pytest.raises(DatasetError, match=r'trap\.npy'):
        read_array(tmp_path / 'trap.npy')
    buffer = BytesIO()
    np.save(buffer, np.zeros((100, 100)))
    (tmp_path / 'cut.npy').write_bytes(buffer.getvalue()[:500])
    with pytest.raises(DatasetError, match=r'cut\.npy'):
        read_array(tmp_path / 'cut.npy')


def test_depth_and_masks_by_arithmetic():
    stored = np.array([[0, 1, 500, 65535]], np.uint16)
    expected = [[np.nan, 0.001, 0.5, np.nan]]
    np.testing.assert_allclose(decode_depth(stored, 0.001, (65535,)), expected)
    floats = np.array([[-1.0, np.inf, 2.0, np.nan]], np.float32)
    np.testing.assert_allclose(decode_depth(floats, 1.0), [[np.nan, np.nan, 2.0, np.nan]])
    for values in ([0, 127, 128, 255], [0, 0, 1, 1], [0.0, 0.4, 0.6, 1.0]):
        mask = np.array([values], np.float32 if values[1] == 0.4 else np.uint8)
        np.testing.assert_array_equal(decode_mask(mask), [[0, 0, 1, 1]])


LABELS = LabelSet('small', ('road', 'vehicle'), ((1, 1, 1), (2, 2, 2)))


def test_label_maps_say_what_is_wrong_with_them():
    numbers = {'road': 7, 'car': 26, 'bus': 28, 'void': 0}
    made = make_label_map(LABELS, numbers, {'vehicle': ('car', 'bus')}, 'here')
    np.testing.assert_array_equal(
        made.apply(np.array([[7, 26, 28, 0]]), 'file'), [[0, 1, 1, 255]]
    )
    for wrong in (5, 29, 300, -1):
        with pytest.raises(DatasetError, match=f'file: holds label {wrong} in 1 pixels'):
            made.apply(np.array([[7, wrong]]), 'file')
    for taken, words in (
        ({'vehicle': ('tram',)}, 'tram'),
        ({'boat': ('car',)}, 'boat'),
        ({'vehicle': ('road',)}, 'two classes'),
        ({}, "'vehicle'"),
    ):
        with pytest.raises(DatasetError, match=words):
            make_label_map(LABELS, numbers, taken, 'here')


@pytest.mark.parametrize(('dataset', 'label_set', 'used'), [
    ('cityscapes', 'cityscapes19', 19), ('cityscapes', 'cityscapes16', 16),
    ('cityscapes', 'streets8', 9), ('vkitti2', 'vkitti14', 14), ('vkitti2', 'streets8', 11),
    ('synthia', 'cityscapes16', 16),
])
def test_shipped_maps_reach_every_class(dataset, label_set, used):
    table = load_label_map(dataset, label_set).table
    reached = table[table < 254]
    assert set(reached) == set(range(len(load_label_map(dataset, label_set).label_set)))
    assert reached.size == used


def test_an_unknown_map_lists_those_there_are():
    with pytest.raises(DatasetError, match='cityscapes16, cityscapes19, streets8'):
        load_label_map('cityscapes', 'nyu40')
