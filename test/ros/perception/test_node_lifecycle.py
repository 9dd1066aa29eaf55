# SPDX-License-Identifier: Apache-2.0
"""States, parameters and QoS of the node, asked for over its services."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')

NODE = '/mtl_perception'


def call(perception: Any, kind: Any, name: str, request: Any) -> Any:
    """Call a service of the node and return its response."""
    listener = perception.listener
    client = listener.node.create_client(kind, f'{NODE}/{name}')
    listener.spin_until(client.service_is_ready, 20, [perception.process])
    future = client.call_async(request)
    listener.spin_until(future.done, 20, [perception.process])
    listener.node.destroy_client(client)
    return future.result()


def state(perception: Any) -> str:
    from lifecycle_msgs.srv import GetState

    label: str = call(
        perception, GetState, 'get_state', GetState.Request()
    ).current_state.label
    return label


def change(perception: Any, transition: str) -> bool:
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    request = ChangeState.Request(transition=Transition(label=transition))
    success: bool = call(perception, ChangeState, 'change_state', request).success
    return success


def set_parameters(perception: Any, **values: Any) -> list[tuple[bool, str]]:
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    parameters = [
        Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
        for name, value in values.items()
    ]
    request = SetParameters.Request(parameters=parameters)
    response = call(perception, SetParameters, 'set_parameters', request)
    return [(one.successful, one.reason) for one in response.results]


def test_a_manager_leads_it_through_all_states(
    start_perception: Callable[..., Any], tmp_path: Path
) -> None:
    from sensor_msgs.msg import Image

    model = tmp_path / 'bundle'
    perception = start_perception('-p', 'autostart:=false', model=model)
    listener, camera = perception.listener, perception.camera
    labels = perception.subscribe(Image, 'semantic/image_raw')
    assert state(perception) == 'unconfigured'
    # The model is not there yet: the transition fails, says why, and can be tried again.
    assert not change(perception, 'configure')
    assert state(perception) == 'unconfigured'
    sentence = f'cannot configure: {model} is not a bundle: there is no such directory'
    perception.process.wait_for_output(sentence, 5)
    status = perception.next_status(skip=0)
    assert status.level == b'\x02'
    assert sentence in status.message
    model.mkdir()
    assert change(perception, 'configure')
    assert state(perception) == 'inactive'
    assert not change(perception, 'configure')  # not from here
    listener.spin_for(0.5)
    for _ in range(5):
        camera.send()
        listener.spin_for(0.05)
    assert not labels
    assert change(perception, 'activate')
    perception.send_until(lambda: len(labels) >= 3)
    assert state(perception) == 'active'

    assert change(perception, 'deactivate')
    heard = len(labels)
    for _ in range(5):
        camera.send()
        listener.spin_for(0.05)
    assert len(labels) == heard
    assert state(perception) == 'inactive'
    assert change(perception, 'activate')
    perception.send_until(lambda: len(labels) >= heard + 3)
    assert change(perception, 'deactivate')
    assert change(perception, 'cleanup')
    assert state(perception) == 'unconfigured'
    listener.spin_until(
        lambda: listener.node.count_publishers('semantic/image_raw') == 0, 5, [perception.process]
    )
    assert change(perception, 'configure')
    assert change(perception, 'activate')
    heard = len(labels)
    perception.send_until(lambda: len(labels) >= heard + 3)
    assert change(perception, 'shutdown')  # from active, the worker at work
    assert state(perception) == 'finalized'
    assert perception.process.process.poll() is None
    assert perception.process.interrupt() == 0
    assert 'Traceback' not in perception.process.output


@pytest.mark.parametrize('before', [(), ('configure',), ('configure', 'activate')])
def test_it_shuts_down_from_any_state(
    start_perception: Callable[..., Any], before: tuple[str, ...]
) -> None:
    perception = start_perception('-p', 'autostart:=false')
    for transition in before:
        assert change(perception, transition)
    assert change(perception, 'shutdown')
    assert state(perception) == 'finalized'
    assert perception.process.interrupt() == 0


def test_without_its_model_it_ends_with_one_sentence(
    start_command: Callable[..., Any], tmp_path: Path
) -> None:
    process = start_command('live', '--model', tmp_path / 'missing')
    assert process.wait(30) == 1
    lines = process.output.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(
        f'cannot configure: {tmp_path}/missing is not a bundle: there is no such directory; '
        'give the directory that save_bundle wrote'
    )


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['cloud.stride:=0'], 'parameter cloud.stride cannot be set'),
        (['engine:=steam'], "parameter engine is 'steam'; use one of "),
        (['image_timeout_s:=3'], 'image_timeout_s takes a number with a decimal point'),
        (
            ['cloud.range_min_m:=5.0', 'cloud.range_max_m:=2.0'],
            'cloud.range_min_m (5.0) must be less than cloud.range_max_m (2.0)',
        ),
    ],
)
def test_a_bad_parameter_at_start_ends_it_with_one_sentence(
    start_command: Callable[..., Any], arguments: list[str], sentence: str
) -> None:
    options = [part for argument in arguments for part in ('-p', argument)]
    process = start_command('live', '--ros-args', *options)
    assert process.wait(30) == 1
    lines = process.output.strip().splitlines()
    assert len(lines) == 1
    assert sentence in lines[0]


def test_parameters_are_described_refused_and_applied(
    start_perception: Callable[..., Any],
) -> None:
    import numpy as np
    from rcl_interfaces.srv import DescribeParameters, ListParameters
    from sensor_msgs.msg import PointCloud2

    perception = start_perception()
    clouds = perception.subscribe(PointCloud2, 'points')
    perception.send_until(lambda: clouds)
    listed = call(perception, ListParameters, 'list_parameters', ListParameters.Request())
    names = [
        name for name in listed.result.names
        if not name.startswith(('qos_overrides.', 'use_sim_time', 'start_type_description'))
    ]  # fmt: skip
    assert 'cloud.stride' in names
    request = DescribeParameters.Request(names=names)
    described = call(perception, DescribeParameters, 'describe_parameters', request)
    by_name = {one.name: one for one in described.descriptors}
    assert all(len(one.description) > 10 for one in by_name.values())
    fixed = {name for name, one in by_name.items() if one.read_only}
    assert fixed == {
        'model', 'engine', 'engine_precision', 'engine_build', 'threads', 'autostart',
        'image_transport', 'image_is_rectified', 'assume_focal_px',
    }  # fmt: skip
    assert (by_name['cloud.stride'].integer_range[0].from_value) == 1
    assert by_name['cloud.color_mode'].additional_constraints == 'one of camera, semantic'

    refused = set_parameters(
        perception, cloud__stride=0, cloud__color_mode='rainbow', cloud__range_min_m=1000.0,
        model='other', image_timeout_s=float('nan'), cloud__range_max_m='far',
    )  # fmt: skip
    assert not any(successful for successful, _ in refused)
    for (_, reason), named in zip(
        refused, ('Min: 1, Max: 64', "'rainbow'", 'less than', 'read-only', '', 'type')
    ):
        assert reason
        assert named in reason

    assert set_parameters(
        perception, cloud__stride=4, cloud__color_mode='semantic', cloud__range_max_m=2.5
    ) == [(True, '')] * 3
    clouds.clear()
    frame: list[Any] = []

    def strided() -> bool:
        frame[:] = [perception.camera.send()]
        perception.listener.spin_for(0.1)
        return bool(clouds) and clouds[-1].header.stamp == frame[0].header.stamp

    perception.listener.spin_until(strided, 10, [perception.process])
    cloud = clouds[-1]
    assert (cloud.height, cloud.width) == (12, 16)
    pixels = np.frombuffer(bytes(frame[0].data), np.uint8).reshape(48, 64, 3)[::4, ::4]
    words = np.frombuffer(bytes(cloud.data), np.float32).reshape(12, 16, 8)
    depth = 0.5 + pixels[..., 2] / 64
    np.testing.assert_allclose(words[..., 2], np.where(depth <= 2.5, depth, np.nan), rtol=1e-6)
    from mtl_perception.tasks import load_label_set

    palette = load_label_set('rooms').colours
    packed = words.view(np.uint32)
    for row, column in np.ndindex(12, 16):
        label = int(packed[row, column, 7])
        red, green, blue = palette[label] if label != 255 else (0, 0, 0)
        assert packed[row, column, 3] == red << 16 | green << 8 | blue


def test_a_publisher_that_cannot_be_heard_is_an_error(
    start_perception: Callable[..., Any],
) -> None:
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image

    # Our subscription asked to be reliable, the camera is best effort: a classic silence.
    perception = start_perception(
        '-p', 'qos_overrides./image.subscription.reliability:=reliable',
        '-p', 'image_timeout_s:=0.5',
    )  # fmt: skip
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node = perception.listener.node
    node.destroy_publisher(perception.camera.images)
    images = node.create_publisher(Image, 'image', best_effort)
    perception.subscribe(Image, 'edges/image_raw')
    perception.listener.spin_until(
        lambda: 'incompatible QoS' in perception.process.output, 20, [perception.process]
    )
    line = next(
        one for one in perception.process.output.splitlines() if 'incompatible QoS' in one
    )
    assert line.startswith('[ERROR]')
    assert 'RELIABILITY' in line
    assert '/image' in line
    assert 'make the publisher reliable or the subscriber best effort' in line
    images.publish(perception.camera.image())
    status = perception.next_status()
    assert status.level == b'\x02'
    assert status.message.startswith('no image on /image for ')
    assert 'incompatible QoS' in status.message


def test_a_subscriber_that_cannot_hear_is_told_until_deactivated(
    start_perception: Callable[..., Any],
) -> None:
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from sensor_msgs.msg import Image

    perception = start_perception()
    node = perception.listener.node
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    deaf = node.create_subscription(Image, 'semantic/image_raw', lambda _: None, latched)
    edges = perception.subscribe(Image, 'edges/image_raw')
    perception.send_until(
        lambda: edges and perception.diagnostics and 'DURABILITY' in perception.status.message
    )
    told = len(perception.diagnostics)
    perception.send_until(lambda: len(perception.diagnostics) >= told + 3)
    for message in perception.diagnostics[told:]:
        status = message.status[0]
        assert status.level == b'\x01'
        assert status.message.startswith('incompatible QoS (DURABILITY')
        assert 'a subscriber of /semantic/image_raw cannot hear it' in status.message
    node.destroy_subscription(deaf)
    assert change(perception, 'deactivate')
    assert change(perception, 'activate')
    edges.clear()
    perception.send_until(lambda: len(edges) >= 3)
    perception.next_status()
    assert 'incompatible' not in perception.status.message


def test_simulated_time_counts_for_the_age(start_perception: Callable[..., Any]) -> None:
    from builtin_interfaces.msg import Time
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    perception = start_perception('-p', 'use_sim_time:=true')
    listener, camera = perception.listener, perception.camera
    clock = listener.node.create_publisher(Clock, '/clock', 10)
    edges = perception.subscribe(Image, 'edges/image_raw')

    def send() -> bool:
        clock.publish(Clock(clock=Time(sec=1000, nanosec=250_000_000)))
        listener.spin_for(0.05)
        camera.send(camera.image(header=Header(stamp=Time(sec=1000), frame_id='bag')))
        listener.spin_for(0.05)
        return len(edges) >= 10

    listener.spin_until(send, 20, [perception.process])
    # Diagnostics come although the simulated clock stands still.
    perception.next_status()
    assert float(perception.values['age_at_receipt_ms']) == pytest.approx(250.0, abs=1e-6)
    assert perception.diagnostics[-1].header.stamp.sec == 1000
    assert edges[-1].header.stamp == Time(sec=1000)
