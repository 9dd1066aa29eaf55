# SPDX-License-Identifier: Apache-2.0
"""Sets of tasks beyond the standard four, from the network to the camera's size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.manifest import load_manifest, Manifest
from mtl_perception.tasks import LabelSet, load_label_set, Task
from mtl_perception.values import Frame
import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.bundle import load_network, save_bundle  # noqa: E402
from mtl_perception.inference.engine import open_engine  # noqa: E402
from mtl_perception.inference.perceiver import Perceiver  # noqa: E402
from mtl_perception.networks.build import build_network  # noqa: E402

SIZE = (64, 96)
GROUND = LabelSet('ground', ('other', 'road', 'path'), ((0, 0, 0), (99, 99, 99), (9, 99, 9)))
MOVERS = LabelSet('movers', ('none', 'car', 'person', 'dog'), ((0, 0, 0),) * 4)
SIX = (
    Task('ground', 'semantic', label_set=GROUND),
    Task('body_parts', 'parts', label_set=load_label_set('pascal_parts7')),
    Task('range', 'depth'),
    Task('movers', 'semantic', label_set=MOVERS),
    Task('facing', 'normals'),
    Task('attention', 'saliency'),
)


def _bundle(tasks: tuple[Task, ...], directory: Path, system: str = 'multi_task') -> Any:
    torch.manual_seed(4)
    network = build_network(system, tasks, backbone='mobilenetv2_100', neck=(4, 4, 4, 4))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                # An untrained head says nearly the same everywhere: make its maps vary.
                module.weight.mul_(8)
    manifest = Manifest(
        name='tasks', system=system, backbone='mobilenetv2_100', neck=(4, 4, 4, 4), tasks=tasks,
        network_size=SIZE, reference_focal_px=80.0, depth_range_m=(0.2, 20.0),
    )
    save_bundle(network, manifest, directory, _image(1))
    return network.eval()


def _image(seed: int) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, 0), 8, 1)


def _expected(network: Any, image: npt.NDArray[np.uint8], scale: float) -> dict[str, Any]:
    """Return what each task's raw map means, pixel by pixel, in float64."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = ((image / 255 - mean) / std).transpose(2, 0, 1)[None]
    with torch.no_grad():
        raws = network(torch.tensor(normalised, dtype=torch.float32)).maps
    values: dict[str, Any] = {}
    for task in SIX:
        raw = torch.nn.functional.interpolate(
            raws[task.name].double(), SIZE, mode='bilinear', align_corners=False
        )[0].numpy()
        if task.label_set is not None:
            odds = np.exp(raw - raw.max(0))
            values[task.name] = raw.argmax(0), odds.max(0) / odds.sum(0)
        elif task.kind == 'depth':
            values[task.name] = np.exp(raw[0]).clip(0.2, 20) * scale
        elif task.kind == 'normals':
            turned = raw / np.array([1, 1, scale])[:, None, None]
            values[task.name] = (turned / np.linalg.norm(turned, axis=0)).transpose(1, 2, 0)
        else:
            values[task.name] = 255 / (1 + np.exp(-raw[0]))
    return values


def test_six_tasks_go_from_the_network_to_the_camera(tmp_path: Path) -> None:
    network = _bundle(SIX, tmp_path / 'six')
    manifest = load_manifest(tmp_path / 'six')
    assert manifest.tasks == SIX
    assert manifest.output_names == (
        'ground', 'ground_confidence', 'body_parts', 'body_parts_confidence', 'range',
        'movers', 'movers_confidence', 'facing', 'attention',
    )  # fmt: skip
    card = (tmp_path / 'six' / 'README.md').read_text()
    assert '7 classes: background, head, torso' in card
    assert '| `attention` | saliency | 96x64 | probability' in card
    image = _image(2)
    camera = CameraModel(96, 64, 120.0, 120.0, 47.5, 31.5)
    with open_engine(tmp_path / 'six', 'onnxruntime', threads=1) as engine:
        maps = Perceiver(engine).perceive(Frame(image, 0, 'camera', camera))
    expected = _expected(network, image, 1.5)
    for name in ('ground', 'body_parts', 'movers'):
        labels, confidence = expected[name]
        assert maps.maps[name].dtype == np.uint8
        assert len(np.unique(labels)) > 1, name
        # Where two classes are equally likely, single precision may choose the other.
        assert np.mean(maps.maps[name] != labels) < 0.002
        np.testing.assert_allclose(maps.confidence[name], confidence, atol=2e-4)
    np.testing.assert_allclose(maps.maps['range'], expected['range'], rtol=1e-3)
    np.testing.assert_allclose(maps.maps['facing'], expected['facing'], atol=2e-3)
    assert maps.maps['attention'].dtype == np.uint8
    assert np.ptp(expected['attention']) > 2
    np.testing.assert_allclose(maps.maps['attention'], expected['attention'], atol=0.6)


def _shapes(network: Any, tasks: tuple[Task, ...]) -> Mapping[str, tuple[int, ...]]:
    with torch.no_grad():
        return {name: tuple(each.shape[:2]) for name, each in network(torch.rand(1, 3, *SIZE))
                .maps.items()}


@pytest.mark.parametrize('count', [1, 2, 3, 4, 5, 6])
def test_every_number_of_tasks_is_built_and_reloaded(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        'mtl_perception.bundle.export_onnx', lambda graph, manifest, weights: b'graph'
    )
    tasks = SIX[-count:]
    _bundle(tasks, tmp_path / 'some', 'mti_net')
    network, manifest = load_network(tmp_path / 'some')
    assert manifest.tasks == tasks
    assert _shapes(network, tasks) == {task.name: (1, task.channels) for task in tasks}
