# SPDX-License-Identifier: Apache-2.0
"""What a frame costs: the ratios, their table, and real networks in one process."""

from __future__ import annotations

import json
from pathlib import Path

from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.system_benchmark_command import main
from mtl_perception.evaluation.system_ratios import (
    FOUR_SINGLE,
    ratios,
    ratios_markdown,
    system_ratios,
)
import pytest

# One slow round, as on a shared machine: within a round all networks are slow.
TIMES = {
    FOUR_SINGLE: [30.0, 300.0, 33.0], 'multi_task': [10.0, 100.0, 11.0],
    'mti_net': [15.0, 150.0, 16.5],
}  # fmt: skip
WORK = {FOUR_SINGLE: 8.0, 'multi_task': 2.0, 'mti_net': 6.0}


def test_ratios_are_those_within_a_round() -> None:
    baseline, other = ratios(TIMES, WORK)
    assert [baseline['system'], other['system']] == ['multi_task', 'mti_net']
    assert baseline['times_baseline'] == baseline['ms_per_gflop_times_baseline'] == 1
    assert baseline['four_single_over_this'] == pytest.approx(3)
    assert other['times_baseline'] == pytest.approx(1.5)
    # half again as long for three times the work
    assert other['ms_per_gflop_times_baseline'] == pytest.approx(0.5)
    assert other['four_single_over_this'] == pytest.approx(2)
    assert other['median_ms'] == 16.5


def test_the_table_has_a_row_for_each_system() -> None:
    document = {'load_average_1min': [2.5, 0.5], 'ratios': ratios(TIMES, WORK)}
    text = ratios_markdown(document, 'Here.')
    assert 'load of the machine 0.5 to 2.5' in text
    assert text.splitlines()[-1] == '| `mti_net` | 6.0 | 16 | 1.50 | 0.50 | 2.00 |'


@pytest.mark.slow
def test_real_networks_are_compared_in_one_process(tmp_path: Path) -> None:
    pytest.importorskip('torch')
    from mtl_perception.networks.describe import network_cost
    from mtl_perception.tasks import standard_tasks

    page = tmp_path / 'page.md'
    options = ['--backbone', 'mobilenetv4_conv_small', '--size', '64x64', '--rounds', '3']
    assert main([*options, '--parts', 'ratios', '--system', 'mti_net', '--markdown', str(page),
                 '--json', str(tmp_path / 'ratios.json')]) == 0  # fmt: skip
    measured = json.loads((tmp_path / 'ratios.json').read_text())
    rows = measured['ratios']['ratios']
    assert [row['system'] for row in rows] == ['multi_task', 'mti_net']
    cost = network_cost(
        'mti_net', standard_tasks('rooms'), backbone='mobilenetv4_conv_small', size=(64, 64)
    )
    assert rows[1]['gflop'] == cost.flops / 1e9
    assert rows[1]['times_baseline'] > 1
    assert rows[0]['four_single_over_this'] > 1
    assert measured['systems'] == []
    assert '| `mti_net` |' in page.read_text()


def test_an_unknown_backbone_is_named() -> None:
    pytest.importorskip('torch')
    with pytest.raises(EvaluationError, match="on vgg cannot be compared: unknown backbone 'vgg'"):
        system_ratios(['mti_net'], 'vgg', (64, 64), 1)
