# SPDX-License-Identifier: Apache-2.0
"""Tasks, random weights and slow references for the network tests."""

from __future__ import annotations

from collections.abc import Callable

from mtl_perception.networks import Network
from mtl_perception.tasks import LabelSet, Task
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

Array = npt.NDArray[np.float64]


def semantic_task(classes: int, name: str = 'semantic', kind: str = 'semantic') -> Task:
    """Return a task with so many classes."""
    colours = tuple((index, 0, 0) for index in range(classes))
    names = tuple(f'class_{index}' for index in range(classes))
    return Task(name, kind, label_set=LabelSet(f'test{classes}', names, colours))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def classes() -> Callable[..., Task]:
    """Build semantic tasks: ``classes(40)``, ``classes(7, 'parts')``."""
    return semantic_task


@pytest.fixture
def pascal() -> tuple[Task, ...]:
    """Return the five tasks of PASCAL-Context: 21 classes, 7 parts, saliency, normals, edges."""
    return (
        semantic_task(21),
        semantic_task(7, 'parts', 'parts'),
        Task('saliency', 'saliency'),
        Task('normals', 'normals'),
        Task('edges', 'edges', edge_meaning='contours'),
    )


@pytest.fixture
def four_tasks() -> tuple[Task, ...]:
    """Semantic with 5 classes, depth, normals, edges."""
    return (
        semantic_task(5),
        Task('depth', 'depth'),
        Task('normals', 'normals'),
        Task('edges', 'edges', edge_meaning='contours'),
    )


def _randomise(module: nn.Module) -> nn.Module:
    """Give every parameter and statistic a random value at which signals keep their scale."""
    generator = torch.Generator().manual_seed(1)

    def normal(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    with torch.no_grad():
        for part in module.modules():
            for name, parameter in part.named_parameters(recurse=False):
                if parameter.dim() > 1:
                    parameter.copy_(normal(parameter) / parameter[0].numel() ** 0.5)
                elif name == 'weight':
                    parameter.copy_(1 + 0.2 * normal(parameter))
                else:
                    parameter.copy_(0.2 * normal(parameter))
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.copy_(0.2 * normal(part.running_mean))
                part.running_var.copy_(1 + 0.5 * torch.rand(part.running_var.shape,
                                                            generator=generator))
    return module


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Randomise all parameters in place and return the module."""
    return _randomise


class Reference:
    """Layers written from their formulas in plain numpy, float64, on one image (C, h, w)."""

    @staticmethod
    def convolution(x: Array, layer: nn.Conv2d) -> Array:
        """Correlate with a zero border, one kernel tap after the other."""
        weight = layer.weight.detach().numpy().astype(np.float64)
        reach = weight.shape[-1] // 2 * layer.dilation[0]
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        y = np.zeros((weight.shape[0], *x.shape[1:]))
        for row in range(weight.shape[2]):
            for column in range(weight.shape[3]):
                top, left = row * layer.dilation[0], column * layer.dilation[0]
                window = padded[:, top : top + x.shape[1], left : left + x.shape[2]]
                y += np.tensordot(weight[:, :, row, column], window, (1, 0))
        if layer.bias is not None:
            y += layer.bias.detach().numpy()[:, None, None]
        return y

    @staticmethod
    def norm(x: Array, layer: nn.BatchNorm2d) -> Array:
        """Normalise with the running statistics."""
        mean, var = layer.running_mean.numpy(), layer.running_var.numpy()
        gamma, beta = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        scale = gamma / np.sqrt(var + layer.eps)
        return (x - mean[:, None, None]) * scale[:, None, None] + beta[:, None, None]

    @staticmethod
    def sigmoid(x: Array) -> Array:
        """1 / (1 + exp(-x))."""
        return 1 / (1 + np.exp(-x))

    @classmethod
    def chain(cls, x: Array, layers: nn.Sequential) -> Array:
        """Run convolutions, norms, ReLUs and residual blocks one after the other."""
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                x = cls.convolution(x, layer)
            elif isinstance(layer, nn.BatchNorm2d):
                x = cls.norm(x, layer)
            elif isinstance(layer, nn.ReLU):
                x = np.maximum(x, 0)
            else:
                x = cls.residual(x, layer)
        return x

    @classmethod
    def residual(cls, x: Array, block: nn.Module) -> Array:
        """Run a basic block (two convolutions) or a bottleneck (three)."""
        steps = [(block.conv1, block.norm1), (block.conv2, block.norm2)]
        if hasattr(block, 'conv3'):
            steps.append((block.conv3, block.norm3))
        y = x
        for index, (convolution, norm) in enumerate(steps):
            y = cls.norm(cls.convolution(y, convolution), norm)
            if index < len(steps) - 1:
                y = np.maximum(y, 0)
        straight = x
        if isinstance(block.shortcut, nn.Sequential):
            straight = cls.chain(x, block.shortcut)
        return np.maximum(y + straight, 0)


@pytest.fixture
def reference() -> type[Reference]:
    """Return the slow reference layers."""
    return Reference


def _synthetic_frames(size: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return four frames of coloured rectangles, each colour with its label, depth and normal."""
    generator = np.random.default_rng(3)
    palette = generator.normal(0, 1.5, (5, 3))
    depths = np.array([1.0, 1.6, 2.4, 3.5, 5.0])
    directions = generator.normal(0, 1, (5, 3)) * (1, 1, 0.3) - (0, 0, 1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    labels = np.zeros((4, size, size), np.int64)
    for frame in labels:
        for label in range(1, 5):
            top, left = generator.integers(0, size // 2, 2)
            height, width = generator.integers(size // 4, size // 2, 2)
            frame[top : top + height, left : left + width] = label
    image = palette[labels] + generator.normal(0, 0.1, (*labels.shape, 3))
    edges = np.zeros(labels.shape)
    edges[:, :, 1:] += labels[:, :, 1:] != labels[:, :, :-1]
    edges[:, 1:] += labels[:, 1:] != labels[:, :-1]
    return torch.from_numpy(image).permute(0, 3, 1, 2).float(), {
        'semantic': torch.from_numpy(labels),
        'depth': torch.from_numpy(depths[labels]).float(),
        'normals': torch.from_numpy(directions[labels]).permute(0, 3, 1, 2).float(),
        'edges': torch.from_numpy(edges > 0).float(),
    }


def _full_size(raw: torch.Tensor, size: int) -> torch.Tensor:
    return nn.functional.interpolate(raw.float(), (size, size), mode='bilinear')


def _losses(maps: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    size = targets['semantic'].shape[-1]
    total = torch.zeros(())
    for name, raw in maps.items():
        raw, target = _full_size(raw, size), targets[name]
        if name == 'semantic':
            total = total + nn.functional.cross_entropy(raw, target)
        elif name == 'depth':
            total = total + (raw[:, 0] - target.log()).abs().mean()
        elif name == 'normals':
            total = total + 2 * (1 - nn.functional.cosine_similarity(raw, target)).mean()
        else:
            weight = torch.tensor(5.0)
            total = total + nn.functional.binary_cross_entropy_with_logits(
                raw[:, 0], target, pos_weight=weight
            )
    return total


def _overfit(network: Network, steps: int, size: int = 64, rate: float = 3e-3) -> dict[str, float]:
    """Train on four frames and return their mIoU, AbsRel and mean angle away from borders."""
    image, targets = _synthetic_frames(size)
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    network.train()
    for _ in range(steps):
        outputs = network(image)
        loss = _losses(outputs.maps, targets)
        for scale in outputs.auxiliary:
            loss = loss + _losses(scale, targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        maps = {name: _full_size(raw, size) for name, raw in network(image).maps.items()}
    near_border = nn.functional.max_pool2d(targets['edges'][:, None], 9, 1, 4)[:, 0] > 0
    inside = ~near_border
    label, truth = maps['semantic'].argmax(1)[inside], targets['semantic'][inside]
    overlaps = [
        float(((label == c) & (truth == c)).sum() / ((label == c) | (truth == c)).sum())
        for c in truth.unique()
    ]
    scores = {'miou': float(np.mean(overlaps))}
    if 'depth' in maps:
        depth = maps['depth'][:, 0].exp()
        ratio = ((depth - targets['depth']).abs() / targets['depth'])[inside]
        scores['abs_rel'] = float(ratio.mean())
    if 'normals' in maps:
        cosine = nn.functional.cosine_similarity(maps['normals'], targets['normals'])[inside]
        scores['degrees'] = float(cosine.clamp(-1, 1).arccos().rad2deg().mean())
    return scores


@pytest.fixture
def overfit() -> Callable[..., dict[str, float]]:
    """Train a network on four synthetic frames: ``overfit(network, steps)``."""
    return _overfit
