# SPDX-License-Identifier: Apache-2.0
"""Tell what a perception node published from what sensors and ground truth say."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_perception.bags.bag_file import RecordedTopic

_IMAGE = 'sensor_msgs/msg/Image'
_CLOUD = 'sensor_msgs/msg/PointCloud2'
# Beside `<task>/image_raw`, what only the perception node says of a task.
_MARKERS = ('confidence', 'label_names', 'label_info')
# Whoever names a namespace so says what it holds; a simulated camera uses the node's own layout
# there, label names included.
_TRUTH = 'ground_truth'


def node_outputs(available: Mapping[str, RecordedTopic]) -> frozenset[str]:
    """
    Return the image topics that are a perception node's maps (see `mtl_perception.output_topics`).

    A namespace is a node's where one of its tasks has `<task>/confidence`, `<task>/label_names`
    or `<task>/label_info` beside `<task>/image_raw`, or a picture `<task>_color/image_raw`; or
    where depth and a cloud lie as the node puts them: `depth/image_rect`, `depth/camera_info`,
    `points`. Its maps are then `<task>/image_raw` and `<task>/image_rect`. A namespace called
    ground_truth is none.
    """
    namespaces = {
        namespace
        for name in available
        if (namespace := _task_namespace(name)) is not None
        and _TRUTH not in namespace
        and _is_marked(available, namespace, name)
    }
    return frozenset(
        name for name in available if _task_namespace(name) in namespaces and _is_map(name)
    )


def _task_namespace(topic: str) -> str | None:
    """Return the namespace of a node that has `topic` = namespace/task/what, else None."""
    parts = topic.rsplit('/', 2)
    return parts[0] if len(parts) == 3 and parts[1] else None


def _is_map(topic: str) -> bool:
    _, task, what = topic.rsplit('/', 2)
    # The node's depth is rectified and says so; a sensor's own is what image_raw holds.
    return what == 'image_rect' or (what == 'image_raw' and 'depth' not in task)


def _is_marked(available: Mapping[str, RecordedTopic], namespace: str, topic: str) -> bool:
    """Whether `topic`, of a task in `namespace`, tells that the namespace is a node's."""
    _, task, what = topic.rsplit('/', 2)
    beside = f'{namespace}/{task}'
    if what in _MARKERS:
        # Depth cameras have a confidence of their own.
        return f'{beside}/image_raw' in available and 'depth' not in task
    if what == 'image_raw' and task.endswith('_color'):
        plain = available.get(f'{namespace}/{task.removesuffix("_color")}/image_raw')
        return plain is not None and plain.type == _IMAGE
    if what == 'image_rect':
        cloud = available.get(f'{namespace}/points')
        has_info = f'{beside}/camera_info' in available
        return has_info and cloud is not None and cloud.type == _CLOUD
    return False
