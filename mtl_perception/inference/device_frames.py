# SPDX-License-Identifier: Apache-2.0
"""
Run a torch module frame by frame on a device: one copy there, one back, memory allocated once.

On a CUDA device the host's blocks are pinned, and a whole frame (copy, computation, copy) is
captured as one CUDA graph if wanted. Not run on a GPU yet; layout, copies and ownership are
tested with the processor as the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mtl_perception.inference.engine import InferenceError
from mtl_perception.inference.tensorrt_runtime import lay_out
import numpy as np
import numpy.typing as npt
import torch

_WARM_UP_RUNS = 3  # libraries choose their kernels and allocate in the first runs


class _Block:
    """Tensors that lie in one block of the host's memory and in one of the device's."""

    def __init__(
        self, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device
    ) -> None:
        kinds = {name: torch.empty(0, dtype=kind).numpy().dtype for name, (_, kind) in
                 tensors.items()}  # fmt: skip
        shapes = {name: (shape, kinds[name]) for name, (shape, _) in tensors.items()}
        places, total = lay_out(shapes)
        self._there = torch.empty(total, dtype=torch.uint8, device=device)
        self._here = torch.empty(total, dtype=torch.uint8, pin_memory=device.type == 'cuda')
        self.device: dict[str, torch.Tensor] = {}
        self.host: dict[str, npt.NDArray[Any]] = {}
        for name, (shape, kind) in tensors.items():
            length = int(np.prod(shape)) * kinds[name].itemsize
            part = slice(places[name], places[name] + length)
            self.device[name] = self._there[part].view(kind).view(shape)
            self.host[name] = self._here[part].numpy().view(kinds[name]).reshape(shape)

    def upload(self) -> None:
        self._there.copy_(self._here, non_blocking=True)

    def download(self) -> None:
        self._here.copy_(self._there, non_blocking=True)


class _Frames:
    """The memory of frames of one batch size, and what computes one."""

    def __init__(
        self, compute: Callable[..., Sequence[torch.Tensor]], names: Sequence[str],
        image_shape: tuple[int, ...], device: torch.device, *, replay: bool,
    ) -> None:  # fmt: skip
        self._compute, self._device = compute, device
        self.inputs = _Block(
            {
                'image': (image_shape, torch.uint8),
                'depth_scale': (image_shape[:1], torch.float32),
            },
            device,
        )
        # The blocks are uninitialised; a scale of zero would divide by it.
        self.inputs.host['image'].fill(0)
        self.inputs.host['depth_scale'].fill(1.0)
        self.inputs.upload()
        maps = compute(*self.inputs.device.values())
        self.outputs = _Block(
            {name: (tuple(one.shape), one.dtype) for name, one in zip(names, maps)}, device
        )
        self._run: Callable[[], None] = self._capture() if replay else self._frame

    def _frame(self) -> None:
        self.inputs.upload()
        maps = self._compute(*self.inputs.device.values())
        for place, values in zip(self.outputs.device.values(), maps):
            place.copy_(values)
        self.outputs.download()

    def _capture(self) -> Callable[[], None]:
        # Capture must not meet what a first run does, nor another stream's work.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                self._frame()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._frame()
        replay: Callable[[], None] = graph.replay
        return replay

    def run(self) -> dict[str, npt.NDArray[Any]]:
        self._run()
        if self._device.type == 'cuda':
            torch.cuda.current_stream().synchronize()
        return {name: values.copy() for name, values in self.outputs.host.items()}


class DeviceFrames:
    """
    Computes maps from images in the host's memory, with memory of its own for each batch size.

    :param compute: takes image uint8 (B, H, W, 3) and depth_scale float32 (B,) on the device
        and returns the maps there
    :param names: of the maps, in their order
    :param replay: capture a frame as a CUDA graph and replay it

    Raises
    ------
    InferenceError
        If the device fails, also when its memory runs out.

    """

    def __init__(
        self, compute: Callable[..., Sequence[torch.Tensor]], names: Sequence[str],
        device: torch.device, *, replay: bool = False,
    ) -> None:  # fmt: skip
        self._compute, self._names = compute, tuple(names)
        self._device, self._replay = device, replay
        self._by_batch: dict[int, _Frames] = {}

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by name (see `Engine.run`)."""
        try:
            frames = self._by_batch.get(len(image))
            if frames is None:
                frames = self._by_batch[len(image)] = _Frames(
                    self._compute, self._names, image.shape, self._device, replay=self._replay
                )
            frames.inputs.host['image'][...] = image
            frames.inputs.host['depth_scale'][...] = depth_scale
            return frames.run()
        except RuntimeError as error:  # of which torch's CUDA errors are kinds
            msg = f'{self._device} failed: {str(error).splitlines()[0]}'
            raise InferenceError(msg) from error
