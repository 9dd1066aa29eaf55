# SPDX-License-Identifier: Apache-2.0
"""Find the topics of a recording by type and name: colour, depth, camera_info, ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
import re

from mtl_perception.bags.bag_file import RecordedTopic
from mtl_perception.bags.errors import BagError
from mtl_perception.bags.node_outputs import node_outputs

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
ODOMETRY = 'nav_msgs/msg/Odometry'
TRANSFORMS = 'tf2_msgs/msg/TFMessage'

# Words in a topic's name that tell what its images show. What people call their topics is free,
# so these are the names of the common drivers and of our own ground truth.
_WORDS = {
    'semantic': ('semantic', 'label', 'segmentation'),
    'normals': ('normals',),
    'edges': ('edges',),
    'depth': ('depth',),
}
# Pictures of a map, and sensors that are neither colour nor depth.
_OTHER_WORDS = (
    'semantic_color', 'normals_color', 'overlay', 'confidence', 'mask', 'disparity',
    'infra', 'theora', 'ffmpeg', '/ir/', '_ir/', 'mono_ir',
)  # fmt: skip

# image_rect, image_rect_color, image_rectified, rect/image, ...
_RECTIFIED = re.compile(r'(^|[/_])rect(ified)?([/_]|$)')

_TYPES = {
    'image': (IMAGE, COMPRESSED_IMAGE),
    'camera_info': (CAMERA_INFO,),
    'depth': (IMAGE, COMPRESSED_IMAGE),
    'odometry': (ODOMETRY,),
    'tf': (TRANSFORMS,),
    'tf_static': (TRANSFORMS,),
}


@dataclass(frozen=True)
class BagTopics:
    """
    The topics that a replay reads; None = there is none, or find it by its name and type.

    Depth, semantic, normals and edges are what predictions are compared with; odometry and
    transforms say how the camera moved.
    """

    image: str | None = None
    camera_info: str | None = None
    depth: str | None = None
    semantic: str | None = None
    normals: str | None = None
    edges: str | None = None
    odometry: str | None = None
    tf: str | None = None
    tf_static: str | None = None

    @property
    def targets(self) -> dict[str, str]:
        """The topics to compare with, by task kind."""
        kinds = ('depth', 'semantic', 'normals', 'edges')
        return {kind: topic for kind in kinds if (topic := getattr(self, kind)) is not None}


def find_topics(available: Mapping[str, RecordedTopic], given: BagTopics) -> BagTopics:
    """
    Complete the `given` topics by the types and names of the `available` ones.

    The colour image is the Image or CompressedImage topic whose name speaks of nothing else;
    raw is preferred to compressed, a topic with camera_info beside it to one without, and
    depth that is aligned to colour to depth that is not. The maps of a perception node that ran
    while the bag was recorded are nobody's truth (`skipped_outputs` says which they are).

    Raises
    ------
    BagError
        If a given topic is not in the bag or of a type that cannot be it, if there is no
        colour image or several that are equally likely; the message lists what there is.

    """
    for entry in fields(given):
        name = getattr(given, entry.name)
        if name is not None:
            _check_given(entry.name, name, available)
    image = given.image or _find_image(available)
    outputs = node_outputs(available)
    recorded = {name: info for name, info in available.items() if name not in outputs}
    found = {
        kind: getattr(given, kind) or _find_target(kind, recorded, image) for kind in _WORDS
    }
    camera_info = given.camera_info or _find_camera_info(available, image)
    motion = {
        role: getattr(given, role) or _find_motion(role, available)
        for role in ('odometry', 'tf', 'tf_static')
    }
    return BagTopics(image=image, camera_info=camera_info, **found, **motion)


def says_rectified(topic: str) -> bool:
    """Whether an image topic's name says that the image is free of distortion already."""
    return _RECTIFIED.search(topic.lower()) is not None


def skipped_outputs(
    available: Mapping[str, RecordedTopic], topics: BagTopics
) -> dict[str, str]:
    """Return, by kind, what would be a target if it were not a perception node's own output."""
    chosen = topics.targets
    return {
        kind: name
        for name in sorted(node_outputs(available))
        if available[name].messages != 0
        and (kind := _shows(name)) in _WORDS and kind not in chosen
    }  # fmt: skip


def _check_given(role: str, name: str, available: Mapping[str, RecordedTopic]) -> None:
    option = f'--{role.replace("_", "-")}-topic'
    if name not in available:
        msg = f'{option} {name}: the bag has no such topic; it has {_listed(available)}'
        raise BagError(msg)
    types = _TYPES.get(role, (IMAGE,))
    if available[name].type not in types:
        msg = f'{option} {name} is a {available[name].type}; it must be {" or ".join(types)}'
        raise BagError(msg)


def _listed(available: Mapping[str, RecordedTopic]) -> str:
    if not available:
        return 'no topics at all'
    return ', '.join(f'{name} ({info.type})' for name, info in sorted(available.items()))


def _shows(name: str) -> str | None:
    """Return the kind of map that a topic's name speaks of, 'other', or None for colour."""
    lower = name.lower()
    if any(word in lower for word in _OTHER_WORDS):
        return 'other'
    for kind, words in _WORDS.items():
        if any(word in lower for word in words):
            return kind
    return None


def _find_image(available: Mapping[str, RecordedTopic]) -> str:
    ranked: dict[tuple[bool, bool, bool, bool], list[str]] = {}
    for name, info in available.items():
        if info.type in (IMAGE, COMPRESSED_IMAGE) and _shows(name) is None:
            lower = name.lower()
            rank = (
                info.messages != 0,
                any(word in lower for word in ('color', 'colour', 'rgb')),
                _sibling_camera_info(available, name) is not None,
                info.type == IMAGE,
            )
            ranked.setdefault(rank, []).append(name)
    if not ranked:
        msg = (
            'the bag has no colour image topic that can be told by its name; name one with '
            f'--image-topic: {_listed(available)}'
        )
        raise BagError(msg)
    best = ranked[max(ranked)]
    if len(best) > 1:
        msg = (
            f'the bag has several camera images: {", ".join(sorted(best))}; '
            'choose one with --image-topic'
        )
        raise BagError(msg)
    return best[0]


def _namespace(topic: str) -> str:
    """Return where the camera_info of an image topic lives: beside the uncompressed image."""
    base = topic.removesuffix('/compressed')
    return base.rpartition('/')[0]


def _sibling_camera_info(available: Mapping[str, RecordedTopic], image: str) -> str | None:
    name = f'{_namespace(image)}/camera_info'
    info = available.get(name)
    return name if info is not None and info.type == CAMERA_INFO else None


def _find_camera_info(available: Mapping[str, RecordedTopic], image: str) -> str | None:
    beside = _sibling_camera_info(available, image)
    if beside is not None:
        return beside
    others = [
        name
        for name, info in available.items()
        if info.type == CAMERA_INFO and _shows(name) is None
    ]
    return others[0] if len(others) == 1 else None


def _find_motion(role: str, available: Mapping[str, RecordedTopic]) -> str | None:
    """Return the only odometry there is, and the transforms at their usual names."""
    if role != 'odometry':
        info = available.get(f'/{role}')
        return f'/{role}' if info is not None and info.type == TRANSFORMS else None
    found = [
        name for name, info in available.items() if info.type == ODOMETRY and info.messages != 0
    ]
    return found[0] if len(found) == 1 else None


def _find_target(kind: str, available: Mapping[str, RecordedTopic], image: str) -> str | None:
    ranked: dict[tuple[bool, bool, bool, int], list[str]] = {}
    for name, info in available.items():
        is_raw = info.type == IMAGE
        # Depth that was compressed by JPEG is no depth.
        is_depth = info.type == COMPRESSED_IMAGE and name.endswith('/compressedDepth')
        is_readable = is_raw or (kind == 'depth' and is_depth)
        if is_readable and info.messages != 0 and name != image and _shows(name) == kind:
            lower = name.lower()
            aligned = any(word in lower for word in ('aligned', 'registered', 'ground_truth'))
            rank = (aligned, 'rect' in lower, is_raw, _shared_length(name, image))
            ranked.setdefault(rank, []).append(name)
    # Two that are alike (two cameras, say) are a choice that only the user can make: a wrong
    # one would give wrong numbers, none gives a sentence that says so.
    best = ranked[max(ranked)] if ranked else []
    return best[0] if len(best) == 1 else None


def _shared_length(first: str, second: str) -> int:
    """Count the leading name parts that two topics share."""
    count = 0
    for a, b in zip(first.split('/'), second.split('/')):
        if a != b:
            break
        count += 1
    return count
