# SPDX-License-Identifier: Apache-2.0
"""torch_tensorrt converts every operator of the graph of every system: one block, no fallback."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

from mtl_perception.networks import SYSTEMS
import pytest

# torch_tensorrt asks for a GPU when it is imported and again when it compiles. Only these device
# questions are answered here; lowering, partitioning and the converter table are its own.
PROBE = """
import sys
import types

import torch

torch.cuda.get_device_capability = lambda *a, **k: (8, 9)
torch.cuda.current_device = lambda: 0
import torch_tensorrt
from torch_tensorrt import _Device
from torch_tensorrt.dynamo import _compiler, utils
from torch_tensorrt.dynamo.conversion import _conversion, _TRTInterpreter

torch.cuda.get_device_properties = lambda *a, **k: types.SimpleNamespace(
    major=8, minor=9, name='none', total_memory=8 << 30)
torch.cuda.mem_get_info = lambda *a, **k: (8 << 30, 8 << 30)
for module in (utils, _compiler, _conversion, _TRTInterpreter):
    if hasattr(module, 'to_torch_device'):
        module.to_torch_device = lambda *a, **k: torch.device('cpu')
_Device.Device.to = lambda *a: torch.device('cpu')

from mtl_perception.graph import PerceptionGraph
from mtl_perception.inference.tensorrt_engine import export_with_integers
from mtl_perception.manifest import Manifest
from mtl_perception.networks import build_network
from mtl_perception.tasks import standard_tasks

folder, *cases = sys.argv[1:]
image, scale = torch.zeros(1, 64, 96, 3, dtype=torch.uint8), torch.ones(1)
for case in cases:
    system, backbone = case.split(':')
    tasks = standard_tasks('rooms')[: 1 if system == 'single_task' else 4]
    network = build_network(system, tasks, backbone=backbone)
    manifest = Manifest(name='probe', system=system, backbone=backbone, tasks=tasks,
                        network_size=(64, 96), reference_focal_px=90.0, depth_range_m=(0.2, 20.0))
    graph = PerceptionGraph(network, manifest).eval()
    program = export_with_integers(graph, (image, scale))
    torch_tensorrt.dynamo.compile(program, arg_inputs=[image, scale], min_block_size=1,
                                  dryrun=f'{folder}/{system}.txt')
"""
# By system; any other has mobilenetv2_100.
BACKBONES = {
    'single_task': 'mobilenetv4_conv_small', 'multi_task': 'resnet50',
    'pad_net': 'hrnet_w18_small_v2', 'demt': 'swin_tiny',
    'demt_global': 'pvt_v2_b2', 'densemtl': 'resnet18', 'mtl_segformer': 'mit_b0',
}


@pytest.fixture(scope='module')
def reports(tmp_path_factory) -> Path:
    """Return the folder of coverage reports, one per system, made in a process of its own."""
    pytest.importorskip('tensorrt_rtx')
    if not any((Path(folder) / 'torch_tensorrt').is_dir() for folder in sys.path):
        pytest.skip('torch_tensorrt is not installed')
    folder = tmp_path_factory.mktemp('coverage')
    cases = [f'{system}:{BACKBONES.get(system, "mobilenetv2_100")}' for system in SYSTEMS]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    run = subprocess.run([sys.executable, '-c', PROBE, str(folder), *cases], env=environment,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('system', SYSTEMS)
def test_one_block_holds_every_operator(system, reports):
    report = (reports / f'{system}.txt').read_text()
    assert '100.0% coverage' in report
    assert report.count('TRT Engine #') == 1, report
