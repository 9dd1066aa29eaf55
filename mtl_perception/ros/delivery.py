# SPDX-License-Identifier: Apache-2.0
"""See to it that the first and the last messages of a short stream arrive."""

from __future__ import annotations

from collections.abc import Sequence
import time
from typing import Any

from rclpy.duration import Duration

# A publisher knows its subscriber a little before the subscriber knows the publisher; what is
# sent in between is lost to a best-effort subscriber.
_SETTLE_S = 0.5
_POLL_S = 0.05


def wait_for_subscribers(publishers: Sequence[Any], limit_s: float, context: Any) -> bool:
    """
    Wait until one of `publishers` has a subscriber, at most `limit_s` seconds.

    Returns whether there is one; False as well when the context is shut down meanwhile.
    """
    deadline = time.monotonic() + limit_s
    while context.ok():
        if any(publisher.get_subscription_count() for publisher in publishers):
            time.sleep(_SETTLE_S)
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return False


def wait_for_delivery(publishers: Sequence[Any], limit_s: float = 2.0) -> None:
    """Wait until all reliable subscribers have what was published, at most `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    for publisher in publishers:
        left = max(0.0, deadline - time.monotonic())
        publisher.wait_for_all_acked(Duration(seconds=left))
