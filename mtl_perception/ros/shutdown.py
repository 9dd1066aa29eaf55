# SPDX-License-Identifier: Apache-2.0
"""The end of a process with rclpy, whoever brings it about."""

from __future__ import annotations

import rclpy


def shut_down() -> None:
    """Shut rclpy down, unless a signal (Ctrl-C, SIGTERM) has done so or does it meanwhile."""
    try:
        rclpy.try_shutdown()
    except Exception:
        # rclpy's signal handler runs in a thread of its own: between the question whether the
        # context is still up and the call that ends it, it may have ended it.
        if rclpy.ok():
            raise
