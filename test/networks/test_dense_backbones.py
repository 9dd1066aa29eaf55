# SPDX-License-Identifier: Apache-2.0
"""HRNet and Swin as dense prediction uses them, against slow references from the formulas."""

from __future__ import annotations

from itertools import product

from mtl_perception.networks.backbones import build_backbone
from mtl_perception.networks.dense_backbones import PadFirstBlock
import numpy as np
import pytest
import torch
from torch import nn

WINDOW, SHIFT = 7, 3


def bilinear(values: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge (H, W): a pixel's centre is at an integer, borders are repeated."""
    height, width = values.shape
    result = np.zeros((height * factor, width * factor))
    for y, x in product(range(height * factor), range(width * factor)):
        v = min(max((y + 0.5) / factor - 0.5, 0), height - 1)
        u = min(max((x + 0.5) / factor - 0.5, 0), width - 1)
        top, left = int(v), int(u)
        low, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = values[top, left] * (1 - u % 1) + values[top, right] * (u % 1)
        lower = values[low, left] * (1 - u % 1) + values[low, right] * (u % 1)
        result[y, x] = upper * (1 - v % 1) + lower * (v % 1)
    return result


def test_hrnet_enlarges_coarser_levels_bilinearly():
    net = build_backbone('hrnet_w18_small_v2').net.eval().double()
    layers = [
        layer for layer in net.modules()
        if isinstance(layer, nn.Sequential) and isinstance(layer[-1], nn.Upsample)
    ]
    assert {int(layer[-1].scale_factor) for layer in layers} == {2, 4, 8}
    for layer in layers[:3]:
        values = torch.randn(1, layer[0].in_channels, 3, 4, dtype=torch.float64)
        with torch.no_grad():
            coarse, fine = layer[:-1](values), layer(values)
        expected = bilinear(coarse[0, 0].numpy(), int(layer[-1].scale_factor))
        np.testing.assert_allclose(fine[0, 0].numpy(), expected, atol=1e-12)


def slow_attention(block: PadFirstBlock, x: np.ndarray, shift: int) -> np.ndarray:
    """
    Shifted-window attention of (H, W, C), one pixel at a time.

    The padded map is cut into windows of which each begins `shift` pixels later than the grid's,
    the last ones holding the rows and columns that came round; a pixel sees those of its window
    from its own side of the map. Padding is zero and is seen.
    """
    attention = block.attn
    heads, width = attention.num_heads, x.shape[2]
    depth = width // heads
    height, length = (-(-side // WINDOW) * WINDOW for side in x.shape[:2])
    padded = np.zeros((height, length, width))
    padded[: x.shape[0], : x.shape[1]] = x
    weight, bias = (each.detach().numpy() for each in attention.qkv.parameters())
    query, key, value = np.split(padded @ weight.T + bias, 3, axis=-1)
    table = attention.relative_position_bias_table.detach().numpy()
    project, offset = (each.detach().numpy() for each in attention.proj.parameters())

    def place(position: int, side: int) -> tuple[int, bool]:
        """Return the window along one axis, and whether the pixel came round into it."""
        moved = (position - shift) % side
        return moved // WINDOW, position < shift

    result = np.zeros(x.shape)
    for y, u in product(range(x.shape[0]), range(x.shape[1])):
        mine = place(y, height), place(u, length)
        seen = [
            (v, w) for v, w in product(range(height), range(length))
            if (place(v, height), place(w, length)) == mine
        ]
        joined = np.zeros(width)
        for head in range(heads):
            part = slice(head * depth, (head + 1) * depth)
            scores = np.array([
                query[y, u, part] @ key[v, w, part] / np.sqrt(depth)
                + table[
                    ((y - shift) % height - (v - shift) % height + WINDOW - 1) * (2 * WINDOW - 1)
                    + (u - shift) % length - (w - shift) % length + WINDOW - 1, head
                ]
                for v, w in seen
            ])
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
            joined[part] = sum(s * value[v, w, part] for s, (v, w) in zip(scores, seen))
        result[y, u] = project @ joined + offset
    return result


@pytest.mark.parametrize('index', [0, 1])
def test_swin_pads_before_it_shifts(index):
    """No row attends to those at the other end of the map, whole windows or not."""
    torch.manual_seed(index)
    block = build_backbone('swin_tiny').net.layers_0.blocks[index].double().eval()
    assert isinstance(block, PadFirstBlock)
    nn.init.normal_(block.attn.relative_position_bias_table)
    nn.init.normal_(block.attn.qkv.bias)
    nn.init.normal_(block.attn.qkv.weight, std=0.3)
    x = torch.randn(1, 9, 12, block.attn.qkv.in_features, dtype=torch.float64)
    with torch.no_grad():
        found = block._attn(x)[0].numpy()
    expected = slow_attention(block, x[0].numpy(), SHIFT * index)
    np.testing.assert_allclose(found, expected, atol=1e-9)
