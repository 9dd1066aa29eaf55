# SPDX-License-Identifier: Apache-2.0
"""Comparing systems: bundles nobody trained, turns, the tables and the plot."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

from mtl_perception.evaluation import system_benchmark_command
from mtl_perception.evaluation.engine_report import write_section
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.system_report import (
    builds_markdown,
    engines_markdown,
    plot_systems,
)
from mtl_perception.evaluation.system_worker import in_turn
from mtl_perception.ros.benchmark_command import main
import numpy as np
import pytest

LABELS = ('torch fp32', 'onnxruntime fp32', 'openvino fp32', 'openvino bf16')


def comparison(threads: int, *ratios: float) -> dict[str, Any]:
    values = dict(zip(LABELS, (1.0, *ratios)))
    return {
        'threads': threads,
        'load_average_1min': [0.5 * threads, 1.25],
        'median_ms': {label: 90.0 / ratio for label, ratio in values.items()},
        'times_faster': values,
        'median_processor_ms': {label: 80.0 / ratio for label, ratio in values.items()},
        'times_cheaper': {label: ratio + 0.01 for label, ratio in values.items()},
    }


@pytest.fixture
def document() -> dict[str, Any]:
    """Return what two systems measured, and one that failed."""
    return {
        'backbone': 'resnet18', 'size': [240, 320], 'rounds': 7, 'gpu': '',
        'machine': {
            'processor': 'Processor P', 'cores': 4, 'cores_available': 2,
            'load_average_1min': 9.0, 'versions': {'tensorrt_rtx': '1.6', 'torch': None},
        },
        'systems': [
            {
                'system': 'mti_net', 'backbone': 'resnet18',
                'comparison': [comparison(1, 1.5, 1.8, 3.6), comparison(2, 1.2, 1.5, 3.0)],
                'tensorrt_rtx': {
                    'seconds': 12.3, 'processor_seconds': 4.5, 'megabytes': 7.77, 'layers': 321,
                    'layers_by_precision': {'half': 300, 'float': 21},
                },
            },
            {'system': 'demt', 'error': 'no such thing'},
        ],
    }  # fmt: skip


def test_the_tables_say_what_was_measured_and_what_failed(document: dict[str, Any]) -> None:
    text = engines_markdown(document)
    assert '`resnet18` at 240x320, random weights; 7 runs of each' in text
    # Of the moments of measuring, not of the moment of writing.
    assert 'load of the machine 0.5 to 1.25' in text
    assert 'Processor P, 2 of 4 cores; tensorrt_rtx 1.6.' in text
    assert '| `mti_net` | 1 | 90 / 80 | 1.50 / 1.51 | 1.80 / 1.81 | 3.60 / 3.61 |' in text
    assert '| `mti_net` | 2 | 90 / 80 | 1.20 / 1.21 | 1.50 / 1.51 | 3.00 / 3.01 |' in text
    assert '* `demt` failed: no such thing' in text
    assert 'Not run on a GPU.' in text
    assert 'GPU: H200, sm90.' in engines_markdown({**document, 'gpu': 'H200, sm90'})
    text = builds_markdown(document)
    assert 'TensorRT-RTX 1.6. Not run on a GPU.' in text
    assert '| `mti_net` | 7.8 | 12.3 | 4.5 | 321 | 300 half, 21 float |' in text
    for one in (engines_markdown(document), text):
        counts = {line.count('|') for line in one.splitlines() if line.startswith('|')}
        assert len(counts) == 1


@pytest.mark.parametrize('failing', ['build', 'everything'])
def test_timings_survive_a_build_that_fails_everywhere(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    timed = {'comparison': document['systems'][0]['comparison']} if failing == 'build' else {}
    monkeypatch.setattr(
        system_benchmark_command,
        '_measure',
        lambda system, *_: {'system': system, **timed, 'error': 'tensorrt_rtx is missing'},
    )
    file = tmp_path / 'systems.json'
    command = ['systems', '--system', 'mti_net', 'demt', '--json', str(file)]
    if failing == 'everything':
        with pytest.raises(EvaluationError, match='mti_net: tensorrt_rtx is missing'):
            main(command)
        return
    assert main(command) == 0
    entries = json.loads(file.read_text())['systems']
    assert [entry['comparison'][0]['threads'] for entry in entries] == [1, 1]
    assert 'tensorrt_rtx is missing' in entries[0]['error']


def test_where_no_system_was_timed_the_table_says_so(document: dict[str, Any]) -> None:
    document['systems'] = [{'system': 'demt', 'error': 'no torch'}]
    assert engines_markdown(document).splitlines()[0] == 'No system could be timed.'
    assert '`demt` failed: no torch' in engines_markdown(document)


def test_sections_of_one_file_do_not_touch_each_other(tmp_path: Path) -> None:
    page = tmp_path / 'benchmarks.md'
    page.write_text('# Benchmarks\n')
    for text, name in (('one\n', 'a'), ('two\n', 'b'), ('new\n', 'a')):
        write_section(page, text, name)
    assert page.read_text() == (
        '# Benchmarks\n\n<!-- a: begin -->\nnew\n<!-- a: end -->\n\n'
        '<!-- b: begin -->\ntwo\n<!-- b: end -->\n'
    )


def test_the_plot_has_a_bar_of_the_right_height_for_each(
    document: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip('matplotlib')
    import cv2

    plot_systems(document, tmp_path / 'systems.png')
    picture = cv2.imread(str(tmp_path / 'systems.png')).astype(int)
    half = picture.shape[0] // 2
    heights = []
    for colour in ((76, 120, 168), (245, 133, 24), (84, 162, 75)):
        alike = np.abs(picture[:half] - colour[::-1]).max(-1) < 12
        # Columns of the bar, not of the legend's little patch.
        heights.append(np.sort(alike.sum(0))[-40])
    assert heights[1] / heights[0] == pytest.approx(1.8 / 1.5, rel=0.06)
    assert heights[2] / heights[0] == pytest.approx(3.6 / 1.5, rel=0.06)


def test_waiting_counts_as_elapsed_and_working_as_processor_time() -> None:
    turns = []

    def waits() -> None:
        turns.append('waits')
        time.sleep(0.05)

    def works() -> None:
        turns.append('works')
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    elapsed, used = in_turn({'waits': waits, 'works': works}, 3)
    assert turns == ['waits', 'works'] * 5  # two rounds to warm up
    assert len(elapsed['waits']) == len(used['works']) == 3
    assert min(elapsed['waits']) >= 50
    assert np.median(used['waits']) < 20
    assert min(used['works']) >= 50


@pytest.mark.parametrize(('has_gpu', 'precisions'), [
    (False, {'torch': 1, 'onnxruntime': 1, 'openvino': 2}),
    (True, {'torch': 2, 'torch-graph': 1, 'torch-compiled': 1}),
])  # fmt: skip
def test_where_there_is_a_gpu_its_engines_are_compared(
    monkeypatch: pytest.MonkeyPatch, small_bundle: Path, has_gpu: bool, precisions: dict[str, int]
) -> None:
    torch = pytest.importorskip('torch')
    from mtl_perception.evaluation import system_worker

    opened: list[str] = []

    class Quick:
        def run(self, image: object, scale: object) -> dict[str, object]:
            return {}

    def quick(directory: Path, engine: str, precision: str, threads: list[int]) -> list[Quick]:
        opened.append(engine)
        return [Quick() for _ in threads]

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    monkeypatch.setattr(system_worker, '_open', quick)
    monkeypatch.setattr(system_worker, 'measure_engine', lambda *_: {})
    (row,) = system_worker._compare(small_bundle, [1], 2)['comparison']
    assert {name: opened.count(name) for name in opened} == precisions
    assert set(row['times_faster']) >= {'torch fp32'}


@pytest.mark.slow
def test_a_worker_makes_a_bundle_and_compares_real_engines(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    pytest.importorskip('openvino')
    pytest.importorskip('torch')
    wish = {
        'system': 'single_task', 'backbone': 'mobilenetv4_conv_small', 'size': [64, 64],
        'bundles': str(tmp_path / 'bundles'), 'threads': [1], 'rounds': 3, 'build': False,
    }  # fmt: skip
    command = [sys.executable, '-m', 'mtl_perception.evaluation.system_worker', json.dumps(wish)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(result.stdout.splitlines()[-1])
    (row,) = measured['comparison']
    assert set(row['median_ms']) == set(LABELS)
    assert row['times_faster']['torch fp32'] == 1.0
    # fp32 engines agree with the reference, and so they ran the network.
    assert measured['errors']['onnxruntime fp32']['semantic'] < 1e-3
    assert measured['errors']['openvino fp32']['semantic'] < 1e-3
    (bundle,) = (tmp_path / 'bundles').iterdir()
    assert bundle.name == 'single_task_mobilenetv4_conv_small_64x64'
    # Statistics of noise were learned: inside, values keep their scale.
    from mtl_perception.bundle import load_network
    import torch

    network, _ = load_network(bundle)
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: seen.append(float(output.std())))
    with torch.no_grad():
        network(torch.randn(1, 3, 64, 64))
    assert len(seen) > 20
    assert min(seen) > 0.01
    assert max(seen) < 20
