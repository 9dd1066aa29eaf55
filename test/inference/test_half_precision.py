# SPDX-License-Identifier: Apache-2.0
"""The graph in half precision: what stays fp32, and that it still says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl_perception.inference import InferenceError
from mtl_perception.inference.half_precision import _bfloat16, load_graph
from mtl_perception.inference.verification import excess
from mtl_perception.manifest import load_manifest
import numpy as np
import pytest

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')
from onnx import helper, numpy_helper, TensorProto  # noqa: E402


def save(directory: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any) -> Path:
    """Write a graph as a bundle's `graph.onnx` would be."""
    graph = helper.make_graph(
        nodes,
        'graph',
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    onnx.checker.check_model(model)
    (directory / 'graph.onnx').write_bytes(model.SerializeToString())
    return directory


def types_of(model: Any) -> dict[str, set[int]]:
    """Return by kind of node the types of its first outputs."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.value_info, *graph.output)
    types = {one.name: one.type.tensor_type.elem_type for one in values}
    result: dict[str, set[int]] = {}
    for node in graph.node:
        result.setdefault(node.op_type, set()).add(types[node.output[0]])
    return result


def run(model: Any, **inputs: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    outputs: list[np.ndarray] = session.run(None, inputs)
    return outputs


@pytest.fixture
def sampling_graph(tmp_path: Path) -> Path:
    """Write a deformable block: conv, offsets by conv, a grid, sampling, softmax, conv."""
    random = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64), indexing='ij')
    constants = {
        'w0': random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        'w1': random.normal(0, 0.02, (2, 4, 3, 3)).astype(np.float32),
        'w2': random.normal(0, 0.5, (5, 4, 1, 1)).astype(np.float32),
        'base': np.stack((columns, rows), -1)[None].astype(np.float32),
        'gain': np.array([0.25], np.float32),
    }
    nodes = [
        helper.make_node('Cast', ['image'], ['pixels'], to=TensorProto.FLOAT),
        helper.make_node('Mul', ['pixels', 'gain'], ['scaled']),
        helper.make_node('Conv', ['scaled', 'w0'], ['c0'], pads=[1, 1, 1, 1]),
        helper.make_node('Relu', ['c0'], ['feature']),
        helper.make_node('Conv', ['feature', 'w1'], ['offset'], pads=[1, 1, 1, 1]),
        helper.make_node('Transpose', ['offset'], ['shift'], perm=[0, 2, 3, 1]),
        helper.make_node('Add', ['shift', 'base'], ['grid']),
        helper.make_node('GridSample', ['feature', 'grid'], ['sampled'], align_corners=0),
        helper.make_node('Conv', ['sampled', 'w2'], ['logits']),
        helper.make_node('Softmax', ['logits'], ['probability'], axis=1),
    ]
    return save(
        tmp_path, nodes, [('image', TensorProto.UINT8, [1, 3, 64, 64])],
        [('probability', TensorProto.FLOAT, [1, 5, 64, 64])], constants,
    )  # fmt: skip


def test_grids_softmax_and_both_ends_stay_fp32(sampling_graph: Path) -> None:
    types = types_of(load_graph(sampling_graph, 'fp16'))
    for kind in ('Mul', 'Transpose', 'Add', 'GridSample', 'Softmax'):
        assert types[kind] == {TensorProto.FLOAT}, kind
    for kind in ('Conv', 'Relu'):
        assert types[kind] == {TensorProto.FLOAT16}, kind


def test_fp16_with_islands_is_near_and_a_half_precision_grid_would_not_be(
    sampling_graph: Path,
) -> None:
    image = np.random.default_rng(1).integers(0, 9, (1, 3, 64, 64), dtype=np.uint8)
    (wanted,) = run(load_graph(sampling_graph, 'fp32'), image=image)
    (ours,) = run(load_graph(sampling_graph, 'fp16'), image=image)
    assert ours.dtype == np.float32
    error = np.abs(ours - wanted).max()
    assert 0 < error < 0.01
    # The same graph with the grid rounded to half precision.
    model = load_graph(sampling_graph, 'fp16')
    (sample,) = (node for node in model.graph.node if node.op_type == 'GridSample')
    position = list(model.graph.node).index(sample)
    for step, (source, target, kind) in enumerate(
        [(sample.input[1], 'rough', TensorProto.BFLOAT16), ('rough', 'again', TensorProto.FLOAT)]
    ):
        node = helper.make_node('Cast', [source], [target], to=kind)
        model.graph.node.insert(position + step, node)
    sample.input[1] = 'again'
    (ruined,) = run(model, image=image)
    assert np.abs(ruined - wanted).max() > 10 * error


def test_batch_norm_is_folded_in_fp32(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    constants = {
        'w': random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        'b': random.normal(0, 1, 4).astype(np.float32),
        'scale': random.uniform(0.5, 2, 4).astype(np.float32),
        'shift': random.normal(0, 1, 4).astype(np.float32),
        'mean': random.normal(0, 1, 4).astype(np.float32),
        # Far below what fp16 holds.
        'variance': np.array([1e-9, 1e-6, 1.0, 50.0], np.float32),
    }
    nodes = [
        helper.make_node('Conv', ['x', 'w', 'b'], ['y']),
        helper.make_node(
            'BatchNormalization', ['y', 'scale', 'shift', 'mean', 'variance'], ['z'], epsilon=1e-3
        ),
    ]
    shape = [1, 3, 8, 8]
    directory = save(
        tmp_path, nodes, [('x', TensorProto.FLOAT, shape)],
        [('z', TensorProto.FLOAT, [1, 4, 6, 6])], constants,
    )  # fmt: skip
    x = random.normal(0, 1, shape).astype(np.float32)
    (wanted,) = run(load_graph(directory, 'fp32'), x=x)
    model = load_graph(directory, 'fp16')
    assert 'BatchNormalization' not in {node.op_type for node in model.graph.node}
    (ours,) = run(model, x=x)
    np.testing.assert_allclose(ours, wanted, rtol=0.01, atol=0.01 * np.abs(wanted).max())
    # The normalisation by formula, of the convolution alone.
    (alone,) = run(load_graph(directory, 'fp32'), x=np.zeros_like(x))
    gain = constants['scale'] / np.sqrt(constants['variance'] + 1e-3)
    formula = (constants['b'] - constants['mean']) * gain + constants['shift']
    np.testing.assert_allclose(alone[0, :, 0, 0], formula, rtol=1e-4)


def test_a_weight_too_large_for_fp16_is_named(tmp_path: Path) -> None:
    directory = save(
        tmp_path,
        [helper.make_node('MatMul', ['x', 'huge'], ['y'])],
        [('x', TensorProto.FLOAT, [1, 2])],
        [('y', TensorProto.FLOAT, [1, 2])],
        {'huge': np.full((2, 2), 1e5, np.float32)},
    )
    with pytest.raises(InferenceError, match=r"weight 'huge' reaches 1e\+05.*take bf16"):
        load_graph(directory, 'fp16')
    load_graph(directory, 'bf16')


def test_bfloat16_is_what_torch_rounds_to() -> None:
    torch = pytest.importorskip('torch')
    random = np.random.default_rng(4)
    exponents = random.integers(-30, 30, 10000)
    values = random.normal(0, 1, 10000) * 10.0**exponents
    values = np.concatenate((values, [0.0, -0.0, np.inf, -np.inf, 1.00390625, 1.01171875]))
    values = values.astype(np.float32)
    wanted = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(_bfloat16(values), wanted)
    assert np.isnan((_bfloat16(np.float32([np.nan])).astype(np.uint32) << 16).view(np.float32))


def test_a_whole_network_in_fp16_stays_within_what_fp16_may_cost(small_bundle: Path) -> None:
    from mtl_perception.agreement import disagreement
    from safetensors.numpy import load_file

    manifest = load_manifest(small_bundle)
    check = load_file(small_bundle / 'check.safetensors')
    model = load_graph(small_bundle, 'fp16')
    onnx.checker.check_model(model, full_check=True)
    names = [one.name for one in model.graph.output]
    maps = run(
        model, image=check['input.image'], depth_scale=check['input.depth_scale']
    )
    reference = {name: check[f'output.{name}'] for name in manifest.output_names}
    errors = disagreement(manifest.tasks, reference, dict(zip(names, maps)))
    assert excess(manifest, errors, 'fp16') == ''
    assert errors['normals'] > 0.01  # it really is half precision
    weights = (small_bundle / 'weights.safetensors').stat().st_size
    assert model.ByteSize() < 0.6 * weights
