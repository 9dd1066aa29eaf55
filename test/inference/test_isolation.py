# SPDX-License-Identifier: Apache-2.0
"""Perceiving with ONNX Runtime takes neither torch nor much memory."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

import pytest

pytest.importorskip('onnxruntime')


def run(code: str, *arguments: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, '-c', code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_no_heavy_library() -> None:
    code = (
        'import sys, mtl_perception.inference, mtl_perception.manifest\n'
        "heavy = {'torch', 'onnxruntime', 'onnx', 'cv2', 'timm', 'lightning', 'rclpy'}\n"
        'print(sorted(heavy & set(sys.modules)))'
    )
    assert run(code) == '[]'


PERCEIVE = """
import sys
import numpy as np
from mtl_perception.camera import CameraModel
from mtl_perception.inference import open_engine, Perceiver
from mtl_perception.values import Frame

def resident_kib():
    status = open('/proc/self/status').read()
    return int(status.split('VmRSS:')[1].split()[0])

image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
with open_engine(sys.argv[1], threads=1) as engine:
    perceiver = Perceiver(engine)
    sizes = []
    for index in range(60):
        frame = Frame(image, index, 'camera', CameraModel(640, 480, 500.0, 500.0, 320.0, 240.0))
        maps = perceiver.perceive(frame)
        if index in (10, 59):
            sizes.append(resident_kib())
assert set(maps.maps) == {'semantic', 'depth', 'normals', 'edges'}
mapped = open('/proc/self/maps').read()
grown = sizes[1] - sizes[0]
print('torch' in sys.modules, 'libtorch' in mapped, sizes[1] // 1024, grown // 1024)
"""


def test_process_maps_no_libtorch_stays_small_and_does_not_grow(small_bundle: Path) -> None:
    imported, mapped, resident_mib, growth_mib = run(PERCEIVE, str(small_bundle)).split()
    assert (imported, mapped) == ('False', 'False')
    assert int(resident_mib) < 200
    assert int(growth_mib) <= 5
