# SPDX-License-Identifier: Apache-2.0
"""What to know of a rosbag2 beyond its messages: which topics were latched."""

from __future__ import annotations

from typing import Any

from mtl_perception.bags.bag_file import BagFile, read_metadata

# Said once by whoever says them: latched also where damage leaves their QoS unknown.
_ALWAYS = ('/tf_static', '/robot_description')


def latched_topics(bag: BagFile) -> frozenset[str]:
    """
    Return the topics whose publishers were transient_local when the bag was recorded.

    tf_static and label infos are said once: a player has to keep them for late subscribers.
    metadata.yaml tells, without it the files; where neither does, /tf_static and
    /robot_description are latched and nothing else.
    """
    profiles = _by_metadata(bag) or {
        name: connection.ext.offered_qos_profiles
        for name, connection in bag.connections().items()
    }
    return frozenset(
        name
        for name in bag.topics
        if (
            any(profile.durability.name == 'TRANSIENT_LOCAL' for profile in profiles[name])
            if profiles.get(name)
            else name in _ALWAYS
        )
    )


def _by_metadata(bag: BagFile) -> dict[str, Any]:
    from rosbags.rosbag2.errors import ReaderError
    from rosbags.rosbag2.metadata import parse_qos

    try:
        return {
            # Absent before rosbag2's version 4.
            entry['name']: parse_qos(entry['offered_qos_profiles'])
            for entry in read_metadata(bag.path)
            if 'offered_qos_profiles' in entry
        }
    except (ReaderError, LookupError, TypeError, ValueError):
        return {}
