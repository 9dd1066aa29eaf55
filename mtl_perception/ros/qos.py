# SPDX-License-Identifier: Apache-2.0
"""
Named QoS profiles and the events of profiles that do not match.

REP-2003: consumers of sensor data subscribe best effort, so that they take any publisher;
publishers are reliable, so that any subscriber takes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    qos_policy_name_from_kind,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

# Lets `qos_overrides.<topic>.<publisher or subscription>.reliability` be set at start.
_RELIABILITY_OVERRIDE = QoSOverridingOptions((QoSPolicyKind.RELIABILITY,))
_REMEDIES = {
    'RELIABILITY': 'make the publisher reliable or the subscriber best effort',
    'DURABILITY': 'make the publisher transient_local or the subscriber volatile',
}


def _profile(reliability: Any, durability: Any, depth: int) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )


def image_input() -> QoSProfile:
    """Return the profile of camera images: best effort, the latest only."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 1)


def camera_info_input() -> QoSProfile:
    """Return the profile of camera infos: best effort, a few so that none waits for an image."""
    return _profile(ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE, 5)


def output() -> QoSProfile:
    """Return the profile of everything made per frame: reliable, no backlog."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)


def latched() -> QoSProfile:
    """Return the profile of what is said once and also reaches those who come late."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL, 1)


def diagnostics() -> QoSProfile:
    """Return the profile of /diagnostics, as diagnostic_updater has it."""
    return _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, 1)


def create_publisher(
    node: Node,
    message_type: Any,
    topic: str,
    profile: QoSProfile,
    report: Callable[[str], None],
) -> Any:
    """Publish `topic`; `report` is told, with the remedy, of subscribers that cannot hear it."""
    name = node.resolve_topic_name(topic)

    def incompatible(event: Any) -> None:
        report(_mismatch(event, f'a subscriber of {name} cannot hear it'))

    callbacks = PublisherEventCallbacks(incompatible_qos=incompatible)
    options = {'qos_overriding_options': _RELIABILITY_OVERRIDE}
    try:
        return node.create_publisher(
            message_type, topic, profile, event_callbacks=callbacks, **options
        )
    except UnsupportedEventTypeError:  # a middleware that cannot tell
        return node.create_publisher(message_type, topic, profile, **options)


def create_subscription(
    node: Node,
    message_type: Any,
    topic: str,
    profile: QoSProfile,
    callback: Callable[[Any], None],
    report: Callable[[str], None],
) -> Any:
    """Subscribe to `topic`; `report` is told, with the remedy, of publishers we cannot hear."""
    name = node.resolve_topic_name(topic)

    def incompatible(event: Any) -> None:
        report(_mismatch(event, f'a publisher of {name} cannot be heard'))

    callbacks = SubscriptionEventCallbacks(incompatible_qos=incompatible)
    options = {'qos_overriding_options': _RELIABILITY_OVERRIDE}
    try:
        return node.create_subscription(
            message_type, topic, callback, profile, event_callbacks=callbacks, **options
        )
    except UnsupportedEventTypeError:  # a middleware that cannot tell
        return node.create_subscription(message_type, topic, callback, profile, **options)


def _mismatch(event: Any, consequence: str) -> str:
    policy = str(qos_policy_name_from_kind(event.last_policy_kind))
    remedy = _REMEDIES.get(policy.partition('_QOS')[0], f'give both ends the same {policy}')
    return f'incompatible QoS ({policy}): {consequence}; {remedy} (see `ros2 topic info -v`)'
