# SPDX-License-Identifier: Apache-2.0
"""Networks leave PyTorch: ONNX with a dynamic batch, equal to eager in ONNX Runtime."""

from __future__ import annotations

from mtl_perception.networks import build_network
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn


class MapsOnly(nn.Module):
    """Return the maps as a tuple, the way a graph does."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        """Run the network."""
        return tuple(self.network(image).maps.values())


def onnx_session(network, image, path):
    """Export with a dynamic batch and open the file."""
    wrapped = MapsOnly(network).eval()
    batch = torch.export.Dim('batch', max=64)
    program = torch.onnx.export(
        wrapped, (image,), dynamo=True, opset_version=20, input_names=['image'],
        dynamic_shapes=({0: batch},), optimize=False, verbose=False,
    )
    program.save(path, external_data=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


@pytest.mark.slow
@pytest.mark.parametrize(('system', 'backbone', 'size'), [
    ('mti_net', 'mobilenetv2_100', (75, 101)),
    ('multi_task', 'hrnet_w18_small_v2', (72, 104)),
])
def test_onnx_equals_eager(system, backbone, size, four_tasks, randomise, tmp_path):
    network = randomise(build_network(system, four_tasks, backbone=backbone).eval())
    session = onnx_session(network, torch.randn(2, 3, *size), tmp_path / 'net.onnx')
    for batch in (1, 3):
        image = torch.randn(batch, 3, *size)
        with torch.no_grad():
            expected = network(image).maps
        for value, eager in zip(session.run(None, {'image': image.numpy()}), expected.values()):
            scale = float(eager.abs().max())
            np.testing.assert_allclose(value, eager.numpy(), atol=1e-4 * max(scale, 1))
