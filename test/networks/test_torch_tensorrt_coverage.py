# SPDX-License-Identifier: Apache-2.0
"""torch_tensorrt has a converter for every operator of every system: one block, no fallback."""

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

from mtl_perception.networks import build_network
from mtl_perception.tasks import standard_tasks


class MapsOnly(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return tuple(self.network(image).maps.values())


folder, *cases = sys.argv[1:]
image = torch.randn(1, 3, 64, 96)
for case in cases:
    system, backbone = case.split(':')
    tasks = standard_tasks('rooms')[: 1 if system == 'single_task' else 4]
    network = MapsOnly(build_network(system, tasks, backbone=backbone)).eval()
    program = torch.export.export(network, (image,))
    torch_tensorrt.dynamo.compile(program, arg_inputs=[image], min_block_size=1,
                                  dryrun=f'{folder}/{system}.txt')
"""
BACKBONES = {
    'single_task': 'mobilenetv4_conv_small', 'multi_task': 'resnet50',
    'pad_net': 'hrnet_w18_small_v2', 'mti_net': 'mobilenetv2_100', 'demt': 'swin_tiny',
    'demt_global': 'pvt_v2_b2', 'densemtl': 'resnet18', 'mtl_segformer': 'mit_b0',
}


@pytest.fixture(scope='module')
def reports(tmp_path_factory) -> Path:
    """Return the folder of coverage reports, one per system, made in a process of its own."""
    pytest.importorskip('tensorrt_rtx')
    if not any((Path(folder) / 'torch_tensorrt').is_dir() for folder in sys.path):
        pytest.skip('torch_tensorrt is not installed')
    folder = tmp_path_factory.mktemp('coverage')
    cases = [f'{system}:{BACKBONES[system]}' for system in SYSTEMS]
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
