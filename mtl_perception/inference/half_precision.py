# SPDX-License-Identifier: Apache-2.0
"""
Rewrite a bundle's fp32 graph in half precision, with fp32 where half would ruin it.

TensorRT-RTX computes each layer in the type that the graph says. So the graph itself is
rewritten: weights and feature maps become fp16 or bf16, and these stay fp32: what comes before
the first and after the last convolution or matrix product (normalisation of the image; decoding,
normalisation of normals), softmax, the norms, and sampling with its grid back to the convolution
that predicts it. BatchNorm is folded into its convolution in fp32 first: its own numbers do not
fit half precision.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtl_perception.inference.engine import InferenceError
from mtl_perception.manifest import GRAPH_FILE
import numpy as np
import numpy.typing as npt

# Where the arithmetic is; they bound the fp32 parts at both ends of the graph.
_PRODUCTS = frozenset({'Conv', 'ConvTranspose', 'MatMul', 'Gemm', 'Einsum'})
_FP32_ONLY = frozenset({
    'BatchNormalization', 'ConstantOfShape', 'CumSum', 'Exp', 'GridSample',
    'GroupNormalization', 'InstanceNormalization', 'LayerNormalization', 'Log', 'LogSoftmax',
    'LpNormalization', 'Range', 'ReduceL2', 'Softmax',
})  # fmt: skip
# TensorRT has no bf16 kernels for these.
_NOT_BF16 = frozenset({'ConvTranspose', 'HardSwish'})
_READS_SHAPE_ONLY = frozenset({'Shape', 'Size'})
_FP16_LARGEST = 65504.0


def _library() -> Any:
    try:
        import onnx
    except ImportError as error:
        msg = f'the ONNX graph cannot be read ({error}); pip install onnx'
        raise InferenceError(msg) from error
    return onnx


def load_graph(directory: Path, precision: str) -> Any:
    """
    Return the graph of a bundle as an ONNX ModelProto that holds its weights.

    :param precision: fp32 leaves the graph as it is; fp16 and bf16 rewrite it

    Raises
    ------
    InferenceError
        If onnx is not installed, the graph is unreadable, or a weight is too large for fp16.

    """
    onnx = _library()
    path = directory / GRAPH_FILE
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors share no base
        msg = f'{path}: not readable as ONNX ({error}); copy the bundle again'
        raise InferenceError(msg) from error
    return model if precision == 'fp32' else _Halved(model, precision).model


class _Halved:
    """Holds what the rewriting looks up: who makes a value, who reads it, what type it has."""

    def __init__(self, model: Any, precision: str) -> None:
        self._onnx = _library()
        self._precision = precision
        proto = self._onnx.TensorProto
        self._half = proto.FLOAT16 if precision == 'fp16' else proto.BFLOAT16
        self.model = model
        self._name_constants()
        self._fold_batch_norm()
        self._rewrite()

    def _name_constants(self) -> None:
        """Turn Constant nodes into initialisers: then there is one kind of constant."""
        graph, kept = self.model.graph, []
        for node in graph.node:
            value = next((item for item in node.attribute if item.name == 'value'), None)
            if node.op_type == 'Constant' and value is not None:
                tensor = graph.initializer.add()
                tensor.CopyFrom(value.t)
                tensor.name = node.output[0]
            else:
                kept.append(node)
        del graph.node[:]
        graph.node.extend(kept)

    def _fold_batch_norm(self) -> None:
        helper, graph = self._onnx.numpy_helper, self.model.graph
        constants = {tensor.name: tensor for tensor in graph.initializer}
        readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
        makers = {name: node for node in graph.node for name in node.output}
        kept = []
        for node in graph.node:
            maker = makers.get(node.input[0]) if node.op_type == 'BatchNormalization' else None
            foldable = maker is not None and maker.op_type == 'Conv' and (
                readers[maker.output[0]] == 1
                and readers[maker.input[1]] == 1
                and all(name in constants for name in (*maker.input[1:], *node.input[1:]))
            )
            if not foldable or maker is None:
                kept.append(node)
                continue
            scale, shift, mean, variance = (
                helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:5]
            )
            epsilon = next((a.f for a in node.attribute if a.name == 'epsilon'), 1e-5)
            gain = scale / np.sqrt(variance + epsilon)
            weight = constants[maker.input[1]]
            folded = helper.to_array(weight) * gain.reshape(-1, *[1] * (len(weight.dims) - 1))
            weight.CopyFrom(helper.from_array(folded.astype(np.float32), weight.name))
            bias = helper.to_array(constants[maker.input[2]]) if len(maker.input) > 2 else 0.0
            name = f'{weight.name}_folded_bias'
            values = ((bias - mean) * gain + shift).astype(np.float32)
            graph.initializer.append(helper.from_array(values, name))
            del maker.input[2:]
            maker.input.append(name)
            maker.output[0] = node.output[0]
        del graph.node[:]
        graph.node.extend(kept)

    def _float_values(self) -> set[str]:
        """Return the names of all values of type float32."""
        graph = self._onnx.shape_inference.infer_shapes(self.model).graph
        float32 = self._onnx.TensorProto.FLOAT
        values = (*graph.value_info, *graph.input, *graph.output)
        names = {one.name for one in values if one.type.tensor_type.elem_type == float32}
        return names | {one.name for one in graph.initializer if one.data_type == float32}

    def _fp32_nodes(self) -> set[int]:
        """Return the positions of the nodes that stay as they are."""
        nodes = self.model.graph.node
        only = _FP32_ONLY | (_NOT_BF16 if self._precision == 'bf16' else frozenset())
        makers = {name: index for index, node in enumerate(nodes) for name in node.output}
        kept = {index for index, node in enumerate(nodes) if node.op_type in only}
        # Nodes are in the order of computation: one pass reaches all that follows the inputs.
        early = {value.name for value in self.model.graph.input}
        for index, node in enumerate(nodes):
            if node.op_type not in _PRODUCTS and early & set(node.input):
                kept.add(index)
                early.update(node.output)
        ends = [value.name for value in self.model.graph.output]
        ends += [node.input[1] for node in nodes if node.op_type == 'GridSample']
        seen: set[int] = set()
        while ends:
            position = makers.get(ends.pop())
            if position is None or position in seen or nodes[position].op_type in _PRODUCTS:
                continue
            seen.add(position)
            ends.extend(nodes[position].input)
        return kept | seen

    def _rewrite(self) -> None:
        helper, graph = self._onnx.helper, self.model.graph
        floats = self._float_values()
        fp32_nodes = self._fp32_nodes()
        constants = {tensor.name: tensor for tensor in graph.initializer}
        in_half: set[str] = set()  # values whose maker now gives half precision
        copies: dict[str, str] = {}
        casts: dict[tuple[str, int], str] = {}
        nodes: list[Any] = []

        def cast(name: str, kind: int) -> str:
            key = name, kind
            if key not in casts:
                casts[key] = f'{name}_as_{self._precision if kind == self._half else "fp32"}'
                nodes.append(helper.make_node('Cast', [name], [casts[key]], to=kind))
            return casts[key]

        float32 = self._onnx.TensorProto.FLOAT
        for index, node in enumerate(graph.node):
            # A cast says itself what it gives.
            in_fp32 = index in fp32_nodes or node.op_type == 'Cast'
            for position, name in enumerate(node.input):
                if name not in floats or node.op_type in _READS_SHAPE_ONLY:
                    continue
                if in_fp32 or (node.op_type == 'Resize' and position > 0):
                    if name in in_half:
                        node.input[position] = cast(name, float32)
                elif name in constants:
                    if name not in copies:
                        copies[name] = f'{name}_as_{self._precision}'
                        graph.initializer.append(self._halved(constants[name], copies[name]))
                    node.input[position] = copies[name]
                elif name not in in_half:
                    node.input[position] = cast(name, self._half)
            nodes.append(node)
            if not in_fp32:
                in_half.update(name for name in node.output if name in floats)
        self._give_outputs_in_fp32(nodes, in_half)
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]
        self._drop_unread(name for node in nodes for name in node.input)

    def _give_outputs_in_fp32(self, nodes: list[Any], in_half: set[str]) -> None:
        float32 = self._onnx.TensorProto.FLOAT
        for output in self.model.graph.output:
            if output.name not in in_half:
                continue
            inner = f'{output.name}_as_{self._precision}'
            for node in nodes:
                for names in (node.input, node.output):
                    names[:] = [inner if name == output.name else name for name in names]
            cast = self._onnx.helper.make_node('Cast', [inner], [output.name], to=float32)
            nodes.append(cast)

    def _drop_unread(self, read: Iterable[str]) -> None:
        names, graph = set(read), self.model.graph
        kept = [tensor for tensor in graph.initializer if tensor.name in names]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _halved(self, tensor: Any, name: str) -> Any:
        values = self._onnx.numpy_helper.to_array(tensor)
        result = self._onnx.TensorProto(
            name=name, data_type=self._half, dims=list(tensor.dims), raw_data=b''
        )
        finite = np.abs(values[np.isfinite(values)])
        if self._precision == 'bf16':
            result.raw_data = _bfloat16(values).tobytes()
        elif finite.size and finite.max() > _FP16_LARGEST:
            msg = (
                f'weight {tensor.name!r} reaches {finite.max():.3g}, over the {_FP16_LARGEST:g} '
                'of fp16; take bf16 or fp32'
            )
            raise InferenceError(msg)
        else:
            result.raw_data = values.astype('<f2').tobytes()
        return result


def _bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, '<f4').view('<u4').astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could turn a NaN into infinity.
    return np.where(np.isnan(values), 0x7FC0, rounded).astype('<u2')
