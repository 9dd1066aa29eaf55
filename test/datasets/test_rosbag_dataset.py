# SPDX-License-Identifier: Apache-2.0
"""A recording as a dataset: depth as recorded, derived targets, matching, splits, real bags."""

from __future__ import annotations

import multiprocessing
import pickle

import cv2
from mtl_perception.datasets.dataset import Dataset, open_dataset
from mtl_perception.datasets.errors import DatasetError
import numpy as np
import pytest
from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import get_typestore, Stores

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
COLOUR, DEPTH = '/camera/color/image_raw', '/camera/aligned_depth_to_color/image_raw'
INFO = '/camera/color/camera_info'
SIZE = (48, 64)
K = [60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1.0]


def header(stamp_ns, frame_id):
    time = TYPES['builtin_interfaces/msg/Time'](stamp_ns // 10**9, stamp_ns % 10**9)
    return TYPES['std_msgs/msg/Header'](time, frame_id)


def image_message(array, encoding, stamp_ns, frame_id):
    height, width = array.shape[:2]
    data = np.frombuffer(array.tobytes(), np.uint8)
    return TYPES['sensor_msgs/msg/Image'](
        header(stamp_ns, frame_id), height, width, encoding, 0, array.nbytes // height, data
    )


def info_message(stamp_ns, distortion):
    region = TYPES['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    p = [K[0], 0, K[2], 0, 0, K[4], K[5], 0, 0, 0, 1, 0]
    return TYPES['sensor_msgs/msg/CameraInfo'](
        header(stamp_ns, 'optical'), SIZE[0], SIZE[1], 'plumb_bob', np.array(distortion, float),
        np.array(K), np.eye(3).ravel(), np.array(p, float), 0, 0, region,
    )


def scene(index):
    """A wall at 3 m, before it a plate at 1.5 m with a shadow, and a red spot that moves."""
    depth = np.full(SIZE, 3000 + index, np.uint16)
    depth[:, 30:50] = 1500
    depth[:, 24:30] = 0
    colour = np.full((*SIZE, 3), 90, np.uint8)
    colour[:, index % 64] = (200, 10, 20)
    return colour, depth


def write_bag(
    path, frames=20, *, depth_late_ms=3, depth_frame='optical', distortion=(0.0,) * 5,
    without=(), depth_size=SIZE, depth_missing=(), colour_topic=COLOUR,
):
    with Writer(path, version=9) as bag:
        image, info = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo'
        connections = {
            topic: bag.add_connection(topic, kind, typestore=STORE)
            for topic, kind in ((colour_topic, image), (DEPTH, image), (INFO, info))
            if topic not in without
        }

        def write(topic, stamp_ns, message):
            if topic in connections:
                data = STORE.serialize_cdr(message, message.__msgtype__)
                bag.write(connections[topic], stamp_ns + 2_000_000, data)

        for index in range(frames):
            stamp = 10**18 + index * 200_000_000
            colour, depth = scene(index)
            write(INFO, stamp, info_message(stamp, distortion))
            write(colour_topic, stamp, image_message(colour, 'rgb8', stamp, 'optical'))
            late = stamp + depth_late_ms * 1_000_000
            if index not in depth_missing:
                depth = np.ascontiguousarray(depth[: depth_size[0], : depth_size[1]])
                write(DEPTH, late, image_message(depth, '16UC1', late, depth_frame))
    return path


def test_depth_normals_and_edges_without_labelling(tmp_path):
    dataset = open_dataset(f'rosbag:{write_bag(tmp_path / "bag")}', 'all')
    assert isinstance(dataset, Dataset)
    assert len(dataset) == 20
    assert dataset.tasks[2].edge_meaning == 'depth_jumps'
    for index in (13, 2, 19):  # any order
        sample = dataset[index]
        colour, stored = scene(index)
        np.testing.assert_array_equal(sample.image, colour)
        expected = np.where(stored == 0, np.nan, stored / 1000).astype(np.float32)
        np.testing.assert_array_equal(sample.targets['depth'], expected)
        camera = sample.camera
        assert (camera.fx, camera.cx, camera.width, camera.height) == (60.0, 31.5, 64, 48)
        edges = sample.targets['edges']
        assert (edges[:, 29:31] == 1).all(), 'the near border of the shadow'
        assert (edges[:, 49:51] == 1).all()
        assert (edges[:, 24:29] == 255).all(), 'unknown in the shadow'
        assert (edges[:, 5:20] == 0).all()
        normals = sample.targets['normals']
        assert np.isnan(normals[:, 24:30]).all(), 'none in a hole'
        assert np.isnan(normals[:, 48:52]).all(), 'none beside a jump'
        flat = normals[4:-4, 4:18]
        np.testing.assert_allclose(flat, np.broadcast_to([0, 0, -1], flat.shape), atol=2e-3)


def test_a_slanted_wall_has_the_normal_of_its_plane(tmp_path):
    normal = np.array([0.6, 0.0, -0.8])
    rays = np.stack(np.meshgrid((np.arange(64) - 31.5) / 60, (np.arange(48) - 23.5) / 60), -1)
    depth = -2.0 / (rays @ normal[:2] + normal[2])
    path = tmp_path / 'bag'
    with Writer(path, version=9) as bag:
        kinds = {COLOUR: 'Image', DEPTH: 'Image', INFO: 'CameraInfo'}
        links = {
            topic: bag.add_connection(topic, f'sensor_msgs/msg/{kind}', typestore=STORE)
            for topic, kind in kinds.items()
        }
        messages = {
            INFO: info_message(5, (0.0,) * 5),
            COLOUR: image_message(scene(0)[0], 'rgb8', 5, 'optical'),
            DEPTH: image_message(np.rint(depth * 1000).astype(np.uint16), '16UC1', 5, 'optical'),
        }
        for topic, message in messages.items():
            bag.write(links[topic], 5, STORE.serialize_cdr(message, message.__msgtype__))
    targets = open_dataset(f'rosbag:{path}?tasks=normals', 'all')[0].targets
    assert set(targets) == {'normals'}
    cosine = targets['normals'][6:-6, 6:-6] @ normal
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 2


def test_frames_without_depth_of_their_time_are_left_out(tmp_path):
    path = write_bag(tmp_path / 'bag', depth_missing=(0, 7))
    dataset = open_dataset(f'rosbag:{path}', 'all')
    assert len(dataset) == 18
    np.testing.assert_array_equal(dataset[0].image, scene(1)[0])
    assert dataset.names[0].endswith('000001')
    late = write_bag(tmp_path / 'late', depth_late_ms=60)
    with pytest.raises(DatasetError, match=r'within 0\.02 s'):
        open_dataset(f'rosbag:{late}', 'all')
    assert len(open_dataset(f'rosbag:{late}?tolerance_s=0.1', 'all')) == 20
    assert len(open_dataset(f'rosbag:{late}?tasks=', 'all')) == 20, 'unlabelled frames'


def test_every_and_the_split_by_time_keep_neighbours_apart(tmp_path):
    path = write_bag(tmp_path / 'bag', 40)
    assert len(open_dataset(f'rosbag:{path}?every=3', 'all')) == 14
    train = open_dataset(f'rosbag:{path}', 'train').names
    val = open_dataset(f'rosbag:{path}', 'val').names
    numbers = [[int(name.split('/')[1]) for name in names] for names in (train, val)]
    assert numbers[1] == list(range(32, 40))
    # A second at 5 Hz lies between.
    assert numbers[0] == list(range(28))
    short = write_bag(tmp_path / 'short', 4)
    with pytest.raises(DatasetError, match='too short'):
        open_dataset(f'rosbag:{short}', 'train')


def test_what_is_rectified_already_stays_as_it_is(tmp_path):
    path = write_bag(
        tmp_path / 'bag', 3, distortion=(-0.2, 0.05, 0.001, -0.002, 0.0),
        colour_topic=f'{COLOUR.rpartition("/")[0]}/image_rect_color',
    )  # fmt: skip
    sample = open_dataset(f'rosbag:{path}', 'all')[1]
    colour, stored = scene(1)
    np.testing.assert_array_equal(sample.image, colour)
    expected = np.where(stored == 0, np.nan, stored / 1000).astype(np.float32)
    np.testing.assert_array_equal(sample.targets['depth'], expected)
    assert sample.camera.is_rectified
    assert sample.camera.fx == K[0]


def test_distorted_frames_come_rectified(tmp_path):
    distortion = (-0.2, 0.05, 0.001, -0.002, 0.0)
    path = write_bag(tmp_path / 'bag', 3, distortion=distortion)
    sample = open_dataset(f'rosbag:{path}', 'all')[1]
    assert sample.camera.is_rectified
    matrix = np.array(K).reshape(3, 3)
    maps = cv2.initUndistortRectifyMap(
        matrix, np.array(distortion), None, matrix, (64, 48), cv2.CV_32FC1
    )
    colour, _ = scene(1)
    np.testing.assert_allclose(
        sample.image.astype(int), cv2.remap(colour, *maps, cv2.INTER_LINEAR), atol=12
    )
    values = sample.targets['depth']
    assert set(np.unique(values[np.isfinite(values)])) <= {np.float32(1.5), np.float32(3.001)}, (
        'no depth between the surfaces'
    )


def test_recordings_that_cannot_teach_say_why(tmp_path):
    without_depth = write_bag(tmp_path / 'a', 3, without=(DEPTH,))
    with pytest.raises(DatasetError, match='align_depth'):
        open_dataset(f'rosbag:{without_depth}', 'all')
    without_info = write_bag(tmp_path / 'b', 3, without=(INFO,))
    with pytest.raises(DatasetError, match='camera_info'):
        open_dataset(f'rosbag:{without_info}', 'all')
    assert open_dataset(f'rosbag:{without_info}?tasks=depth,edges', 'all')[0].camera is None
    other_frame = write_bag(tmp_path / 'c', 3, depth_frame='depth_optical')
    with pytest.raises(DatasetError, match=r"'depth_optical'.*aligned"):
        open_dataset(f'rosbag:{other_frame}', 'all')
    assert len(open_dataset(f'rosbag:{other_frame}?depth_topic={DEPTH}', 'all')) == 3
    other_size = write_bag(tmp_path / 'd', 3, depth_size=(24, 32))
    with pytest.raises(DatasetError, match='000000: the image is 64x48, but its depth 32x24'):
        open_dataset(f'rosbag:{other_size}', 'all')[0]
    with pytest.raises(DatasetError, match='every is 0'):
        open_dataset(f'rosbag:{other_size}?every=0', 'all')


INHERITED = {}


def _first_pixels(number):
    """Read as a forked worker does: through the file that its parent opened."""
    dataset = INHERITED['dataset']
    return [dataset[(7 * step + number) % 20].targets['depth'][0, 0] for step in range(150)]


def test_forked_workers_read_at_once(tmp_path):
    path = write_bag(tmp_path / 'bag')
    INHERITED['dataset'] = open_dataset(f'rosbag:{path}?tasks=depth', 'all')
    with multiprocessing.get_context('fork').Pool(2) as pool:
        values = pool.map(_first_pixels, range(4), chunksize=1)
    for number, seen in enumerate(values):
        expected = [(3000 + (7 * step + number) % 20) / 1000 for step in range(150)]
        np.testing.assert_array_equal(seen, np.float32(expected))


def test_a_copy_for_a_new_process_reads_on_its_own(tmp_path):
    dataset = open_dataset(f'rosbag:{write_bag(tmp_path / "bag")}?tasks=depth', 'all')
    copy = pickle.loads(pickle.dumps(dataset))
    del dataset
    assert copy[5].targets['depth'][0, 0] == np.float32(3.005)
    assert copy.names[5].endswith('000005')


@pytest.mark.realdata
def test_depth_of_the_kitchen_is_what_the_bag_holds(sample_data):
    path = sample_data / 'bags' / 'kitchen_val'
    dataset = open_dataset(f'rosbag:{path}?every=10', 'all')
    assert len(dataset) == 7
    stored = []
    with Reader(path) as reader:
        links = [each for each in reader.connections if each.topic == DEPTH]
        for number, (link, _, data) in enumerate(reader.messages(links)):
            if number % 10 == 0:
                message = STORE.deserialize_cdr(data, link.msgtype)
                stored.append(message.data.view('<u2').reshape(message.height, message.width))
    for index in (0, 3, 6):
        sample = dataset[index]
        depth = sample.targets['depth']
        np.testing.assert_array_equal(np.isnan(depth), stored[index] == 0)
        np.testing.assert_allclose(np.nan_to_num(depth) * 1000, stored[index], atol=1e-3)
        assert (sample.camera.fx, sample.camera.cx, sample.camera.cy) == (585.0, 320.0, 240.0)
        edges, normals = sample.targets['edges'], sample.targets['normals']
        np.testing.assert_array_equal(np.isnan(normals[..., 0]) | (stored[index] > 0), True)
        assert 0.003 < (edges == 1).mean() < 0.05
        assert np.isfinite(normals[..., 0]).mean() > 0.5
        facing = np.sum(normals * sample.camera.rays(), axis=-1)
        assert np.nanmax(facing) < 0.05
        # Edges lie where a pixel's neighbours differ in depth: an independent look at 5 pixels.
        near = cv2.erode(np.where(stored[index] > 0, stored[index], 60000), np.ones((5, 5)))
        far = cv2.dilate(stored[index], np.ones((5, 5), np.uint8))
        jump = (far > 1.05 * near) | (cv2.erode(stored[index], np.ones((5, 5))) == 0)
        assert jump[edges == 1].mean() > 0.99
