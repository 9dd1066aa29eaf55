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
        ({'scales': 'median'}, 'median'),
        ({'balancing': 'even'}, 'even'),
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


def test_scales_are_averaged_where_the_recipe_says_so():
    torch.manual_seed(3)
    targets = _targets()
    outputs = Outputs(maps=_maps(4, 6, ('depth',)), auxiliary=(_maps(4, 6, ('depth', 'edges')),))
    depth = [float(task_loss(BY_NAME['depth'], each['depth'], targets['depth']))
             for each in (outputs.maps, *outputs.auxiliary)]
    edges = float(task_loss(BY_NAME['edges'], outputs.auxiliary[0]['edges'], targets['edges']))
    value = MultiTaskLoss(TASKS, weights={'depth': 3.0}, scales='mean')(outputs, targets)
    assert float(value.total) == pytest.approx(3 * sum(depth) / 2 + 50 * edges, rel=1e-5)


def test_uncertainty_is_a_likelihood_with_a_variance_for_each_task():
    torch.manual_seed(4)
    targets = _targets()
    del targets['edges']
    outputs = Outputs(_maps(4, 6))
    criterion = MultiTaskLoss(TASKS, balancing='uncertainty')
    variances = {'semantic': 2.0, 'depth': 0.5, 'normals': 1.0, 'edges': 7.0}
    with torch.no_grad():
        for name, variance in variances.items():
            criterion.log_variances[name].fill_(math.log(variance))
    expected = 0.0
    for name in targets:  # edges are not annotated: their variance stays out
        loss = float(task_loss(BY_NAME[name], outputs.maps[name], targets[name]))
        share = 1.0 if name == 'semantic' else 0.5
        expected += share * loss / variances[name] + 0.5 * math.log(variances[name])
    total = criterion(outputs, targets).total
    assert float(total.detach()) == pytest.approx(expected, rel=1e-5)
    total.backward()
    assert float(criterion.log_variances['edges'].grad) == 0
    # Descent settles where the variance equals the loss.
    with torch.no_grad():
        loss = task_loss(BY_NAME['depth'], outputs.maps['depth'], targets['depth'])
        criterion.log_variances['depth'].copy_(loss.log())
    criterion.zero_grad()
    criterion(outputs, targets).total.backward()
    assert float(criterion.log_variances['depth'].grad) == pytest.approx(0, abs=1e-6)


def test_fixed_balancing_learns_nothing_of_its_own():
    assert not list(MultiTaskLoss(TASKS).parameters())
