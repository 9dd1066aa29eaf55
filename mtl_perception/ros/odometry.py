# SPDX-License-Identifier: Apache-2.0
"""A camera's pose as nav_msgs/Odometry."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Point, Quaternion
from nav_msgs.msg import Odometry
import numpy as np
import numpy.typing as npt
from std_msgs.msg import Header

ODOMETRY_FRAME = 'odom'


def quaternion(rotation: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    """
    Return x, y, z, w of a rotation matrix (3, 3), with w >= 0.

    It is the eigenvector of Bar-Itzhack's symmetric 4x4 matrix (J. Guidance 23(6), 2000) for
    the largest eigenvalue: no case distinctions, and exact for a proper rotation.
    """
    m = np.asarray(rotation, np.float64)
    k = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
        [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
        [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
    ])
    vector = np.linalg.eigh(k)[1][:, -1]
    if vector[3] < 0:
        vector = -vector
    return tuple(float(value) for value in vector)  # type: ignore[return-value]


def odometry_message(header: Header, pose: npt.NDArray[np.float64]) -> Odometry:
    """
    Return the pose (4, 4) of the camera, optical frame -> world, at the header's stamp.

    The message's frame is `odom` and its child the header's frame; the velocity is unknown
    and left at zero.
    """
    message = Odometry(child_frame_id=header.frame_id)
    message.header = Header(stamp=header.stamp, frame_id=ODOMETRY_FRAME)
    x, y, z = (float(value) for value in pose[:3, 3])
    message.pose.pose.position = Point(x=x, y=y, z=z)
    x, y, z, w = quaternion(pose[:3, :3])
    message.pose.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
    return message
