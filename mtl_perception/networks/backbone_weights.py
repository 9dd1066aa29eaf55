# SPDX-License-Identifier: Apache-2.0
"""Backbone weights from a local safetensors file, strict about what must match."""

from __future__ import annotations

from pathlib import Path
import re

from mtl_perception.networks.errors import NetworkError
from safetensors import SafetensorError
from safetensors.torch import load_file
import torch
from torch import nn, Tensor


def load_backbone_weights(net: nn.Module, path: Path, name: str) -> None:
    """Load the safetensors file ``path`` into ``net``, or say what does not fit."""
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise NetworkError(
            f'cannot read backbone weights {path}: {error}; expected a safetensors file'
        ) from error
    # timm's feature extractors flatten the first level of names: layers_0 for layers.0
    own = {re.sub(r'^([a-z]+)_(\d+)\.', r'\1.\2.', key): key for key in net.state_dict()}
    if missing := [key for key in own if key not in stored]:
        raise NetworkError(
            f'{path} lacks {len(missing)} tensors of backbone {name!r}, first {missing[0]!r}; '
            'use a file with the timm names of this backbone'
        )
    used = {key.split('.')[0] for key in own}
    if foreign := [key for key in stored if key not in own and key.split('.')[0] in used]:
        raise NetworkError(
            f'{path} holds {len(foreign)} tensors that backbone {name!r} does not have, '
            f'first {foreign[0]!r}; use a file of exactly this backbone'
        )
    current = net.state_dict()
    state: dict[str, Tensor] = {}
    for key, target in own.items():
        tensor, wanted = stored[key], current[target]
        if tensor.shape != wanted.shape:
            raise NetworkError(
                f'{path}: tensor {key!r} has shape {tuple(tensor.shape)}, backbone {name!r} '
                f'needs {tuple(wanted.shape)}; use a file of exactly this backbone'
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NetworkError(f'{path}: tensor {key!r} holds NaN or infinity; fetch it again')
        state[target] = tensor
    net.load_state_dict(state)
