# SPDX-License-Identifier: Apache-2.0
"""Frames of a recording against the arrays that were written into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import struct
from typing import Any

import cv2
from mtl_perception.bags.errors import BagError
from mtl_perception.bags.frames import BagFrame, BagReader, RefusedFrame
from mtl_perception.bags.topics import BagTopics
from mtl_perception.camera import CameraModel
import numpy as np
import pytest

CAMERA = CameraModel(32, 24, 30.0, 31.0, 15.5, 11.5)
IMAGE, INFO, DEPTH = '/camera/image_raw', '/camera/camera_info', '/camera/depth'
MS = 1_000_000


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def depth_mm(index: int) -> np.ndarray:
    depth = np.random.default_rng(100 + index).integers(400, 9000, (24, 32), dtype=np.uint16)
    depth[:3] = 0
    return depth


def frames(path: Path, given: BagTopics | None = None, **options: float) -> list[Any]:
    with BagReader(path, given, **options) as reader:
        return list(reader.frames())


def test_everything_of_a_moment_comes_together(bags: Any, tmp_path: Path) -> None:
    """Depth is recorded late and 5 ms off, camera_info comes once, at the end."""
    messages = []
    for index in range(6):
        stamp = 10**9 + index * 33 * MS
        messages.append((stamp, IMAGE, bags.image(pixels(index)[..., ::-1], 'bgr8', stamp)))
        depth = bags.image(depth_mm(index), '16UC1', stamp + 5 * MS)
        messages.append((stamp + 90 * MS, DEPTH, depth))
    messages.append((10**9 + 300 * MS, INFO, bags.camera_info(CAMERA, 10**9 + 300 * MS)))
    messages.sort(key=lambda entry: entry[0])
    path = bags.write(tmp_path / 'bag', [(topic, at, entry) for at, topic, entry in messages])
    result = frames(path)
    assert [entry.index for entry in result] == list(range(6))
    for index, entry in enumerate(result):
        assert isinstance(entry, BagFrame)
        assert entry.frame.stamp_ns == 10**9 + index * 33 * MS
        assert entry.frame.frame_id == 'optical'
        assert entry.frame.camera is not None
        assert entry.frame.camera.rectified().matrix.tolist() == CAMERA.matrix.tolist()
        np.testing.assert_array_equal(entry.frame.image, pixels(index))
        expected = np.where(depth_mm(index) > 0, depth_mm(index) / 1000, np.nan)
        np.testing.assert_allclose(entry.targets['depth'], expected, rtol=1e-7)
        assert entry.notes == ()
    # Out of reach of a narrower tolerance: said, not compared.
    for entry in frames(path, tolerance_s=0.004):
        assert 'depth' not in entry.targets
        assert entry.notes == (f'{DEPTH}: no message within 4 ms',)


def test_the_camera_info_of_the_moment_is_taken(bags: Any, tmp_path: Path) -> None:
    """A zoom lens: the intrinsics change with the frame, and are recorded after the image."""
    messages = []
    for index in range(4):
        stamp = 10**9 + index * 33 * MS
        camera = CameraModel(32, 24, 30.0 + index, 30.0, 15.5, 11.5)
        messages.append((IMAGE, stamp, bags.image(pixels(index), 'rgb8', stamp)))
        messages.append((INFO, stamp + 1, bags.camera_info(camera, stamp)))
    result = frames(bags.write(tmp_path / 'bag', messages))
    assert [entry.frame.camera.fx for entry in result] == [30.0, 31.0, 32.0, 33.0]


def test_ground_truth_of_every_kind(bags: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    labels = random.integers(0, 18, (24, 32), dtype=np.uint8)
    labels[0] = 255
    normals = random.normal(size=(24, 32, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[2] = np.nan
    metres = random.uniform(0.5, 9, (24, 32)).astype(np.float32)
    metres[1] = np.inf
    edges = (random.random((24, 32)) < 0.1).astype(np.uint8) * 255
    truth = {
        'depth/image_rect': (metres, '32FC1'),
        'semantic/image_raw': (labels, 'mono8'),
        'normals/image_raw': (normals, '32FC3'),
        'edges/image_raw': (edges, 'mono8'),
    }
    messages = [
        ('/camera/image_raw', 1, bags.image(pixels(0), 'rgb8', 7)),
        *(
            (f'/ground_truth/{name}', 2, bags.image(array, encoding, 7))
            for name, (array, encoding) in truth.items()
        ),
    ]
    (entry,) = frames(bags.write(tmp_path / 'bag', messages))
    np.testing.assert_array_equal(entry.targets['semantic'], labels)
    np.testing.assert_array_equal(entry.targets['normals'], normals)
    np.testing.assert_array_equal(entry.targets['edges'], edges // 255)
    assert np.isnan(entry.targets['depth'][1]).all()
    np.testing.assert_array_equal(entry.targets['depth'][2:], metres[2:])
    assert entry.frame.camera is None


def test_compressed_colour_is_the_jpeg_that_opencv_reads(bags: Any, tmp_path: Path) -> None:
    jpeg = cv2.imencode('.jpg', pixels(0))[1].tobytes()
    topic = f'{IMAGE}/compressed'
    path = bags.write(tmp_path / 'bag', [(topic, 1, bags.compressed(jpeg, 1))])
    (entry,) = frames(path)
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(entry.frame.image, expected)


def test_a_bayer_image_becomes_colour(bags: Any, tmp_path: Path) -> None:
    """One colour all over: each Bayer pixel holds its own channel of it."""
    mosaic = np.empty((24, 32), np.uint8)
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = 200, 50
    mosaic[0::2, 1::2] = mosaic[1::2, 0::2] = 120
    path = bags.write(tmp_path / 'bag', [(IMAGE, 1, bags.image(mosaic, 'bayer_rggb8', 1))])
    (entry,) = frames(path)
    np.testing.assert_array_equal(entry.frame.image[2:-2, 2:-2], [[[200, 120, 50]] * 28] * 20)


def test_a_planar_yuv_image_becomes_colour(bags: Any, tmp_path: Path) -> None:
    luma = np.random.default_rng(0).integers(30, 200, (24, 32))
    planes = np.concatenate((luma, np.full((12, 32), 128))).astype(np.uint8)
    message = bags.image(planes, 'nv12', 1)
    message.height = 24
    (entry,) = frames(bags.write(tmp_path / 'bag', [(IMAGE, 1, message)]))
    # Without chroma it is grey: ITU-R BT.601, studio range.
    expected = np.repeat(1.164 * (luma[..., None] - 16.0), 3, axis=-1)
    np.testing.assert_allclose(entry.frame.image, expected, atol=1.0)


def test_broken_images_are_refused_one_by_one(bags: Any, tmp_path: Path) -> None:
    lying = bags.image(pixels(1), 'rgb8', 33 * MS)
    lying.step = 97
    empty = bags.image(pixels(2), 'rgb8', 66 * MS)
    empty.data = np.zeros(0, np.uint8)
    unknown = bags.image(pixels(3), 'quaternion8', 99 * MS)
    good = bags.image(pixels(4), 'rgb8', 132 * MS)
    messages = [
        (IMAGE, index * 33 * MS, message)
        for index, message in enumerate((lying, empty, unknown, good))
    ]
    result = frames(bags.write(tmp_path / 'bag', messages))
    assert [type(entry) for entry in result] == [RefusedFrame] * 3 + [BagFrame]
    assert [entry.index for entry in result] == [0, 1, 2, 3]
    assert [entry.stamp_ns for entry in result[:3]] == [33 * MS, 66 * MS, 99 * MS]
    assert '97' in result[0].reason
    assert '0 bytes' in result[1].reason
    assert 'quaternion8' in result[2].reason


def test_what_does_not_fit_is_not_compared(bags: Any, tmp_path: Path) -> None:
    small = bags.image(depth_mm(0)[::2, ::2], '16UC1', 0)
    other = bags.image(depth_mm(0), '16UC1', 33 * MS, frame_id='depth_optical')
    colour = bags.image(pixels(0), 'rgb8', 66 * MS)
    messages = []
    for index, message in enumerate((small, other, colour)):
        stamp = index * 33 * MS
        messages.append((IMAGE, stamp, bags.image(pixels(index), 'rgb8', stamp)))
        messages.append((DEPTH, stamp, message))
    path = bags.write(tmp_path / 'bag', messages)
    notes = [entry.notes[0] for entry in frames(path)]
    assert all(note.startswith(DEPTH) for note in notes)
    assert 'is 16x12, the image 32x24' in notes[0]
    assert "'depth_optical'" in notes[1]
    assert "'rgb8' is not a depth image" in notes[2]
    # Who names the topic vouches for its frame, not for its size.
    kinds = [set(entry.targets) for entry in frames(path, BagTopics(depth=DEPTH))]
    assert kinds == [set(), {'depth'}, set()]


def test_an_uncalibrated_camera_is_none_and_said(bags: Any, tmp_path: Path) -> None:
    info = bags.camera_info(CAMERA, 0)
    info.k[:] = 0
    messages = [(IMAGE, 0, bags.image(pixels(0), 'rgb8', 0)), (INFO, 0, info)]
    (entry,) = frames(bags.write(tmp_path / 'bag', messages))
    assert entry.frame.camera is None
    assert 'calibrat' in entry.notes[0]


def test_lost_messages_are_counted(bags: Any, tmp_path: Path) -> None:
    messages = []
    for index in range(400):
        stamp = index * 33 * MS
        messages.append((IMAGE, stamp, bags.image(pixels(index), 'rgb8', stamp)))
        messages.append((DEPTH, stamp, bags.image(depth_mm(index), '16UC1', stamp)))
    path = bags.write(tmp_path / 'bag', messages, storage='SQLITE3')
    (file,) = path.glob('*.db3')
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with BagReader(path) as reader:
        assert reader.frame_count == 400
        count = len(list(reader.frames()))
        assert 150 < count < 220
        assert reader.lost()[IMAGE] == (count, 400)
        assert reader.lost()[DEPTH][1] == 400
        assert len(reader.damage) == 1


def test_the_error_names_the_bag(bags: Any, tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', [(INFO, 0, bags.camera_info(CAMERA, 0))])
    with pytest.raises(BagError, match=rf'{path}.*no colour image.*{INFO}'):
        BagReader(path)


@pytest.mark.realdata
def test_a_real_kitchen(sample_data: Path) -> None:
    """Every frame with its depth, equal to what rosbags' own reader and decoder give."""
    from rosbags.highlevel import AnyReader

    path = sample_data / 'bags/kitchen_val'
    result = frames(path)
    assert len(result) == 70
    assert all(isinstance(entry, BagFrame) and entry.notes == () for entry in result)
    with AnyReader([path]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            (entry,) = (entry for entry in result if entry.frame.stamp_ns == stamp)
            if connection.topic.endswith('compressed'):
                image = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
                np.testing.assert_array_equal(entry.frame.image, image[..., ::-1])
            elif 'depth' in connection.topic:
                depth = message.data.view(np.uint16).reshape(480, 640) / 1000.0
                depth[depth == 0] = np.nan
                np.testing.assert_allclose(entry.targets['depth'], depth, rtol=1e-7)
            elif connection.topic.endswith('camera_info'):
                assert entry.frame.camera.fx == message.k[0]


def compressed_depth(bags: Any, picture: np.ndarray, name: str, a: float, b: float) -> Any:
    """Header (format, scale, offset) and PNG, as compressed_depth_image_transport documents."""
    png = cv2.imencode('.png', picture)[1].tobytes()
    message = bags.compressed(struct.pack('<iff', 0, a, b) + png, 0)
    message.format = name
    return message


def test_compressed_depth_in_millimetres_and_as_inverse_depth(bags: Any, tmp_path: Path) -> None:
    topic = '/camera/depth_registered/image_raw/compressedDepth'
    image = bags.image(pixels(0), 'rgb8', 0)
    message = compressed_depth(bags, depth_mm(0), '16UC1; compressedDepth png', 0, 0)
    (entry,) = frames(bags.write(tmp_path / 'mm', [(IMAGE, 0, image), (topic, 0, message)]))
    expected = np.where(depth_mm(0) > 0, depth_mm(0) / 1000, np.nan)
    np.testing.assert_allclose(entry.targets['depth'], expected, rtol=1e-6)
    # Quantised as the transport does for depth up to 10 m and a quantisation of 100.
    metres = np.random.default_rng(3).uniform(0.5, 9.5, (24, 32))
    a = 100.0 * 101.0
    b = 1.0 - a / 10.0
    quantised = np.floor(a / metres + b).astype(np.uint16)
    quantised[:2] = 0
    message = compressed_depth(bags, quantised, '32FC1; compressedDepth', a, b)
    (entry,) = frames(bags.write(tmp_path / 'inverse', [(IMAGE, 0, image), (topic, 0, message)]))
    depth = entry.targets['depth']
    assert np.isnan(depth[:2]).all()
    # One step of the quantiser is z^2 / a metres.
    assert (np.abs(depth - metres)[2:] <= (metres**2 / a)[2:] * 1.1).all()
    assert entry.notes == ()


def test_compressed_depth_that_is_none_is_said(bags: Any, tmp_path: Path) -> None:
    topic = '/camera/depth/compressedDepth'
    rvl = compressed_depth(bags, depth_mm(0), '16UC1; compressedDepth rvl', 0, 0)
    short = compressed_depth(bags, depth_mm(0), '16UC1; compressedDepth', 0, 0)
    short.data = short.data[:10]
    jpeg = compressed_depth(bags, depth_mm(0), 'jpeg', 0, 0)
    for number, message in enumerate((rvl, short, jpeg)):
        image = bags.image(pixels(0), 'rgb8', 0)
        path = bags.write(tmp_path / str(number), [(IMAGE, 0, image), (topic, 0, message)])
        (entry,) = frames(path)
        assert entry.targets == {}
        assert entry.notes[0].startswith(topic)
    # A raw topic is preferred to a compressed one.
    messages = [
        (IMAGE, 0, bags.image(pixels(0), 'rgb8', 0)),
        (topic, 0, rvl),
        ('/camera/depth/image', 0, bags.image(depth_mm(0), '16UC1', 0)),
    ]
    (entry,) = frames(bags.write(tmp_path / 'both', messages))
    assert set(entry.targets) == {'depth'}


def test_a_given_camera_replaces_the_recorded_one(bags: Any, tmp_path: Path) -> None:
    messages = [
        (IMAGE, 0, bags.image(pixels(0), 'rgb8', 0)), (INFO, 0, bags.camera_info(CAMERA, 0)),
    ]  # fmt: skip
    other = CameraModel(32, 24, 40.0, 40.0, 15.5, 11.5)
    with BagReader(bags.write(tmp_path / 'bag', messages), camera=other) as reader:
        assert [entry.frame.camera for entry in reader.frames()] == [other]


@pytest.mark.parametrize('name', ['image_raw', 'image_rect_color'])
@pytest.mark.parametrize('said', [None, True, False])
@pytest.mark.parametrize('by_file', [False, True])
def test_a_rectified_image_keeps_its_pixels_and_has_p(
    bags: Any, tmp_path: Path, name: str, said: bool | None, by_file: bool
) -> None:
    """camera_info of a rectified topic still carries the D of the raw one."""
    raw = replace(CAMERA, distortion=(-0.3, 0.1, 0.0, 0.0, 0.0))
    info = bags.camera_info(raw, 0)
    info.p[[0, 2, 5, 6]] = 25.0, 15.0, 26.0, 11.0
    messages = [
        (f'/camera/{name}', 0, bags.image(pixels(0), 'rgb8', 0)), (INFO, 0, info),
    ]  # fmt: skip
    given = replace(raw, projection=(25.0, 26.0, 15.0, 11.0)) if by_file else None
    path = bags.write(tmp_path / 'bag', messages)
    with BagReader(path, camera=given, image_is_rectified=said) as reader:
        (entry,) = reader.frames()
    camera = entry.frame.camera
    assert camera.is_rectified == (said if said is not None else name != 'image_raw')
    # Either way the maps belong to the pinhole of P.
    pinhole = camera.rectified()
    assert (pinhole.fx, pinhole.fy, pinhole.cx, pinhole.cy) == (25.0, 26.0, 15.0, 11.0)


def test_stamps_that_jump_back_and_a_change_of_resolution(bags: Any, tmp_path: Path) -> None:
    """A looped recording: each turn's images go with the depth of that turn."""
    messages = []
    for turn in range(2):
        for index in range(3):
            stamp = 10**9 + index * 33 * MS
            at = turn * 10**10 + index * 33 * MS
            # From the second turn on half as large.
            step = turn + 1
            colour = np.ascontiguousarray(pixels(index)[::step, ::step])
            depth = np.ascontiguousarray(depth_mm(3 * turn + index)[::step, ::step])
            messages.append((IMAGE, at, bags.image(colour, 'rgb8', stamp)))
            messages.append((DEPTH, at, bags.image(depth, '16UC1', stamp)))
    result = frames(bags.write(tmp_path / 'bag', messages))
    assert [entry.frame.image.shape[0] for entry in result] == [24] * 3 + [12] * 3
    for number, entry in enumerate(result):
        step = number // 3 + 1
        millimetres = depth_mm(number)[::step, ::step]
        expected = np.where(millimetres > 0, millimetres / 1000, np.nan)
        np.testing.assert_allclose(entry.targets['depth'], expected, rtol=1e-6)


def test_frames_can_begin_later(bags: Any, tmp_path: Path) -> None:
    """The camera that was said in the frames left out still holds."""
    messages = [(INFO, 0, bags.camera_info(CAMERA, 0))]
    for index in range(4):
        stamp = index * 500 * MS
        messages.append((IMAGE, stamp, bags.image(pixels(index), 'rgb8', stamp)))
    with BagReader(bags.write(tmp_path / 'bag', messages)) as reader:
        later = list(reader.frames(2))
    assert [entry.index for entry in later] == [2, 3]
    np.testing.assert_array_equal(later[0].frame.image, pixels(2))
    assert later[0].frame.camera.fx == CAMERA.fx
