# SPDX-License-Identifier: Apache-2.0
"""The exported graph: weights stored once, nothing folded into new ones, same answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mtl_perception.manifest import BundleError, Manifest
from mtl_perception.tasks import standard_tasks
import numpy as np
import pytest

torch = pytest.importorskip('torch')
onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')

from mtl_perception.graph import PerceptionGraph  # noqa: E402
from mtl_perception.networks.outputs import Outputs  # noqa: E402
from mtl_perception.onnx_export import export_onnx, safetensors_layout  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

NUMPY_TYPES = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.INT64: np.int64}


def test_no_weight_is_stored_twice(small_bundle: Path) -> None:
    path = small_bundle / 'graph.onnx'
    assert path.stat().st_size < 400_000
    weights = load_file(small_bundle / 'weights.safetensors')
    content = (small_bundle / 'weights.safetensors').read_bytes()
    model = onnx.load(path, load_external_data=False)
    pointed = {}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        assert place['location'] == 'weights.safetensors'
        begin, length = int(place['offset']), int(place['length'])
        values = np.frombuffer(content[begin : begin + length], NUMPY_TYPES[tensor.data_type])
        pointed[tensor.name.removeprefix('network.')] = values.reshape(tuple(tensor.dims))
    for name, values in pointed.items():
        np.testing.assert_array_equal(values, weights[name])
    assert len(pointed) > 300
    for node in model.graph.node:
        if node.op_type in ('Conv', 'BatchNormalization'):
            parameters = {name.removeprefix('network.') for name in node.input[1:] if name}
            assert parameters <= set(pointed)
    # What is inside is no weight in disguise: a few thousand bytes of constants.
    inline = [t for t in model.graph.initializer if t.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(len(tensor.raw_data) for tensor in inline) < 10_000


def test_batch_norm_is_left_for_the_engine_to_fold(small_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(small_bundle / 'graph.onnx', load_external_data=False)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds['BatchNormalization'] > 50
    # TensorRT reads no sequences; a bias computed at run time keeps engines from folding.
    assert not kinds.keys() & {'SplitToSequence', 'SequenceAt', 'CastLike', 'If', 'Loop'}
    inputs = {tensor.name for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == 'Conv']
    assert all(set(node.input[1:]) <= inputs for node in convolutions)

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / 'optimised.onnx')
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        str(small_bundle / 'graph.onnx'), options, providers=['CPUExecutionProvider']
    )
    optimised = onnx.load(tmp_path / 'optimised.onnx', load_external_data=False)
    assert not [node for node in optimised.graph.node if node.op_type == 'BatchNormalization']


def test_file_tells_nothing_of_the_machine_it_was_made_on(small_bundle: Path) -> None:
    content = (small_bundle / 'graph.onnx').read_bytes()
    for trace in (b'site-packages', b'.py', b'File "', str(Path.cwd()).encode()):
        assert trace not in content


def test_signature(small_bundle: Path) -> None:
    session = onnxruntime.InferenceSession(
        str(small_bundle / 'graph.onnx'), providers=['CPUExecutionProvider']
    )
    inputs = {entry.name: (entry.type, entry.shape[1:]) for entry in session.get_inputs()}
    assert inputs == {
        'image': ('tensor(uint8)', [96, 128, 3]),
        'depth_scale': ('tensor(float)', []),
    }
    assert all(isinstance(entry.shape[0], str) for entry in session.get_inputs())
    names = [entry.name for entry in session.get_outputs()]
    assert names == ['semantic', 'semantic_confidence', 'depth', 'normals', 'edges']


class Tiny(torch.nn.Module):  # type: ignore[misc]
    """One convolution per task."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleDict(
            {
                task.name: torch.nn.Conv2d(3, task.channels, 3, stride=4, padding=1)
                for task in standard_tasks('rooms')
            }
        )

    def forward(self, image: Any) -> Outputs:
        return Outputs({name: head(image) for name, head in self.heads.items()})


@pytest.fixture(scope='module')
def tiny() -> tuple[PerceptionGraph, Manifest]:
    """Return the graph of a tiny network."""
    manifest = Manifest(
        name='tiny',
        system='tiny',
        backbone='none',
        tasks=standard_tasks('rooms'),
        network_size=(16, 24),
        reference_focal_px=20.0,
        depth_range_m=(0.2, 20.0),
        label_scale=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PerceptionGraph(Tiny(), manifest).eval(), manifest


def test_any_batch_gives_what_eager_gives(
    tiny: tuple[PerceptionGraph, Manifest], tmp_path: Path
) -> None:
    graph, manifest = tiny
    weights = tmp_path / 'weights.safetensors'
    save_file(graph.network.state_dict(), weights)
    (tmp_path / 'graph.onnx').write_bytes(export_onnx(graph, manifest, weights))
    session = onnxruntime.InferenceSession(
        str(tmp_path / 'graph.onnx'), providers=['CPUExecutionProvider']
    )
    generator = np.random.default_rng(0)
    for batch in (1, 3):
        image = generator.integers(0, 256, (batch, 16, 24, 3), dtype=np.uint8)
        scale = generator.uniform(0.5, 2.0, batch).astype(np.float32)
        with torch.no_grad():
            eager = graph(torch.from_numpy(image), torch.from_numpy(scale))
        maps = session.run(None, {'image': image, 'depth_scale': scale})
        assert maps[0].shape == (batch, 8, 12)
        for ours, reference in zip(maps, eager):
            assert ours.dtype == reference.numpy().dtype
            np.testing.assert_allclose(ours, reference.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_of_another_network_are_refused(
    tiny: tuple[PerceptionGraph, Manifest], tmp_path: Path
) -> None:
    graph, manifest = tiny
    weights = tmp_path / 'weights.safetensors'
    state = {name: tensor.clone() for name, tensor in graph.network.state_dict().items()}
    state['heads.depth.bias'] += 1.0
    save_file(state, weights)
    with pytest.raises(BundleError, match=r'weights\.safetensors.*heads\.depth\.bias.*differs'):
        export_onnx(graph, manifest, weights)


def test_layout_is_where_the_values_are(tmp_path: Path) -> None:
    path = tmp_path / 'a.safetensors'
    tensors = {'one': torch.arange(6.0).view(2, 3), 'two': torch.tensor([7], dtype=torch.int64)}
    save_file(tensors, path, metadata={'note': 'ignored'})
    layout = safetensors_layout(path)
    assert {name: place['shape'] for name, place in layout.items()} == {'one': (2, 3), 'two': (1,)}
    begin = layout['one']['offset']
    values = np.frombuffer(path.read_bytes()[begin : begin + 24], np.float32)
    np.testing.assert_array_equal(values, np.arange(6.0))


@pytest.mark.parametrize('content', [b'', b'\x10', b'\xff' * 9, b'\x04' + bytes(7) + b'spam'])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'a.safetensors'
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r'a\.safetensors: the header'):
        safetensors_layout(path)
