# SPDX-License-Identifier: Apache-2.0
"""The weighted sum over tasks and scales against a sum written out by hand."""

from __future__ import annotations

import math

from mtl_perception.losses.multi_task import MultiTaskLoss, shrink_target
from mtl_perception.losses.task_loss import LossError, task_loss
from mtl_perception.networks.outputs import Outputs
from mtl_perception.tasks import standard_tasks
import numpy as np
import pytest
import torch
import torch.nn.functional as F

TASKS = standard_tasks('nyu13')
BY_NAME = {task.name: task for task in TASKS}


def _targets(height=16, width=24):
    generator = torch.Generator().manual_seed(5)
    return {
        'semantic': torch.randint(0, 13, (2, height, width), generator=generator),
        'depth': torch.rand(2, height, width, generator=generator) * 5 + 0.5,
        'normals': F.normalize(torch.randn(2, 3, height, width, generator=generator), dim=1),
        'edges': (torch.rand(2, height, width, generator=generator) < 0.1).to(torch.uint8),
    }


def _maps(height, width, names=tuple(BY_NAME)):
    return {name: torch.randn(2, BY_NAME[name].channels, height, width) for name in names}


def test_total_is_the_weighted_sum_over_scales_and_tasks():
    torch.manual_seed(0)
    targets = _targets()
    outputs = Outputs(
        maps=_maps(4, 6, ('semantic', 'depth')), auxiliary=(_maps(4, 6), _maps(2, 3))
    )
    weights = {'semantic': 1.0, 'depth': 3.0, 'normals': 10.0, 'edges': 50.0}
    expected = sum(
        weights[name] * float(task_loss(BY_NAME[name], raw, targets[name]))
        for maps in (outputs.maps, *outputs.auxiliary)
        for name, raw in maps.items()
    )
    value = MultiTaskLoss(TASKS, weights={'depth': 3.0})(outputs, targets)
    assert float(value.total) == pytest.approx(expected, rel=1e-5)
    assert set(value.by_task) == {'semantic', 'depth'}


def test_a_task_without_target_adds_zero_but_keeps_its_gradient():
    raw = {name: each.requires_grad_() for name, each in _maps(4, 6).items()}
    targets = _targets()
    del targets['normals']
    MultiTaskLoss(TASKS)(Outputs(raw, ({'normals': raw['normals']},)), targets).total.backward()
    assert torch.equal(raw['normals'].grad, torch.zeros_like(raw['normals']))
    assert raw['depth'].grad.abs().sum() > 0


def test_shrunk_labels_are_the_pixels_under_the_cell_centres():
    target = torch.arange(6 * 8).view(1, 6, 8)
    expected = [[int(target[0, int((y + 0.5) * 2), int((x + 0.5) * 2)]) for x in range(4)]
                for y in range(3)]
    assert shrink_target(BY_NAME['semantic'], target, (3, 4))[0].tolist() == expected


def test_shrunk_edges_give_the_loss_of_the_nearest_enlargement():
    # With the share of edges in a cell, the loss equals the mean over the cell's pixels.
    torch.manual_seed(1)
    target = (torch.rand(1, 8, 12) < 0.2).to(torch.uint8)
    raw = torch.randn(1, 1, 2, 3)
    task = BY_NAME['edges']
    full = task_loss(task, raw.repeat_interleave(4, 2).repeat_interleave(4, 3), target)
    assert float(task_loss(task, raw, shrink_target(task, target, (2, 3)))) == pytest.approx(
        float(full), rel=1e-5
    )


def test_shrunk_edges_ignore_what_is_not_annotated():
    target = torch.full((1, 4, 8), 255, dtype=torch.uint8)
    target[0, 0, 0], target[0, 0, 1] = 1, 0
    shrunk = shrink_target(BY_NAME['edges'], target, (1, 2))
    assert shrunk[0, 0].tolist() == [0.5, 255.0]


def test_auxiliary_at_prediction_equals_label_for_a_constant_world():
    maps = {'depth': torch.zeros(1, 1, 2, 3)}
    targets = {'depth': torch.full((1, 16, 24), math.e)}
    outputs = Outputs({}, (maps,))
    outputs = Outputs(maps, (maps,))
    totals = [
        float(MultiTaskLoss(TASKS, auxiliary_at=place)(outputs, targets).total)
        for place in ('label', 'prediction')
    ]
    assert totals[0] == pytest.approx(2 * (math.e - 1), rel=1e-5)
    assert totals[1] == pytest.approx(totals[0], rel=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'weights': {'depht': 1.0}}, 'depht'),
        ({'weights': {'depth': -1.0}}, 'negative'),
        ({'weights': {'depth': math.nan}}, 'negative'),
        ({'losses': {'edges': 'dice'}}, 'dice'),
        ({'auxiliary_at': 'middle'}, 'middle'),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(LossError, match=message):
        MultiTaskLoss(TASKS, **arguments)


def test_losses_stay_in_single_precision_under_autocast():
    torch.manual_seed(2)
    outputs, targets = Outputs(_maps(4, 6)), _targets()
    plain = MultiTaskLoss(TASKS)(outputs, targets).total
    with torch.autocast('cpu', torch.bfloat16):
        mixed = MultiTaskLoss(TASKS)(outputs, targets).total
    assert mixed.dtype == torch.float32
    np.testing.assert_allclose(float(mixed), float(plain), rtol=1e-6)
