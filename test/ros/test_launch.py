# SPDX-License-Identifier: Apache-2.0
"""
The launch files: their arguments, and the nodes that they start.

launch and launch_ros come with a ROS installation only. Small stand-ins with the same names
and keywords take their place here; the nodes that they record are then started for real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import json
from pathlib import Path
import re
import runpy
import sys
from types import ModuleType
from typing import Any

import cv2
from mtl_perception.camera import CameraModel
from mtl_perception.errors import MtlPerceptionError
import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy')
pytest.importorskip('onnxruntime')
from mtl_perception.ros import dds
from mtl_perception.ros.camera_command import _parse
from mtl_perception.ros.camera_node import CAMERA_INFO_TOPIC, IMAGE_TOPIC
from mtl_perception.ros.perception_parameters import PARAMETERS
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
LIVE = ROOT / 'launch' / 'live.launch.py'
REPLAY = ROOT / 'launch' / 'replay.launch.py'
DECLARED = {spec.name: spec for spec in PARAMETERS}


@dataclass
class Context:
    configurations: dict[str, str]


@dataclass
class LaunchConfiguration:
    name: str

    def perform(self, context: Context) -> str:
        return context.configurations[self.name]


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: str | None = None
    description: str = ''


@dataclass
class OpaqueFunction:
    function: Callable[[Context], list[Any]]


@dataclass
class SetEnvironmentVariable:
    name: str
    value: str


@dataclass
class Shutdown:
    reason: str = ''


@dataclass
class TimerAction:
    period: float
    actions: list[Any]


@dataclass
class PythonLaunchDescriptionSource:
    location: str


@dataclass
class IncludeLaunchDescription:
    source: PythonLaunchDescriptionSource
    launch_arguments: Any = ()


@dataclass
class Node:
    """Takes the keywords of launch_ros.actions.Node that this package may use, no others."""

    package: str
    executable: str
    namespace: str | None = None
    parameters: list[Any] = field(default_factory=list)
    remappings: list[tuple[str, str]] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    ros_arguments: list[str] = field(default_factory=list)
    output: str = 'log'
    on_exit: list[Any] = field(default_factory=list)

    def command(self) -> list[str]:
        """Return the arguments that launch_ros gives the executable."""
        result = [*self.arguments, '--ros-args', *self.ros_arguments, '--ros-args']
        if self.namespace is not None:
            result += ['-r', f'__ns:=/{self.namespace}']
        for entry in self.parameters:
            if isinstance(entry, dict):
                for name, value in entry.items():
                    text = str(value).lower() if isinstance(value, bool) else str(value)
                    result += ['-p', f'{name}:={text}']
            else:
                result += ['--params-file', entry]
        for source, target in self.remappings:
            result += ['-r', f'{source}:={target}']
        return result


@pytest.fixture
def _launch_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    contents: dict[str, dict[str, Any]] = {
        'launch': {'LaunchContext': Context, 'LaunchDescription': list},
        'launch.actions': {
            kind.__name__: kind
            for kind in (
                DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction,
                SetEnvironmentVariable, Shutdown, TimerAction,
            )
        },
        'launch.substitutions': {'LaunchConfiguration': LaunchConfiguration},
        'launch.launch_description_sources': {
            'PythonLaunchDescriptionSource': PythonLaunchDescriptionSource
        },
        'launch_ros': {},
        'launch_ros.actions': {'Node': Node},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)


def declared(file: Path) -> dict[str, DeclareLaunchArgument]:
    description = runpy.run_path(str(file))['generate_launch_description']()
    found = [action for action in description if isinstance(action, DeclareLaunchArgument)]
    assert len({action.name for action in found}) == len(found)
    return {action.name: action for action in found}


def launched(file: Path, **given: str) -> list[Any]:
    """Run a launch file as `ros2 launch` would and return its actions, included ones too."""
    arguments = declared(file)
    assert set(given) <= set(arguments), 'an argument that the launch file does not declare'
    values = {name: given.get(name, action.default_value) for name, action in arguments.items()}
    missing = [name for name, value in values.items() if value is None]
    assert not missing, f'arguments without a default: {missing}'
    actions: list[Any] = []
    for action in runpy.run_path(str(file))['generate_launch_description']():
        if isinstance(action, OpaqueFunction):
            actions += action.function(Context(values))
    for action in list(actions):
        if isinstance(action, IncludeLaunchDescription):
            actions += launched(Path(action.source.location), **dict(action.launch_arguments))
    return actions


def nodes(actions: list[Any]) -> dict[str, Node]:
    return {action.executable: action for action in actions if isinstance(action, Node)}


def check_node(node: Node) -> None:
    """Check a node of ours against what it really declares."""
    assert node.package == 'mtl_perception'
    scripts = re.search(r'COMMANDS = \((.*?)\)', (ROOT / 'setup.py').read_text(), re.DOTALL)
    assert scripts is not None
    assert f"'{node.executable}'" in scripts[1]
    names = {
        'live': {'image', 'camera_info'},
        'camera': {IMAGE_TOPIC, CAMERA_INFO_TOPIC},
        'replay': set(),
    }[node.executable]
    assert {source for source, _ in node.remappings} <= names
    for entry in node.parameters:
        if not isinstance(entry, dict):
            assert Path(entry).is_file()
            continue
        for name, value in entry.items():
            expected = bool if name == 'use_sim_time' else type(DECLARED[name].default)
            assert type(value) is expected, name


@pytest.mark.usefixtures('_launch_modules')
class TestLaunchFiles:
    """The files without any process."""

    @pytest.fixture(autouse=True)
    def no_profile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in (dds.PROFILE_VARIABLE, dds.OLD_PROFILE_VARIABLE):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize('file', [LIVE, REPLAY], ids=lambda file: file.name)
    def test_every_argument_says_what_it_is(self, file: Path) -> None:
        for argument in declared(file).values():
            assert len(argument.description) >= 10, argument.name
        assert set(declared(LIVE)) == {
            'model', 'image_topic', 'camera_info_topic', 'image_transport', 'namespace',
            'params_file', 'use_sim_time', 'autostart', 'rviz', 'rviz_config', 'camera',
            'log_level',
        }  # fmt: skip

    def test_live_alone_is_the_perception_node_as_its_params_file_says(self) -> None:
        actions = launched(LIVE)
        (live,) = nodes(actions).values()
        check_node(live)
        assert live.executable == 'live'
        assert live.parameters[0] == str(ROOT / 'config' / 'live.yaml')
        # Nothing that was not given may override the params file.
        assert live.parameters[1] == {'use_sim_time': False}
        (variable,) = (one for one in actions if isinstance(one, SetEnvironmentVariable))
        assert variable.name == 'FASTDDS_DEFAULT_PROFILES_FILE'
        assert Path(variable.value).is_file()
        # Processes inherit the variable only from actions before them.
        assert actions.index(variable) < actions.index(live)

    def test_a_profile_of_the_user_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '/mine.xml')
        assert not [one for one in launched(LIVE) if isinstance(one, SetEnvironmentVariable)]

    def test_what_is_given_reaches_the_node(self) -> None:
        given = launched(
            LIVE, model='/b', image_topic='/eye/image', camera_info_topic='/eye/info',
            image_transport='compressed', namespace='robot', use_sim_time='True', autostart='no',
            log_level='debug', camera='video:"a walk.mp4" --fov-deg 70 --loop',
        )  # fmt: skip
        found = nodes(given)
        for node in found.values():
            check_node(node)
            assert node.namespace == 'robot'
            assert node.ros_arguments == ['--log-level', 'debug']
        assert found['live'].remappings == [('image', '/eye/image'), ('camera_info', '/eye/info')]
        assert found['live'].parameters[1] == {
            'use_sim_time': True, 'model': '/b', 'image_transport': 'compressed',
            'autostart': False,
        }  # fmt: skip
        assert found['camera'].remappings == [
            (IMAGE_TOPIC, '/eye/image'), (CAMERA_INFO_TOPIC, '/eye/info')
        ]  # fmt: skip
        arguments, ros_arguments = _parse(found['camera'].command())
        assert (arguments.source, arguments.fov_deg, arguments.loop) == (
            'video:a walk.mp4', 70, True
        )  # fmt: skip
        assert '__ns:=/robot' in ros_arguments

    def test_rviz_shows_the_topics_of_the_namespace(self) -> None:
        rviz = nodes(launched(LIVE, rviz='1', namespace='robot', image_topic='eye/image'))['rviz2']
        assert rviz.package == 'rviz2'
        assert rviz.namespace == 'robot'
        assert rviz.arguments == ['-d', str(ROOT / 'config' / 'mtl_perception.rviz')]
        config = yaml.safe_load((ROOT / 'config' / 'mtl_perception.rviz').read_text())
        shown = {
            display['Topic']['Value']
            for display in config['Visualization Manager']['Displays']
            if 'Topic' in display
        }
        remaps = dict(rviz.remappings)
        assert set(remaps) == shown
        for topic in shown - {'/camera/image_raw', '/camera/image_raw/compressed'}:
            assert f'/{remaps[topic]}' == topic
        assert remaps['/camera/image_raw'] == 'eye/image'
        assert remaps['/camera/image_raw/compressed'] == 'eye/image/compressed'

    @pytest.mark.parametrize('name', ['rviz', 'use_sim_time', 'autostart'])
    def test_what_is_neither_true_nor_false_is_refused(self, name: str) -> None:
        with pytest.raises(MtlPerceptionError, match=f'{name}:=maybe is neither true nor false'):
            launched(LIVE, **{name: 'maybe'})

    @pytest.fixture
    def bag(self, bags: Any, tmp_path: Path) -> Path:
        camera = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)
        picture = cv2.imencode('.jpg', np.zeros((24, 32, 3), np.uint8))[1].tobytes()
        messages = []
        for stamp in range(10**9, 10**9 + 3 * 10**8, 10**8):
            messages += [
                ('/eye/image_raw/compressed', stamp, bags.compressed(picture, stamp)),
                ('/eye/camera_info', stamp, bags.camera_info(camera, stamp)),
            ]
        path: Path = bags.write(tmp_path / 'bag', messages)
        return path

    def test_replay_finds_the_topics_of_the_bag_and_ends_with_it(self, bag: Path) -> None:
        found = nodes(launched(REPLAY, bag=str(bag), rate='0.5', loop='yes', model='/b'))
        assert set(found) == {'live', 'camera'}
        for node in found.values():
            check_node(node)
        assert found['live'].remappings == [
            ('image', '/eye/image_raw'), ('camera_info', '/eye/camera_info')
        ]  # fmt: skip
        assert found['live'].parameters[1] == {
            'use_sim_time': True, 'model': '/b', 'image_transport': 'compressed',
            'autostart': True,
        }  # fmt: skip
        arguments, _ = _parse(found['camera'].command())
        assert (arguments.source, arguments.rate, arguments.loop) == (f'bag:{bag}', 0.5, True)
        assert arguments.wait >= 30
        (timer,) = found['camera'].on_exit
        assert timer.period > 0
        assert [type(action) for action in timer.actions] == [Shutdown]
        # The bag's own stamps: the player has no clock to follow.
        assert not found['camera'].parameters

    def test_replay_with_out_is_the_live_replay_of_the_same_model(
        self, bag: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip('torch')
        from mtl_perception.evaluation import replay_command
        from mtl_perception.ros.replay_command import main

        given: dict[str, str] = {'bag': str(bag), 'model': '/b', 'out': '/results'}
        found = nodes(launched(REPLAY, **given, step='true', namespace='robot'))
        assert set(found) == {'live', 'replay'}
        for node in found.values():
            check_node(node)
            assert node.namespace == 'robot'
        calls: list[Any] = []
        monkeypatch.setattr(replay_command, 'main', lambda *given: calls.append(given) or 0)
        assert main(found['replay'].command()) == 0
        ((own, open_live),) = calls
        assert own == [
            str(bag), '--live', '--attach', '--out', '/results', '--step', '--model', '/b'
        ]  # fmt: skip
        assert '__ns:=/robot' in open_live.args[0]
        (timer,) = found['replay'].on_exit
        assert [type(action) for action in timer.actions] == [Shutdown]
        arguments = nodes(launched(REPLAY, **given, rate='0.5'))['replay'].arguments
        assert arguments[5:7] == ['--rate', '0.5']
        with pytest.raises(MtlPerceptionError, match='loop:=true has no end'):
            launched(REPLAY, **given, loop='true')

    def test_replay_takes_the_topics_it_is_given(self, bag: Path) -> None:
        with pytest.raises(MtlPerceptionError, match='the bag has no such topic'):
            launched(REPLAY, bag=str(bag), image_topic='/other')
        with pytest.raises(AssertionError, match="arguments without a default: \\['bag'\\]"):
            launched(REPLAY)


@pytest.mark.usefixtures('_launch_modules')
def test_the_launched_nodes_talk_to_each_other(
    tmp_path: Path, small_bundle: Path, listener: Any, start_command: Callable[..., Any]
) -> None:
    (tmp_path / 'pictures').mkdir()
    random = np.random.default_rng(1)
    cv2.imwrite(
        str(tmp_path / 'pictures' / 'one.png'), random.integers(0, 256, (48, 64, 3), np.uint8)
    )
    found = nodes(
        launched(
            LIVE, model=str(small_bundle), namespace='robot', image_topic='eye/image_raw',
            camera_info_topic='eye/camera_info',
            camera=f'images:{tmp_path}/pictures --loop --fov-deg 60',
        )
    )
    labels = listener.subscribe(Image, '/robot/semantic/image_raw')
    depths = listener.subscribe(Image, '/robot/depth/image_rect')
    running = [start_command(name, *node.command()) for name, node in found.items()]
    listener.spin_until(lambda: labels and depths, 60, running)
    assert (labels[0].width, labels[0].height, labels[0].encoding) == (64, 48, 'mono8')
    assert [one.interrupt() for one in running] == [0, 0]


@pytest.mark.usefixtures('_launch_modules')
def test_replay_launched_with_out_scores_as_without_ros(
    walk_bag: Path, small_bundle: Path, tmp_path: Path, start_command: Callable[..., Any]
) -> None:
    pytest.importorskip('torch')
    from mtl_perception.evaluation.replay_command import main

    out, offline = tmp_path / 'out', tmp_path / 'offline'
    found = nodes(
        launched(
            REPLAY, bag=str(walk_bag), model=str(small_bundle), out=str(out), step='true',
            namespace='robot',
        )
    )
    live, replay = (
        start_command(name, *found[name].command()) for name in ('live', 'replay')
    )
    assert replay.wait(200) == 0, replay.output
    assert live.interrupt() == 0
    assert main([str(walk_bag), '--out', str(offline), '--model', str(small_bundle)]) == 0
    documents = [json.loads((one / 'metrics.json').read_text()) for one in (out, offline)]
    for name in ('processed', 'frames', 'refused', 'scores', 'confusion', 'notes', 'topics'):
        assert documents[0][name] == documents[1][name], name


def flattened(values: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flattened(value, f'{prefix}{name}.')
        else:
            result[prefix + name] = value
    return result


def test_the_params_file_names_every_parameter_with_its_default() -> None:
    text = (ROOT / 'config' / 'live.yaml').read_text()
    values = flattened(yaml.safe_load(text)['/**']['ros__parameters'])
    assert list(values) == list(DECLARED)
    for name, spec in DECLARED.items():
        assert values[name] == spec.default, name
        assert type(values[name]) is type(spec.default), name


def test_the_params_file_explains_every_parameter() -> None:
    text = (ROOT / 'config' / 'live.yaml').read_text()
    comments = ' '.join(re.sub(r'(?m)^\s*#', '', text).split())
    for spec in PARAMETERS:
        remarks = []
        if spec.choices:
            remarks.append(' or '.join(spec.choices))
        if spec.limits is not None:
            remarks.append('{:g} to {:g}'.format(*spec.limits))
        if spec.read_only:
            remarks.append('fixed')
        line = f'{spec.description} ({"; ".join(remarks)})'
        assert line in comments, f'config/live.yaml should say of {spec.name}: {line}'
