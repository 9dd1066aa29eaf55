# SPDX-License-Identifier: Apache-2.0
"""Topics as the common drivers name them, and what cannot be told by a name."""

from __future__ import annotations

from mtl_perception.bags.bag_file import RecordedTopic
from mtl_perception.bags.errors import BagError
from mtl_perception.bags.topics import BagTopics, find_topics, says_rectified, skipped_outputs
from mtl_perception.output_topics import (
    camera_info_topics,
    cloud_tasks,
    CLOUD_TOPIC,
    image_outputs,
)
from mtl_perception.tasks import standard_tasks
import pytest

TYPES = {
    'i': 'sensor_msgs/msg/Image',
    'c': 'sensor_msgs/msg/CompressedImage',
    'k': 'sensor_msgs/msg/CameraInfo',
    'o': 'nav_msgs/msg/Odometry',
    'p': 'sensor_msgs/msg/PointCloud2',
    's': 'std_msgs/msg/String',
    'l': 'vision_msgs/msg/LabelInfo',
}


def topics(*names: str) -> dict[str, RecordedTopic]:
    """Write 'i /name' for an Image and so on, 'i- /name' for one without messages."""
    result = {}
    for entry in names:
        kind, name = entry.split()
        result[name] = RecordedTopic(TYPES[kind[0]], 0 if kind.endswith('-') else 10)
    return result


@pytest.mark.parametrize(
    ('available', 'expected'),
    [
        (  # realsense2_camera
            topics(
                'i /camera/color/image_raw', 'k /camera/color/camera_info',
                'i /camera/depth/image_rect_raw', 'k /camera/depth/camera_info',
                'i /camera/aligned_depth_to_color/image_raw',
                'k /camera/aligned_depth_to_color/camera_info',
                'i /camera/infra1/image_rect_raw', 'k /camera/infra1/camera_info',
            ),
            BagTopics(
                '/camera/color/image_raw', '/camera/color/camera_info',
                '/camera/aligned_depth_to_color/image_raw',
            ),
        ),
        (  # openni2, TUM
            topics(
                'i /camera/rgb/image_rect_color', 'k /camera/rgb/camera_info',
                'i /camera/depth_registered/image_rect', 'i /camera/depth/image',
            ),
            BagTopics(
                '/camera/rgb/image_rect_color', '/camera/rgb/camera_info',
                '/camera/depth_registered/image_rect',
            ),
        ),
        (  # compressed only, the CameraInfo elsewhere, odometry beside it
            topics('c /image/compressed', 'k /calibration', 'o /odom'),
            BagTopics('/image/compressed', '/calibration', odometry='/odom'),
        ),
        (  # raw and compressed of the same camera, a depth topic that stayed silent
            topics('c /cam/image_raw/compressed', 'i /cam/image_raw', 'i- /cam/depth'),
            BagTopics('/cam/image_raw'),
        ),
        (  # the raw topic was named but not recorded
            topics('c /cam/image_raw/compressed', 'i- /cam/image_raw'),
            BagTopics('/cam/image_raw/compressed'),
        ),
        (  # a rendered camera with ground truth, recorded together with the node's outputs
            topics(
                'i /camera/image_raw', 'k /camera/camera_info',
                'i /ground_truth/depth/image_rect', 'i /ground_truth/semantic/image_raw',
                'i /ground_truth/normals/image_raw', 'i /ground_truth/edges/image_raw',
                'i /depth/image_rect', 'k /depth/camera_info', 'i /semantic/image_raw',
                'i /semantic/confidence', 'i /semantic_color/image_raw',
                'i /normals/image_raw', 'i /normals_color/image_raw', 'i /edges/image_raw',
            ),
            BagTopics(
                '/camera/image_raw', '/camera/camera_info', '/ground_truth/depth/image_rect',
                '/ground_truth/semantic/image_raw', '/ground_truth/normals/image_raw',
                '/ground_truth/edges/image_raw',
            ),
        ),
    ],
)  # fmt: skip
def test_topics_of_common_cameras(
    available: dict[str, RecordedTopic], expected: BagTopics
) -> None:
    assert find_topics(available, BagTopics()) == expected


OUTPUTS = (
    'i {}/semantic/image_raw', 'i {}/normals/image_raw', 'i {}/edges/image_raw',
    'i {}/depth/image_rect', 'k {}/depth/camera_info',
)  # fmt: skip
MARKS = (
    'i {}/semantic/confidence', 's {}/semantic/label_names', 'l {}/semantic/label_info',
    'i {}/normals_color/image_raw', 'i {}/semantic_color/image_raw', 'p {}/points',
)  # fmt: skip


@pytest.mark.parametrize('namespace', ['', '/mtl_perception', '/robot/head'])
@pytest.mark.parametrize('mark', MARKS)
def test_the_outputs_of_a_node_are_nobodys_truth(namespace: str, mark: str) -> None:
    """Each mark alone tells the node; without any the same topics are ground truth."""
    outputs = [entry.format(namespace) for entry in OUTPUTS]
    camera = ['i /cam/rgb/image_raw', 'k /cam/rgb/camera_info']
    names = {
        kind: f'{namespace}/{kind}/image_{"rect" if kind == "depth" else "raw"}'
        for kind in ('depth', 'semantic', 'normals', 'edges')
    }
    plain = topics(*camera, *outputs)
    assert find_topics(plain, BagTopics()).targets == names
    assert skipped_outputs(plain, find_topics(plain, BagTopics())) == {}
    marked = topics(*camera, *outputs, mark.format(namespace))
    found = find_topics(marked, BagTopics())
    assert found.image == '/cam/rgb/image_raw'
    assert found.targets == {}
    assert skipped_outputs(marked, found) == names
    # Who names one insists.
    named = find_topics(marked, BagTopics(normals=names['normals']))
    assert named.targets == {'normals': names['normals']}
    assert set(skipped_outputs(marked, named)) == {'depth', 'semantic', 'edges'}
    # A sensor beside the node is what it is compared with, also in the node's namespace.
    sensor = f'{namespace}/depth/image_raw'
    with_sensor = topics(*camera, *outputs, mark.format(namespace), f'i {sensor}')
    assert find_topics(with_sensor, BagTopics()).targets == {'depth': sensor}
    # A simulated camera that says its truth in the node's layout.
    truth = topics(*camera, *(
        entry.format('/ground_truth') for entry in (*OUTPUTS, mark)
    ))  # fmt: skip
    assert set(find_topics(truth, BagTopics()).targets) == set(names)


@pytest.mark.parametrize('kinds', [
    ('semantic',), ('depth',), ('normals',), ('semantic', 'depth', 'normals', 'edges'),
])  # fmt: skip
def test_what_a_model_publishes_is_known_as_such(kinds: tuple[str, ...]) -> None:
    """By the node's own list, so that neither changes without the other."""
    tasks = [task for task in standard_tasks('rooms') if task.kind in kinds]
    images = [output.topic for task in tasks for output in image_outputs(task)]
    infos = camera_info_topics(tasks)
    available = topics(
        'i /cam/color/image_raw', *(f'i /{name}' for name in images),
        *(f'k /{name}' for name in infos), *([f'p /{CLOUD_TOPIC}'] if cloud_tasks(tasks) else []),
    )  # fmt: skip
    found = find_topics(available, BagTopics())
    assert found.targets == {}
    assert set(skipped_outputs(available, found)) == set(kinds)


def test_a_depth_camera_with_a_confidence_is_no_node() -> None:
    available = topics(
        'i /cam/rgb/image_raw', 'i /cam/depth/image_raw', 'i /cam/depth/confidence',
        'i /cam/depth/image_rect', 'k /cam/depth/camera_info', 'p /cam/depth/points',
    )  # fmt: skip
    assert find_topics(available, BagTopics()).depth == '/cam/depth/image_rect'


@pytest.mark.parametrize(
    ('topic', 'expected'),
    [
        ('/camera/image_rect', True), ('/camera/rgb/image_rect_color', True),
        ('/image_rect/compressed', True), ('/left/image_rectified', True),
        ('/zed/rgb/color/rect/image', True), ('/camera/image_color_rect', True),
        ('/camera/image_raw', False), ('/camera/unrect/image', False),
        ('/rectangle/image', False), ('/direct/image_color', False),
    ],
)  # fmt: skip
def test_names_of_rectified_images(topic: str, expected: bool) -> None:
    assert says_rectified(topic) == expected


def test_given_topics_win() -> None:
    available = topics(
        'i /left/image', 'i /right/image', 'k /left/camera_info', 'k /right/camera_info',
        'i /far/range',
    )  # fmt: skip
    found = find_topics(available, BagTopics(image='/right/image', depth='/far/range'))
    assert found == BagTopics('/right/image', '/right/camera_info', '/far/range')


def test_two_cameras_need_a_choice() -> None:
    available = topics('i /left/image', 'i /right/image')
    with pytest.raises(BagError, match=r'/left/image, /right/image.*--image-topic'):
        find_topics(available, BagTopics())


def test_two_like_depth_topics_are_not_guessed() -> None:
    available = topics('i /rgb/image', 'i /a/depth', 'i /b/depth')
    assert find_topics(available, BagTopics()).depth is None


def test_what_is_there_is_listed() -> None:
    with pytest.raises(BagError, match=r'--image-topic: /depth \(sensor_msgs/msg/Image\)'):
        find_topics(topics('i /depth'), BagTopics())
    with pytest.raises(BagError, match='no topics at all'):
        find_topics({}, BagTopics())
    with pytest.raises(BagError, match=r'--depth-topic /depht.*it has /depth'):
        find_topics(topics('i /depth', 'i /image'), BagTopics(depth='/depht'))
    with pytest.raises(BagError, match=r'--camera-info-topic /image is a sensor_msgs/msg/Image'):
        find_topics(topics('i /image'), BagTopics(camera_info='/image'))
