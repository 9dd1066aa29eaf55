# SPDX-License-Identifier: Apache-2.0
"""Comparing engines: turns, ratios, refusals, and the files that are written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import ClassVar

from mtl_perception.evaluation import engine_benchmark, engine_benchmark_command
from mtl_perception.evaluation.engine_benchmark import (
    compare_engines,
    EngineRow,
    EngineVariant,
)
from mtl_perception.evaluation.engine_report import markdown, plot, write_section
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.inference import InferenceError
from mtl_perception.inference.device import Device
from mtl_perception.manifest import load_manifest
from mtl_perception.ros.benchmark_command import main
from mtl_perception.tasks import KINDS, LABELLED_KINDS, LabelSet, Task
import numpy as np
import pytest


def variant(engine: str, precision: str = 'fp32', batch: int = 1) -> EngineVariant:
    return EngineVariant(Path('bundle'), (96, 128), engine, precision, batch, 1)


class FakeWorker:
    """Takes the milliseconds of its variant, drifting as a shared machine does."""

    DIARY: ClassVar[list[str]]
    MS: ClassVar = {'torch': 40.0, 'onnxruntime': 20.0, 'openvino': 10.0}

    def __init__(self, row: EngineRow, cache: Path | None) -> None:
        self.row, self.count = row, 0

    def read(self) -> dict[str, object]:
        if self.row.variant.engine == 'tensorrt':
            self.row.error = 'no GPU'
            return {'error': 'no GPU'}
        return {'startup_s': 0.5, 'startup_processor_s': 0.25, 'errors': {'depth': 0.001}}

    def ask(self, question: str) -> dict[str, float]:
        if question == 'end':
            return {'peak_memory_mib': 100.0}
        self.DIARY.append(self.row.variant.engine)
        self.count += 1
        return {'ms': self.MS[self.row.variant.engine] * self.count}

    def end(self) -> None:
        pass


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the processes by fake ones and return the order in which they ran."""
    FakeWorker.DIARY = []
    monkeypatch.setattr(engine_benchmark, '_Worker', FakeWorker)
    return FakeWorker.DIARY


def test_rows_of_one_setting_take_turns_and_ratios_are_of_the_rounds(diary: list[str]) -> None:
    variants = [
        *(variant(name) for name in ('onnxruntime', 'torch', 'tensorrt', 'openvino')),
        variant('onnxruntime', batch=2),
    ]
    rows = compare_engines(variants, 5)
    alone = diary[24:]
    assert diary[:24] == ['onnxruntime', 'torch', 'openvino'] * 8
    assert set(alone) == {'onnxruntime'}
    # Each round is slower than the last, and the ratio does not see it.
    assert [row.ratio for row in rows if not row.error] == [2.0, 1.0, 4.0, 1.0]
    assert rows[0].median_ms == np.median([20 * step for step in range(4, 9)])
    assert rows[2].error == 'no GPU'
    assert math.isnan(rows[2].median_ms)
    assert rows[2].to_json()['error'] == 'no GPU'
    assert rows[3].to_json()['times_faster'] == 4.0


def test_with_no_engine_at_all_the_reason_is_given(diary: list[str]) -> None:
    with pytest.raises(EvaluationError, match='no engine could run: tensorrt fp32: no GPU'):
        compare_engines([variant('tensorrt')], 5)


def test_the_tables_say_what_was_measured_and_where(diary: list[str], tmp_path: Path) -> None:
    rows = compare_engines([variant(name) for name in ('torch', 'openvino', 'tensorrt')], 5)
    about = {
        'model': 'rooms', 'network': 'mti_net on x', 'runs': 5, 'gpu': '',
        'machine': {
            'processor': 'Processor P', 'cores_available': 2, 'cores': 4,
            'load_average_1min': 0.5, 'versions': {'numpy': '2.0', 'torch': None},
        },
    }  # fmt: skip
    text = markdown(rows, [Task('depth', 'depth')], about)
    assert 'Not run on a GPU.' in text
    assert 'Processor P, 2 of 4 cores' in text
    assert 'numpy 2.0.' in text
    assert '### 96x128, batch 1, 1 thread\n' in text
    assert '| torch fp32 | 240.0 | 1.00 | 0.50 (0.25) | 100 | 0.10% |' in text
    assert '| openvino fp32 | 60.0 | 4.00 |' in text
    assert '| tensorrt fp32 | no GPU |' in text
    columns = {line.count('|') for line in text.splitlines() if line.startswith('|')}
    assert columns == {7}
    file = tmp_path / 'benchmarks.md'
    file.write_text('# Benchmarks\n\nBefore.\n')
    for content in (text, 'second\n'):
        write_section(file, content)
    assert file.read_text() == (
        '# Benchmarks\n\nBefore.\n\n<!-- engines: begin -->\nsecond\n<!-- engines: end -->\n'
    )
    file.write_text(file.read_text() + '\nAfter.\n')
    write_section(file, 'third\n')
    assert file.read_text().endswith('third\n<!-- engines: end -->\n\nAfter.\n')
    pytest.importorskip('matplotlib')
    plot(rows, tmp_path / 'engines.png')
    import cv2

    picture = cv2.imread(str(tmp_path / 'engines.png'))
    blue = (np.abs(picture.astype(int) - (168, 120, 76)).max(-1) < 12).sum(1)
    lengths = sorted(set(blue[blue > 20].tolist()))
    # Two bars, 240 ms and 60 ms.
    assert lengths[-1] / lengths[0] == pytest.approx(4.0, rel=0.05)


def test_every_kind_of_task_has_its_column(diary: list[str]) -> None:
    about = {
        'model': 'all', 'network': 'x', 'runs': 5, 'gpu': '',
        'machine': {
            'processor': 'P', 'cores_available': 2, 'cores': 4, 'load_average_1min': 0.5,
            'versions': {},
        },
    }  # fmt: skip
    rows = compare_engines([variant('torch')], 3)
    labels = LabelSet('two', ('one', 'other'), ((0, 0, 0), (9, 9, 9)))
    tasks = [
        Task(
            kind, kind, labels if kind in LABELLED_KINDS else None,
            'contours' if kind == 'edges' else None,
        )
        for kind in KINDS
    ]  # fmt: skip
    rows[0].errors = dict.fromkeys(KINDS, 0.25)
    (line,) = (one for one in markdown(rows, tasks, about).splitlines() if 'torch fp32 |' in one)
    cells = dict(zip(KINDS, (cell.strip() for cell in line.strip('|').split('|')[5:])))
    assert cells == {
        'semantic': '25.00%', 'parts': '25.00%', 'depth': '25.00%', 'normals': '0.25°',
        'edges': '0.250', 'saliency': '0.250',
    }  # fmt: skip


def test_a_gpu_that_cannot_be_asked_is_known_before_the_measurement(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def gpu(engine: str) -> Device:
        order.append('gpu')
        raise InferenceError('CUDA finds no device')

    def compare(variants: list[EngineVariant], *_: object, **__: object) -> list[EngineRow]:
        order.append('compare')
        row = EngineRow(variants[0], runs_ms=[1.0], ratio=1.0, startup_s=1.0)
        row.errors = dict.fromkeys(('semantic', 'depth', 'normals', 'edges'), 0.0)
        row.peak_memory_mib = row.startup_processor_s = 1.0
        return [row]

    monkeypatch.setattr('mtl_perception.evaluation.benchmark.nvidia_gpu_present', lambda: True)
    monkeypatch.setattr('mtl_perception.inference.tensorrt_runtime.gpu', gpu)
    monkeypatch.setattr(engine_benchmark_command, 'compare_engines', compare)
    assert main(['engines', '--model', str(small_bundle), '--engine', 'onnxruntime']) == 0
    assert order == ['gpu', 'compare']
    assert 'CUDA finds no device' in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_compares_real_engines(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('onnxruntime')
    pytest.importorskip('openvino')
    file, page = tmp_path / 'engines.json', tmp_path / 'benchmarks.md'
    assert main([
        'engines', '--model', str(small_bundle), '--engine', 'onnxruntime,openvino',
        '--runs', '3', '--cache', str(tmp_path / 'cache'), '--json', str(file),
        '--markdown', str(page),
    ]) == 0  # fmt: skip
    document = json.loads(file.read_text())
    rows = {(row['engine'], row['precision']): row for row in document['rows']}
    assert set(rows) == {('onnxruntime', 'fp32'), ('openvino', 'fp32'), ('openvino', 'bf16')}
    # Random weights on noise: bf16 is beyond what it may cost, and the table says so.
    assert 'normals is' in rows['openvino', 'bf16']['error']
    for name in ('onnxruntime', 'openvino'):
        row = rows[name, 'fp32']
        assert row['median_ms'] > 0
        assert row['startup_s'] > 0.1
        assert 30 < row['peak_memory_mib'] < 2000
        assert set(row['errors']) == {task.name for task in load_manifest(small_bundle).tasks}
        assert row['errors']['depth'] < 1e-3
    assert rows['onnxruntime', 'fp32']['times_faster'] == 1.0
    assert '| onnxruntime fp32 |' in page.read_text()
    assert 'onnxruntime fp32' in capsys.readouterr().out


@pytest.mark.parametrize(
    'wrong',
    [
        ['--engine', 'magic'], ['--precision', 'fp8'], ['--size', '640'], ['--batch', '0'],
        ['--runs', '0'], ['--engine', 'onnxruntime', '--precision', 'bf16'],
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2(wrong: list[str], small_bundle: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(['engines', '--model', str(small_bundle), *wrong])
    assert ended.value.code == 2
