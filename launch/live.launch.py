# SPDX-License-Identifier: Apache-2.0
"""
The perception node on a robot's camera topics, with RViz or a camera of ours if asked for.

ros2 launch mtl_perception live.launch.py image_topic:=/camera/color/image_raw \
    camera_info_topic:=/camera/color/camera_info rviz:=true
"""

from __future__ import annotations

import os
from pathlib import Path
import shlex
from typing import Any

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from mtl_perception.ros.dds import profile_variable, use_large_message_profile
from mtl_perception.ros.launch_values import as_bool

from launch import LaunchContext, LaunchDescription

CONFIG = Path(__file__).parent.parent / 'config'
PACKAGE = 'mtl_perception'

# Name, default, description. An empty default leaves the value to the params file.
ARGUMENTS = (
    ('model', '', 'bundle directory to run; empty: as in params_file (the shipped one)'),
    ('image_topic', 'camera/image_raw', 'the camera image, without /compressed'),
    ('camera_info_topic', 'camera/camera_info', 'its sensor_msgs/CameraInfo'),
    ('image_transport', '', 'raw or compressed; empty: as in params_file (raw)'),
    ('namespace', '', 'namespace of every node and relative topic'),
    ('params_file', str(CONFIG / 'live.yaml'), 'parameters of the perception node'),
    ('use_sim_time', 'false', 'follow /clock'),
    ('autostart', '', 'false waits for a lifecycle manager; empty: as in params_file (true)'),
    ('rviz', 'false', 'open RViz 2'),
    ('rviz_config', str(CONFIG / 'mtl_perception.rviz'), 'what RViz shows'),
    (
        'camera', '',
        'start a camera of ours, given as to `ros2 run mtl_perception camera`: rooms, '
        '"video:walk.mp4 --fov-deg 69", device:0, ...; empty: your own driver publishes',
    ),
    ('log_level', 'info', 'debug, info, warn or error'),
)  # fmt: skip

# What the shipped RViz configuration shows: absolute there, so that it also works without this
# file, and relative to the namespace here.
RVIZ_TOPICS = (
    'depth/image_rect', 'edges/image_raw', 'normals_color/image_raw', 'points',
    'semantic_color/image_raw',
)  # fmt: skip
RVIZ_CAMERA = '/camera/image_raw'


def launch_nodes(context: LaunchContext) -> list[Any]:
    """Return the actions for the values of the arguments."""
    value = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    use_sim_time = as_bool('use_sim_time', value['use_sim_time'])
    common = {
        'namespace': value['namespace'] or None,
        'output': 'screen',
        'ros_arguments': ['--log-level', value['log_level']],
    }
    overrides: dict[str, Any] = {'use_sim_time': use_sim_time}
    if value['model']:
        overrides['model'] = value['model']
    if value['image_transport']:
        overrides['image_transport'] = value['image_transport']
    if value['autostart']:
        overrides['autostart'] = as_bool('autostart', value['autostart'])
    image_topic, camera_info_topic = value['image_topic'], value['camera_info_topic']
    actions: list[Any] = []
    # Every process has to load the profile, RViz and whatever is launched after it included.
    environment = dict(os.environ)
    profile = use_large_message_profile(environment)
    if profile is not None:
        actions.append(SetEnvironmentVariable(profile_variable(environment), str(profile)))
    actions.append(
        Node(
            package=PACKAGE,
            executable='live',
            parameters=[value['params_file'], overrides],
            remappings=[('image', image_topic), ('camera_info', camera_info_topic)],
            **common,
        )
    )
    if value['camera']:
        actions.append(
            Node(
                package=PACKAGE,
                executable='camera',
                arguments=shlex.split(value['camera']),
                remappings=[
                    ('camera/image_raw', image_topic),
                    ('camera/camera_info', camera_info_topic),
                ],
                **common,
            )
        )
    if as_bool('rviz', value['rviz']):
        actions.append(
            Node(
                package='rviz2',
                executable='rviz2',
                arguments=['-d', value['rviz_config']],
                parameters=[{'use_sim_time': use_sim_time}],
                remappings=[
                    *((f'/{topic}', topic) for topic in RVIZ_TOPICS),
                    (RVIZ_CAMERA, image_topic),
                    (f'{RVIZ_CAMERA}/compressed', f'{image_topic}/compressed'),
                ],
                **common,
            )
        )
    return actions


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; see them with `--show-args`."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=launch_nodes),
        ]
    )
