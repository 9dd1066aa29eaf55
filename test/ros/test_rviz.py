# SPDX-License-Identifier: Apache-2.0
"""The RViz configuration: classes that RViz has, topics that the nodes publish."""

from __future__ import annotations

from collections.abc import Iterator
import math
from pathlib import Path
from typing import Any

from mtl_perception.tasks import standard_tasks
import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy')
from mtl_perception.geometry.cloud import CLOUD_FIELDS
from mtl_perception.output_topics import CLOUD_TOPIC, image_outputs
from mtl_perception.ros.camera_node import CameraNode, PARAMETERS
from mtl_perception.ros.outputs import Outputs
import rclpy

pytestmark = pytest.mark.ros

FILE = Path(__file__).parents[2] / 'config' / 'mtl_perception.rviz'

# Of rviz_common, and of rviz_default_plugins/plugins_description.xml with the message that
# each display takes.
PANELS = {'rviz_common/Displays', 'rviz_common/Views', 'rviz_common/Time'}
DISPLAYS = {
    'rviz_default_plugins/Image': 'sensor_msgs/msg/Image',
    'rviz_default_plugins/PointCloud2': 'sensor_msgs/msg/PointCloud2',
    'rviz_default_plugins/TF': None,
}
TOOLS = {
    'rviz_default_plugins/Interact', 'rviz_default_plugins/MoveCamera',
    'rviz_default_plugins/Select', 'rviz_default_plugins/FocusCamera',
    'rviz_default_plugins/Measure',
}  # fmt: skip
# What the image display can draw; it throws on 32FC3 and 32SC1.
DRAWABLE = {'rgb8', 'bgr8', 'mono8', '32FC1', '16UC1'}
TRANSFORMERS = {'XYZ', 'RGB8', 'Intensity'}
RELIABILITY = {'Reliable', 'Best Effort'}


@pytest.fixture
def config() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


@pytest.fixture
def displays(config: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = config['Visualization Manager']['Displays']
    return found


@pytest.fixture
def published(ros_domain: int) -> Iterator[dict[str, str]]:
    """Return the message type by topic of what both nodes really publish."""
    context = rclpy.Context()
    rclpy.init(context=context, args=[], domain_id=ros_domain)
    rclpy.init(args=[])  # CameraNode lives in the default context
    node = rclpy.create_node('perception', context=context)
    camera = CameraNode()
    outputs = Outputs(node, standard_tasks('rooms'), print)
    found = {
        topic: kinds[0]
        for owner in (node, camera)
        for topic, kinds in owner.get_publisher_names_and_types_by_node(owner.get_name(), '/')
    }
    outputs.close()
    yield found
    camera.destroy_node()
    node.destroy_node()
    rclpy.try_shutdown()
    rclpy.try_shutdown(context=context)


def test_every_class_is_one_that_rviz_has(
    config: dict[str, Any], displays: list[dict[str, Any]]
) -> None:
    assert {panel['Class'] for panel in config['Panels']} <= PANELS
    manager = config['Visualization Manager']
    assert {display['Class'] for display in displays} == set(DISPLAYS)
    assert {tool['Class'] for tool in manager['Tools']} <= TOOLS
    assert manager['Views']['Current']['Class'] == 'rviz_default_plugins/Orbit'
    assert manager['Transformation']['Current']['Class'] == 'rviz_default_plugins/TF'
    names = [display['Name'] for display in displays]
    assert len(set(names)) == len(names)


def test_every_topic_is_published_with_the_type_of_its_display(
    displays: list[dict[str, Any]], published: dict[str, str]
) -> None:
    shown = set()
    for display in displays:
        kind = DISPLAYS[display['Class']]
        if kind is None:
            continue
        topic = display['Topic']
        shown.add(topic['Value'])
        assert topic['Reliability Policy'] in RELIABILITY
        assert topic['Durability Policy'] == 'Volatile'
        if topic['Value'].endswith('/compressed'):
            # A camera driver's compressed twin: image_transport subscribes to its base topic.
            assert published[topic['Value'].removesuffix('/compressed')] == kind
            continue
        assert published[topic['Value']] == kind, topic['Value']
    # One display for each sense: nothing that was promised is left out.
    assert shown == {
        '/camera/image_raw', '/camera/image_raw/compressed', '/semantic_color/image_raw',
        '/depth/image_rect', '/normals_color/image_raw', '/edges/image_raw', '/points',
    }  # fmt: skip


def test_rviz_can_draw_the_encoding_of_every_image(displays: list[dict[str, Any]]) -> None:
    encodings = {
        f'/{output.topic}': output.encoding
        for task in standard_tasks('rooms')
        for output in image_outputs(task)
    }
    for display in displays:
        topic = display.get('Topic', {}).get('Value')
        if topic in encodings:
            assert encodings[topic] in DRAWABLE


def test_the_clouds_show_fields_that_the_cloud_has(displays: list[dict[str, Any]]) -> None:
    fields = {name for name, _ in CLOUD_FIELDS}
    clouds = {
        display['Name']: display
        for display in displays
        if display['Class'] == 'rviz_default_plugins/PointCloud2'
    }
    for cloud in clouds.values():
        assert cloud['Topic']['Value'] == f'/{CLOUD_TOPIC}'
        assert {cloud['Position Transformer'], cloud['Color Transformer']} <= TRANSFORMERS
    assert clouds['Cloud (colour)']['Color Transformer'] == 'RGB8'
    assert 'rgb' in fields
    by_label = clouds['Cloud (label)']
    assert by_label['Color Transformer'] == 'Intensity'
    assert by_label['Channel Name'] in fields
    # Fixed limits: automatic ones would give a class another colour in every frame.
    assert by_label['Autocompute Intensity Bounds'] is False
    semantic = next(task for task in standard_tasks('rooms') if task.kind == 'semantic')
    assert semantic.label_set is not None
    assert by_label['Max Intensity'] == len(semantic.label_set.names)


def test_the_view_stands_behind_the_camera_and_upright(config: dict[str, Any]) -> None:
    manager = config['Visualization Manager']
    assert manager['Global Options']['Fixed Frame'] == PARAMETERS[0].default
    view = manager['Views']['Current']
    yaw, pitch = view['Yaw'], view['Pitch']
    # OrbitViewController: the eye is at focus + distance * this, and z is up on the screen.
    towards_eye = np.array(
        [math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)]
    )
    forward = -towards_eye
    up = np.array([0.0, 0, 1]) - forward[2] * forward
    up /= np.linalg.norm(up)
    right = np.cross(forward, up)
    # Optical frame: z forward, y down, x right.
    assert forward[2] > 0.95
    assert up[1] < -0.9
    assert right[0] > 0.99
    focus = view['Focal Point']
    eye = np.array([focus['X'], focus['Y'], focus['Z']]) + view['Distance'] * towards_eye
    assert eye[2] < 0
    assert eye[1] < 0
