# SPDX-License-Identifier: Apache-2.0
"""`camera`: publish a video, pictures, an attached camera, a bag or rendered rooms."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
import threading
from typing import Any

from mtl_perception.calibration_file import load_calibration
from mtl_perception.command_line import size
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.ros.arguments import split_ros_arguments
from mtl_perception.ros.errors import RosError
from mtl_perception.ros.sources import KINDS, open_source, SourceOptions

_EXAMPLE = """sources:
  rooms         rendered rooms with ground truth (endless)
  video:PATH    a video file
  device:N      the attached camera /dev/videoN; unplugged, it is awaited
  images:DIR    the pictures of a folder in the order of their names
  bag:PATH      a rosbag2, every topic as it was recorded, with /clock

topics (relative; remap them like a driver's):
  camera/image_raw, camera/camera_info; for rooms also ground_truth/... and odom
  a bag publishes the topics that were recorded

examples:
  python3 -m mtl_perception camera rooms --rate 10
  python3 -m mtl_perception camera video:walk.mp4 --fov-deg 69 --loop
  python3 -m mtl_perception camera bag:kitchen --rate 0.5 --ros-args -r /odom:=/recorded/odom
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Publish a camera; return 0 when it ended by itself or was stopped."""
    arguments, ros_arguments = _parse(argv)
    # Fast DDS reads its profile when the first participant is made.
    from mtl_perception.ros.dds import use_large_message_profile

    use_large_message_profile()
    from mtl_perception.ros.shutdown import shut_down
    import rclpy

    try:
        rclpy.init(args=['camera', *ros_arguments])
    except Exception as error:
        raise RosError(f'the ROS arguments cannot be used: {error}') from error
    try:
        if arguments.source.startswith('bag:'):
            _play_bag(arguments)
        else:
            _run_camera(arguments)
    except MtlPerceptionError:
        raise
    except KeyboardInterrupt:
        pass
    # Once the context is shut down (SIGTERM, SIGINT) every rclpy call raises: that is the end.
    except Exception:
        if rclpy.ok():
            raise
    finally:
        shut_down()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception camera',
        description='Publish a camera on ROS 2 topics: image, camera_info and, where the source '
        'has it, ground truth.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='SOURCE', help=KINDS)
    parser.add_argument(
        '--rate', type=_positive, metavar='R',
        help="frames per second (default: the source's own); for a bag the factor of its pace",
    )  # fmt: skip
    parser.add_argument('--loop', action='store_true', help='begin again at the end')
    parser.add_argument(
        '--size', type=size, metavar='WxH',
        help='size of the published image, for example 640x480; camera_info is scaled with it',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=1, help='which rooms are rendered')
    intrinsics = parser.add_mutually_exclusive_group()
    intrinsics.add_argument(
        '--fov-deg', type=_field_of_view, metavar='DEG',
        help='horizontal field of view of an undistorted camera, when it is not calibrated',
    )  # fmt: skip
    intrinsics.add_argument(
        '--camera-info', type=Path, metavar='FILE',
        help='calibration YAML (camera_calibration); without it and --fov-deg camera_info says '
        '"not calibrated" (K = 0) and there is no metric depth',
    )  # fmt: skip
    parser.add_argument(
        '--wait', type=_not_negative, default=2.0, metavar='S',
        help='hold the first frame until something subscribes, at most S seconds (default: 2)',
    )  # fmt: skip
    return parser


def _parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Split our own arguments from those after --ros-args and check that they go together."""
    parser = _parser()
    own, ros_arguments = split_ros_arguments(argv)
    arguments = parser.parse_args(own)
    kind = arguments.source.partition(':')[0]
    has_intrinsics = arguments.fov_deg is not None or arguments.camera_info is not None
    if kind == 'bag' and (arguments.size is not None or has_intrinsics):
        parser.error('a bag is played as it was recorded: --size, --fov-deg and --camera-info '
                     'do not apply')
    if kind == 'rooms' and has_intrinsics:
        parser.error('rooms have a camera of their own: --fov-deg and --camera-info do not apply')
    if kind == 'rooms' and arguments.loop:
        parser.error('rooms have no end: --loop does not apply')
    return arguments, ros_arguments


def _play_bag(arguments: argparse.Namespace) -> None:
    from mtl_perception.bags.bag_file import BagFile
    from mtl_perception.ros.bag_player import BagPlayer

    with BagFile(arguments.source.partition(':')[2]) as bag:
        node = BagPlayer(bag, rate=arguments.rate or 1.0, loop=arguments.loop)
        with _spinning(node):
            node.play(arguments.wait)


def _run_camera(arguments: argparse.Namespace) -> None:
    from mtl_perception.ros.camera_node import CameraNode

    calibration = arguments.camera_info
    options = SourceOptions(
        loop=arguments.loop,
        size=arguments.size,
        rate_hz=arguments.rate,
        seed=arguments.seed,
        fov_deg=arguments.fov_deg,
        calibration=None if calibration is None else load_calibration(calibration),
    )
    node = CameraNode()
    with open_source(arguments.source, options, node.get_logger().warning) as source:
        rate_hz = source.rate_hz if arguments.rate is None else arguments.rate
        with _spinning(node):
            node.run(source.frames(), rate_hz, arguments.wait)


@contextmanager
def _spinning(node: Any) -> Iterator[None]:
    """Answer the node's services and parameter requests in a thread of its own."""
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.task import Future

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    done = Future()

    def spin() -> None:
        try:
            executor.spin_until_future_complete(done)
        except ExternalShutdownException:
            pass

    thread = threading.Thread(target=spin, name='camera executor', daemon=True)
    thread.start()
    try:
        yield
    finally:
        # The thread ends by itself first: Jazzy's executor and publishers crash the process when
        # they are destroyed while it waits.
        done.set_result(None)
        thread.join()
        executor.shutdown()
        node.destroy_node()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float('inf'):
        msg = f'{text} is not a positive number'
        raise argparse.ArgumentTypeError(msg)
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float('inf'):
        msg = f'{text} is not a number of seconds'
        raise argparse.ArgumentTypeError(msg)
    return value


def _field_of_view(text: str) -> float:
    value = float(text)
    if not 0 < value < 180:
        msg = f'{text} is not between 0 and 180 degrees'
        raise argparse.ArgumentTypeError(msg)
    return value
