# SPDX-License-Identifier: Apache-2.0
"""Class names by label value, as vision_msgs/LabelInfo and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
import json
from typing import Any

import pytest

pytest.importorskip('rclpy')
from builtin_interfaces.msg import Time
from mtl_perception.ros import label_info
from mtl_perception.tasks import load_label_set, standard_tasks
from std_msgs.msg import Header

pytestmark = pytest.mark.ros
TASK = standard_tasks('nyu13')[0]


@dataclass
class VisionClass:
    """vision_msgs/VisionClass as its .msg file has it; pip does not offer vision_msgs."""

    class_id: int = 0
    class_name: str = ''


@dataclass
class LabelInfo:
    """vision_msgs/LabelInfo as its .msg file has it."""

    header: Any = None
    class_map: list[VisionClass] = field(default_factory=list)
    threshold: float = -1.0


def test_both_forms_name_the_same_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_info, 'LabelInfo', LabelInfo)
    monkeypatch.setattr(label_info, 'VisionClass', VisionClass, raising=False)
    header = Header(stamp=Time(sec=5))
    message = label_info.label_info_message(TASK, header)
    assert message.header is header
    assert message.threshold == 0.0
    by_id = {one.class_id: one.class_name for one in message.class_map}
    label_set = load_label_set('nyu13')
    assert by_id == {**dict(enumerate(label_set.names)), 255: 'unlabelled'}

    document = json.loads(label_info.label_names_message(TASK).data)
    assert {one['class_id']: one['class_name'] for one in document['class_map']} == by_id
    assert document['threshold'] == 0.0
    assert document['label_set']['colours'] == [list(one) for one in label_set.colours]
