# SPDX-License-Identifier: Apache-2.0
"""Which topics a task gets, for tasks of any name and kind."""

from __future__ import annotations

from mtl_perception.output_topics import camera_info_topics, cloud_tasks, image_outputs
from mtl_perception.tasks import LabelSet, standard_tasks, Task
from mtl_perception.values import PerceptionMaps
import numpy as np
import pytest

CROPS = LabelSet('crops', ('soil', 'crop'), ((90, 60, 30), (20, 200, 40)))


def test_two_tasks_of_one_kind_have_topics_of_their_own() -> None:
    rows = Task('crop_rows', 'semantic', label_set=CROPS)
    gaps = Task('gaps', 'semantic', label_set=CROPS)
    assert [(one.topic, one.encoding, one.needs) for one in image_outputs(rows)] == [
        ('crop_rows/image_raw', 'mono8', 'crop_rows'),
        ('crop_rows/confidence', '32FC1', 'crop_rows_confidence'),
        ('crop_rows_color/image_raw', 'rgb8', 'crop_rows'),
    ]
    labels = np.array([[0, 1, 255]], np.uint8)
    maps = PerceptionMaps(
        {'crop_rows': labels}, {'crop_rows': labels / np.float32(255)},
        np.zeros((1, 3, 3), np.uint8), None,
    )  # fmt: skip
    raw, confidence, colour = (one.values(maps) for one in image_outputs(rows))
    assert raw is labels
    np.testing.assert_array_equal(confidence, labels / np.float32(255))
    np.testing.assert_array_equal(colour, [[(90, 60, 30), (20, 200, 40), (0, 0, 0)]])
    # The model gives one of the two only: the other's topics stay silent.
    assert all(one.values(maps) is None for one in image_outputs(gaps))


@pytest.mark.parametrize(
    ('task', 'expected'),
    [
        (Task('range', 'depth'), [('range/image_rect', '32FC1')]),
        (
            Task('up', 'normals'),
            [('up/image_raw', '32FC3'), ('up_color/image_raw', 'rgb8')],
        ),
        (Task('rims', 'edges', edge_meaning='depth_jumps'), [('rims/image_raw', 'mono8')]),
        (Task('attention', 'saliency'), [('attention/image_raw', 'mono8')]),
        (
            Task('limbs', 'parts', label_set=CROPS),
            [
                ('limbs/image_raw', 'mono8'), ('limbs/confidence', '32FC1'),
                ('limbs_color/image_raw', 'rgb8'),
            ],
        ),
    ],
)
def test_topics_begin_with_the_name_of_the_task(
    task: Task, expected: list[tuple[str, str]]
) -> None:
    assert [(one.topic, one.encoding) for one in image_outputs(task)] == expected


def test_the_cloud_joins_the_first_of_each_kind_and_needs_depth() -> None:
    rows = Task('rows', 'semantic', label_set=CROPS)
    tasks = (Task('near', 'depth'), rows, Task('gaps', 'semantic', label_set=CROPS),
             Task('far', 'depth'))  # fmt: skip
    assert cloud_tasks(tasks) == {'depth': tasks[0], 'semantic': rows}
    assert cloud_tasks((rows,)) == {}
    assert camera_info_topics(tasks) == ('near/camera_info', 'far/camera_info')
    assert list(cloud_tasks(standard_tasks('rooms'))) == ['depth', 'normals', 'semantic']
