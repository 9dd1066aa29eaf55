# SPDX-License-Identifier: Apache-2.0
"""`live`: run the perception node."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
from pathlib import Path

from mtl_perception.ros.arguments import split_ros_arguments
from mtl_perception.ros.dds import use_large_message_profile
from mtl_perception.ros.errors import RosError
from mtl_perception.ros.memory import keep_freed_memory

_EXAMPLE = """examples:
  python3 -m mtl_perception live
      the shipped model on the topics `image` and `camera_info`
  python3 -m mtl_perception live --model bundles/mine --ros-args \\
      -r image:=/camera/image_raw -r camera_info:=/camera/camera_info -p cloud.stride:=2
  ros2 run mtl_perception live --ros-args --params-file live.yaml

With `autostart` (the default) a model that cannot be opened ends the process with code 1; with
autostart:=false the node stays and the transition fails instead."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until interrupted; return 1 if the node cannot start."""
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception live',
        description='Labels, metric depth, normals, edges and a fused point cloud of a camera '
        'topic, as a ROS 2 lifecycle node. ROS arguments follow --ros-args.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--model', type=Path, help='bundle directory, the parameter `model`; default: the shipped'
    )
    own, ros_arguments = split_ros_arguments(argv)
    options = parser.parse_args(own)
    # torch's threads would spin between two frames and take the cores from others; OpenMP reads
    # it when torch is imported.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    # Fast DDS reads its profile when the first participant is made.
    use_large_message_profile()
    keep_freed_memory()
    from mtl_perception.ros.shutdown import shut_down
    import rclpy

    try:
        rclpy.init(args=ros_arguments)
    except Exception as error:
        raise RosError(f'the ROS arguments cannot be used: {error}') from error
    try:
        return _run(options.model)
    finally:
        shut_down()


def _run(model: Path | None) -> int:
    from mtl_perception.ros.perception_node import PerceptionNode
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    overrides = [] if model is None else [rclpy.Parameter('model', value=str(model))]
    node = PerceptionNode(parameter_overrides=overrides)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.autostart and not node.start():
            return 1
        while rclpy.ok():
            try:
                executor.spin()
            except ExternalShutdownException:
                break
            # A callback that fails is a defect, but no reason to leave the robot blind. Once
            # the context is shut down every rclpy call raises: that is the end.
            except Exception as error:
                if rclpy.ok():
                    node.report_defect(error)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
    return 0
