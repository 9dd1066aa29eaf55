# SPDX-License-Identifier: Apache-2.0
"""The soak test sees a leak of known size, and none where there is none."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

from mtl_perception.evaluation import soak_command
from mtl_perception.evaluation.memory import peak_mib, reset_peak, resident_mib
from mtl_perception.evaluation.soak_command import growth_mib, soak
from mtl_perception.inference import open_engine
from mtl_perception.ros import benchmark_command
from mtl_perception.ros.benchmark_command import main
import pytest

pytest.importorskip('onnxruntime')


def touched(size: int) -> mmap.mmap:
    """Return fresh pages that are resident; malloc would reuse what other tests have freed."""
    pages = mmap.mmap(-1, max(size, 1))
    pages.write(bytes(size))
    return pages


class Leaking:
    """An engine that keeps memory of every frame."""

    def __init__(self, engine: Any, mebibytes: float) -> None:
        self._engine, self._kept = engine, []
        self._bytes = int(mebibytes * 2**20)
        self.manifest, self.name = engine.manifest, engine.name

    def run(self, image: Any, depth_scale: Any) -> dict[str, Any]:
        self._kept.append(touched(self._bytes))
        return dict(self._engine.run(image, depth_scale))


def test_a_leak_is_seen_in_its_size(small_bundle: Path) -> None:
    with open_engine(small_bundle, threads=1) as engine:
        soak(engine, small_bundle, (128, 96), 20)  # settled
        leaking: Any = Leaking(engine, 4.0)
        samples = soak(leaking, small_bundle, (128, 96), 40)
        assert growth_mib(samples) == pytest.approx(20 * 4.0, abs=6.0)
        assert sorted(samples) == list(range(20, 41))
        leaking = Leaking(engine, 0.0)
        assert abs(growth_mib(soak(leaking, small_bundle, (128, 96), 40))) < 4.0


def test_resident_memory_is_what_was_touched() -> None:
    before = resident_mib()
    kept = touched(64 * 2**20)
    assert resident_mib() - before == pytest.approx(64, abs=4)
    assert peak_mib() >= before + 60
    kept.close()
    assert peak_mib() >= before + 60
    reset_peak()
    assert peak_mib() < before + 30


def test_memory_is_kept_as_the_node_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(benchmark_command, 'keep_freed_memory', lambda: order.append('kept'))
    monkeypatch.setattr(soak_command, 'main', lambda words: order.append('soak') or 0)
    assert main(['soak']) == 0
    assert order == ['kept', 'soak']


def test_the_command_writes_what_it_measured(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page = tmp_path / 'soak.json', tmp_path / 'benchmarks.md'
    assert main([
        'soak', '--model', str(small_bundle), '--frames', '8', '--threads', '1',
        '--size', '128x96', '--json', str(file), '--markdown', str(page),
    ]) == 0  # fmt: skip
    document = json.loads(file.read_text())
    assert list(document['resident_mib']) == ['4', '5', '6', '7', '8']
    values = list(document['resident_mib'].values())
    assert document['growth_mib'] == pytest.approx(values[-1] - values[0])
    assert '8 frames in' in capsys.readouterr().out
    text = page.read_text()
    assert '<!-- soak: begin -->\n`small` on onnxruntime: 8 frames in' in text
    assert f'{values[0]:.1f} MiB resident after frame 4, {values[-1]:.1f} MiB' in text
