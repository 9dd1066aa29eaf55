# SPDX-License-Identifier: Apache-2.0
"""Topics as the common drivers name them, and what cannot be told by a name."""

from __future__ import annotations

from mtl_perception.bags.bag_file import RecordedTopic
from mtl_perception.bags.errors import BagError
from mtl_perception.bags.topics import BagTopics, find_topics
import pytest

TYPES = {
    'i': 'sensor_msgs/msg/Image',
    'c': 'sensor_msgs/msg/CompressedImage',
    'k': 'sensor_msgs/msg/CameraInfo',
    'o': 'nav_msgs/msg/Odometry',
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
