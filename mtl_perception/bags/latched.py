# SPDX-License-Identifier: Apache-2.0
"""What to know of a rosbag2 beyond its messages: which topics were latched."""

from __future__ import annotations

from pathlib import Path


def latched_topics(path: Path) -> frozenset[str]:
    """
    Return the topics whose publishers were transient_local when the bag was recorded.

    tf_static and label infos are said once: a player has to keep them for late subscribers.
    Empty where the recording is too damaged to tell.
    """
    from rosbags.rosbag2 import Reader

    try:
        with Reader(path) as reader:
            return frozenset(
                connection.topic
                for connection in reader.connections
                for profile in connection.ext.offered_qos_profiles
                if profile.durability.name == 'TRANSIENT_LOCAL'
            )
    # Damaged files make rosbags raise more than its own errors; BagFile tells the user.
    except Exception:
        return frozenset()
