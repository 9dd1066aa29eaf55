# SPDX-License-Identifier: Apache-2.0
"""Networks leave PyTorch: equal to eager in ONNX Runtime, and one TensorRT-RTX engine each."""

from __future__ import annotations

import time

from mtl_perception.networks import build_network, SYSTEMS
from mtl_perception.networks.backbones import BACKBONES
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

# Every system and every backbone once; the deeper siblings of a family on the cheapest system.
COVERING = [
    ('single_task', 'mobilenetv4_conv_small', 'corrected', (75, 101)),
    ('multi_task', 'resnet50', 'corrected', (64, 64)),
    ('mti_net', 'mobilenetv2_100', 'corrected', (75, 101)),
    ('pad_net', 'hrnet_w18_small_v2', 'corrected', (72, 104)),
    ('demt', 'swin_tiny', 'corrected', (75, 101)),
    ('demt', 'mobilenetv2_100', 'published', (64, 64)),
    ('demt_global', 'pvt_v2_b2', 'corrected', (75, 101)),
    ('densemtl', 'resnet18', 'corrected', (75, 101)),
    ('mtl_segformer', 'mit_b0', 'corrected', (75, 101)),
]
SIBLINGS = [
    ('single_task', name, 'corrected', (64, 64))
    for name in ('resnet101', 'hrnet_w48', 'swin_small', 'swin_base', 'mit_b1', 'mit_b2')
]


FAST = [(system, backbone) for system, backbone, _, _ in COVERING + SIBLINGS]
MATRIX = [
    pytest.param((system, backbone, 'corrected', (64, 96)), marks=pytest.mark.matrix)
    for system in SYSTEMS
    for backbone in BACKBONES
    if (system, backbone) not in FAST
]
CASES = COVERING + SIBLINGS + MATRIX


class MapsOnly(nn.Module):
    """Return the maps as a tuple, the way a graph does."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        """Run the network."""
        return tuple(self.network(image).maps.values())


def built(case, tasks):
    """Return the network of a case."""
    system, backbone, mode, _ = case
    tasks = tasks[:1] if system == 'single_task' else tasks
    return build_network(system, tasks, backbone=backbone, mode=mode).eval()


def onnx_session(network, image, path):
    """Export with a dynamic batch and open the file."""
    batch = torch.export.Dim('batch', max=64)
    program = torch.onnx.export(
        MapsOnly(network).eval(), (image,), dynamo=True, opset_version=20,
        input_names=['image'], dynamic_shapes=({0: batch},), optimize=False, verbose=False,
    )
    program.save(path, external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('case', CASES, ids=lambda case: '-'.join(case[:3]))
def test_onnx_equals_eager(case, four_tasks, randomise, tmp_path, record_property):
    network = randomise(built(case, four_tasks))
    worst = 0.0
    session = onnx_session(network, torch.randn(2, 3, *case[3]), tmp_path / 'net.onnx')
    for batch in (1, 3):
        image = torch.randn(batch, 3, *case[3])
        with torch.no_grad():
            expected = network(image).maps
        for value, eager in zip(session.run(None, {'image': image.numpy()}), expected.values()):
            scale = float(eager.abs().max())
            assert scale > 0.05
            worst = max(worst, float(np.abs(value - eager.numpy()).max()) / max(scale, 1))
            np.testing.assert_allclose(value, eager.numpy(), rtol=0, atol=1e-4 * max(scale, 1))
    record_property('onnx_error', f'{worst:.1e}')


def rtx_engine(path, targets=('SM86', 'SM89', 'SM120')):
    """Compile an ONNX file ahead of time into one engine for several GPU generations."""
    tensorrt = pytest.importorskip('tensorrt_rtx')
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    flag = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    definition = builder.create_network(1 << int(flag))
    parser = tensorrt.OnnxParser(definition, logger)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(getattr(tensorrt.ComputeCapability, target), index)
    engine = builder.build_serialized_network(definition, config)
    assert engine is not None, 'the builder returned no engine'
    return bytes(engine)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('case', CASES, ids=lambda case: '-'.join(case[:3]))
def test_half_precision_builds_one_tensorrt_rtx_engine(
    case, four_tasks, tmp_path, record_property
):
    pytest.importorskip('tensorrt_rtx')
    network = MapsOnly(built(case, four_tasks)).eval().half()
    weights = sum(parameter.numel() for parameter in network.parameters())
    with torch.no_grad():
        program = torch.onnx.export(
            network, (torch.randn(1, 3, *case[3]).half(),), dynamo=True, opset_version=20,
            input_names=['image'], verbose=False,
        )
    program.save(tmp_path / 'net.onnx', external_data=False)
    began = time.monotonic()
    engine = rtx_engine(tmp_path / 'net.onnx')
    record_property('parameters_m', f'{weights / 1e6:.2f}')
    record_property('engine_mb', f'{len(engine) / 1e6:.1f}')
    record_property('build_s', f'{time.monotonic() - began:.1f}')
    # two bytes per weight: the engine holds the network, once, in half precision
    assert 0.9 < len(engine) / (2 * weights) < 4
