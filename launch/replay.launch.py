# SPDX-License-Identifier: Apache-2.0
"""
The perception node on a rosbag2, in the bag's own time; ends when the bag ends.

ros2 launch mtl_perception replay.launch.py bag:=recordings/kitchen rviz:=true
ros2 launch mtl_perception replay.launch.py bag:=recordings/kitchen model:=my_bundle out:=results
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    Shutdown,
    TimerAction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.topics import BagTopics, COMPRESSED_IMAGE, find_topics
from mtl_perception.ros.errors import RosError
from mtl_perception.ros.launch_values import as_bool

from launch import LaunchContext, LaunchDescription

LIVE = Path(__file__).parent / 'live.launch.py'
CONFIG = Path(__file__).parent.parent / 'config'

# The first frame waits until the model is loaded; the last one gets time to be published.
WAIT_S = 60
LINGER_S = 2.0

# Name, default (None: has to be given), description.
ARGUMENTS = (
    ('bag', None, 'rosbag2 folder, or its .mcap or .db3 file'),
    ('rate', '1.0', 'factor of the pace of the recording'),
    ('loop', 'false', 'begin again at the end, until interrupted'),
    ('image_topic', '', 'the camera image in the bag; empty: found by type and name'),
    ('camera_info_topic', '', 'its camera_info in the bag; empty: found by type and name'),
    ('out', '', 'folder for scores, as `replay --live` writes them; empty: nothing is scored'),
    ('step', 'false', 'with out: each frame waits for the outputs of the last one'),
)
# Passed on to live.launch.py, which describes them too.
PASSED_ON = (
    ('model', '', 'bundle directory to run; empty: as in params_file (the shipped one)'),
    ('namespace', '', 'namespace of the perception node and its outputs'),
    ('params_file', str(CONFIG / 'live.yaml'), 'parameters of the perception node'),
    ('rviz', 'false', 'open RViz 2'),
    ('rviz_config', str(CONFIG / 'mtl_perception.rviz'), 'what RViz shows'),
    ('log_level', 'info', 'debug, info, warn or error'),
)


def launch_nodes(context: LaunchContext) -> list[Any]:
    """Return the actions for the values of the arguments."""
    value = {
        name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS + PASSED_ON
    }
    path = Path(value['bag']).expanduser()
    with BagFile(path) as bag:
        given = BagTopics(
            image=value['image_topic'] or None, camera_info=value['camera_info_topic'] or None
        )
        topics = find_topics(bag.topics, given)
        assert topics.image is not None  # find_topics raises rather than not find it
        is_compressed = bag.topics[topics.image].type == COMPRESSED_IMAGE
    image_topic = topics.image.removesuffix('/compressed')
    live = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(LIVE)),
        launch_arguments={
            **{name: value[name] for name, _, _ in PASSED_ON},
            'use_sim_time': 'true',
            'camera': '',
            'autostart': 'true',
            'image_topic': image_topic,
            'camera_info_topic': topics.camera_info or f'{image_topic}/camera_info',
            'image_transport': 'compressed' if is_compressed else 'raw',
        }.items(),
    )
    player = Node(
        package='mtl_perception',
        output='screen',
        on_exit=[TimerAction(period=LINGER_S, actions=[Shutdown(reason='the bag has ended')])],
        **(_evaluator(value, path) if value['out'] else _player(value, path)),
    )
    return [live, player]


def _player(value: dict[str, str], path: Path) -> dict[str, Any]:
    """Return what of a node plays the bag."""
    arguments = [f'bag:{path}', '--rate', value['rate'], '--wait', str(WAIT_S)]
    if as_bool('loop', value['loop']):
        arguments.append('--loop')
    return {'executable': 'camera', 'arguments': arguments}


def _evaluator(value: dict[str, str], path: Path) -> dict[str, Any]:
    """Return what of a node plays the bag and scores what the perception node publishes."""
    if as_bool('loop', value['loop']):
        raise RosError('loop:=true has no end at which to score; leave out loop, or out')
    out = str(Path(value['out']).expanduser())
    arguments = [str(path), '--live', '--attach', '--out', out]
    arguments += ['--step'] if as_bool('step', value['step']) else ['--rate', value['rate']]
    for name in ('model', 'image_topic', 'camera_info_topic'):
        if value[name]:
            arguments += [f'--{name.replace("_", "-")}', value[name]]
    return {
        'executable': 'replay', 'arguments': arguments, 'namespace': value['namespace'] or None,
    }  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; see them with `--show-args`."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS + PASSED_ON
            ),
            OpaqueFunction(function=launch_nodes),
        ]
    )
