# SPDX-License-Identifier: Apache-2.0
"""The error of the ROS room."""

from __future__ import annotations

from mtl_perception.errors import MtlPerceptionError


class RosError(MtlPerceptionError):
    """A topic, message, camera source or node setting that cannot be used as it is."""
