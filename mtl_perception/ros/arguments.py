# SPDX-License-Identifier: Apache-2.0
"""Tell a command's own arguments from those that belong to ROS."""

from __future__ import annotations

from collections.abc import Sequence
import sys


def split_ros_arguments(argv: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """
    Return the command's own arguments and, with their marks, those between --ros-args and --.

    Needs no rclpy, so that `--help` works where ROS is not installed. None means `sys.argv`.
    Source: design.ros2.org, "ROS Command Line Arguments".
    """
    own: list[str] = []
    ros: list[str] = []
    in_ros = False
    for argument in sys.argv[1:] if argv is None else argv:
        if argument == '--ros-args':
            in_ros = True
        elif argument == '--' and in_ros:
            in_ros = False
            ros.append(argument)
            continue
        (ros if in_ros else own).append(argument)
    return own, ros
