# SPDX-License-Identifier: Apache-2.0
"""Delta_m against the rows of the published tables."""

from __future__ import annotations

import pytest

pytest.importorskip('torch')

from mtl_perception.metrics.delta_m import delta_m
from mtl_perception.metrics.errors import MetricError

HIGHER = {
    'semantic': True, 'depth': False, 'parts': True, 'saliency': True, 'normals': False,
    'edges': True,
}  # fmt: skip


def _row(*values, tasks=('semantic', 'depth')):
    return dict(zip(tasks, values))


def _delta(row, single):
    return delta_m(row, single, {task: HIGHER[task] for task in row})


# MTI-Net's paper, NYUD-v2, HRNet-18: mIoU and RMSE; Delta_m as printed.
@pytest.mark.parametrize(
    ('miou', 'rmse', 'printed'),
    [
        (33.18, 0.667, 0.0), (32.09, 0.668, -1.71), (32.80, 0.660, -0.02),
        (34.38, 0.640, 3.85), (35.12, 0.620, 6.40), (36.22, 0.600, 9.57), (37.49, 0.607, 10.91),
    ],
)  # fmt: skip
def test_nyud_rows_of_the_paper(miou, rmse, printed):
    # Printed from more digits than the columns have.
    assert _delta(_row(miou, rmse), _row(33.18, 0.667)) == pytest.approx(printed, abs=0.1)


def test_to_the_last_digit_by_hand():
    value = _delta(_row(35.12, 0.620), _row(33.18, 0.667))
    assert value == pytest.approx(50 * (1.94 / 33.18 + 0.047 / 0.667), rel=1e-9)
    assert _delta(_row(42, 0.57), _row(40, 0.60)) == pytest.approx(5.0)


# MTI-Net's released code, PASCAL-Context, HRNet-18.
@pytest.mark.parametrize(
    ('values', 'printed'),
    [
        ((55.4, 59.4, 65.4, 71.6, 15.0), -1.98), ((62.8, 62.2, 67.4, 73.0, 14.8), 2.72),
        ((56.3, 60.4, 65.8), -2.26), ((52.7, 60.5, 66.0), -4.08), ((63.1, 62.1, 67.2), 3.20),
    ],
)  # fmt: skip
def test_pascal_rows_of_the_code(values, printed):
    tasks = ('semantic', 'parts', 'saliency', 'edges', 'normals')[: len(values)]
    single = _row(59.4, 60.3, 67.0, 69.2, 14.6, tasks=tasks)
    assert _delta(_row(*values, tasks=tasks), single) == pytest.approx(printed, abs=0.15)


@pytest.mark.parametrize(
    ('scores', 'single'),
    [
        ({'depth': 1.0}, {'semantic': 1.0}), ({}, {}), ({'depth': float('nan')}, {'depth': 1.0}),
        ({'depth': 1.0}, {'depth': 0.0}),
    ],
)  # fmt: skip
def test_what_has_no_delta_is_refused(scores, single):
    with pytest.raises(MetricError, match='Delta_m'):
        _delta(scores, single)
