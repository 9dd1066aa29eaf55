# SPDX-License-Identifier: Apache-2.0
"""See to it that the first and the last messages of a short stream arrive."""

from __future__ import annotations

from collections.abc import Sequence
import time
from typing import Any

from rclpy.duration import Duration

# A publisher knows its subscriber a little before the subscriber knows the publisher; what is
# sent in between is lost to a best-effort subscriber.
_SETTLE_S = 1.0
_LONGEST_SETTLE_S = 5.0
_POLL_S = 0.05


def wait_for_subscribers(
    publishers: Sequence[Any], limit_s: float, context: Any, others: Sequence[Any] = ()
) -> bool:
    """
    Wait until one of `publishers` has a subscriber, at most `limit_s` seconds.

    Then goes on waiting, a few seconds at most, while more are found, those of `others` included:
    the topics of one listener are discovered one after the other. Returns whether there is a
    subscriber; False as well when the context is shut down meanwhile.
    """
    deadline = time.monotonic() + limit_s
    found = 0
    changed = time.monotonic()
    while context.ok():
        now = time.monotonic()
        count = sum(publisher.get_subscription_count() for publisher in publishers)
        if count:
            count += sum(publisher.get_subscription_count() for publisher in others)
        if count != found:
            if not found:
                deadline = now + _LONGEST_SETTLE_S
            found, changed = count, now
        if now >= deadline or (found and now - changed >= _SETTLE_S):
            return found > 0
        time.sleep(_POLL_S)
    return False


def wait_for_delivery(publishers: Sequence[Any], limit_s: float = 2.0) -> None:
    """Wait until all reliable subscribers have what was published, at most `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    for publisher in publishers:
        left = max(0.0, deadline - time.monotonic())
        publisher.wait_for_all_acked(Duration(seconds=left))
