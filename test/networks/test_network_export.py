# SPDX-License-Identifier: Apache-2.0
"""Networks leave PyTorch: equal to eager in ONNX Runtime, and one TensorRT-RTX engine each."""

from __future__ import annotations

import copy
import time

from mtl_perception.evaluation.sample_bundle import sample_bundle
from mtl_perception.evaluation.system_worker import TARGETS
from mtl_perception.inference.half_precision import load_graph
from mtl_perception.inference.tensorrt_rtx_builder import build_tensorrt_rtx
from mtl_perception.manifest import CHECK_FILE
from mtl_perception.networks import build_network, SYSTEMS
from mtl_perception.networks.backbones import BACKBONES
from mtl_perception.tasks import standard_tasks
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file
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
    ('mti_net', 'hrnet_w18_small_v2', 'published', (64, 64)),
    ('pad_net', 'mobilenetv2_100', 'published', (64, 64)),
    ('densemtl', 'resnet18', 'published', (64, 64)),
    ('demt_global', 'pvt_v2_b2', 'corrected', (75, 101)),
    ('densemtl', 'resnet18', 'corrected', (75, 101)),
    ('mtl_segformer', 'mit_b0', 'corrected', (75, 101)),
]
SIBLINGS = [
    ('single_task', name, 'corrected', (64, 64))
    for name in ('resnet101', 'hrnet_w48', 'swin_small', 'swin_base', 'mit_b1', 'mit_b2')
]


FAST = [
    (system, backbone) for system, backbone, mode, _ in COVERING + SIBLINGS if mode == 'corrected'
]
MATRIX = [
    pytest.param((system, backbone, 'corrected', (64, 96)), marks=pytest.mark.matrix)
    for system in SYSTEMS
    for backbone in BACKBONES
    if (system, backbone) not in FAST
]
CASES = COVERING + SIBLINGS + MATRIX

# Kinds of layers that must compute in single precision in a half-precision engine.
ISLANDS = {'grid_sample', 'softmax', 'normalization'}


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
    double = None
    worst = 0.0
    session = onnx_session(network, torch.randn(2, 3, *case[3]), tmp_path / 'net.onnx')
    for batch in (1, 3):
        image = torch.randn(batch, 3, *case[3])
        with torch.no_grad():
            expected = network(image).maps
        found = session.run(None, {'image': image.numpy()})
        for value, (name, eager) in zip(found, expected.items()):
            scale = float(eager.abs().max())
            assert scale > 0.05
            worst = max(worst, float(np.abs(value - eager.numpy()).max()) / max(scale, 1))
            wrong = ~(np.abs(value - eager.numpy()) <= 1e-4 * max(scale, 1))  # NaN is wrong
            if wrong.any():
                # A random network may amplify the last bits of single precision at some pixel:
                # there neither is nearer to the truth than single precision comes.
                double = double or copy.deepcopy(network).double()
                with torch.no_grad():
                    exact = double(image.double()).maps[name].numpy()
                rounding = np.abs(eager.numpy() - exact).max()
                assert np.abs(value - exact).max() <= 10 * rounding
                assert rounding <= 3e-3 * scale
                assert wrong.mean() < 0.01
    record_property('size', f'{case[3][0]}x{case[3][1]}')
    record_property('onnx_error', f'{worst:.1e}')


# Mean error of float maps in fp16, in standard deviations of the map on the check frame. With
# random weights rounding grows from layer to layer more than in a trained network.
HALF_ERROR = 0.1


def half_precision_error(model, directory):
    """Run a halved graph on the bundle's check frame; return the error of its worst float map."""
    check = load_file(directory / CHECK_FILE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options)
    names = [output.name for output in session.get_outputs()]
    inputs = {'image': check['input.image'], 'depth_scale': check['input.depth_scale']}
    worst = 0.0
    for name, values in zip(names, session.run(None, inputs)):
        wanted = check[f'output.{name}']
        assert values.dtype == wanted.dtype
        if wanted.dtype == np.float32:
            # the rest is rounded to bytes, of which an untrained network uses few
            worst = max(worst, float(np.abs(values - wanted).mean() / wanted.std()))
    return worst


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('case', CASES, ids=lambda case: '-'.join(case[:3]))
def test_half_precision_builds_one_tensorrt_rtx_engine(case, tmp_path, record_property):
    """As `compile` builds it: the bundle's graph, rewritten in fp16 with its fp32 islands."""
    pytest.importorskip('tensorrt_rtx')
    system, backbone, mode, size = case
    directory = sample_bundle(system, backbone, size, tmp_path, mode)
    model = load_graph(directory, 'fp16').SerializeToString()
    error = half_precision_error(model, directory)
    assert error < HALF_ERROR
    began = time.monotonic()
    built_engine = build_tensorrt_rtx(model, TARGETS)
    megabytes = len(built_engine.content) / 1e6
    with torch.device('meta'):
        network = built(case, standard_tasks('rooms'))
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    record_property('size', f'{size[0]}x{size[1]}')
    record_property('parameters_m', f'{millions:.2f}')
    record_property('engine_mb', f'{megabytes:.1f}')
    record_property('build_s', f'{time.monotonic() - began:.1f}')
    # two bytes per weight: the engine holds the network, once, in half precision
    assert 0.9 < megabytes / (2 * millions) < 4
    kinds = built_engine.report['kinds_by_precision']
    assert kinds['convolution'].keys() == {'half'}
    for island in ISLANDS & kinds.keys():
        assert kinds[island].keys() == {'float'}, kinds[island]
    assert ('grid_sample' in kinds) == (system.startswith('demt'))


def test_the_covering_set_covers_every_system_and_every_backbone():
    """What `make test` exports and builds, without the matrix."""
    always = COVERING + SIBLINGS
    assert {system for system, *_ in always} == set(SYSTEMS)
    assert {backbone for _, backbone, *_ in always} == set(BACKBONES)
    released = {system for system, _, mode, _ in always if mode == 'published'}
    assert released == {'demt', 'mti_net', 'pad_net', 'densemtl'}
