# SPDX-License-Identifier: Apache-2.0
"""The graph against the formulas, pixel by pixel in numpy."""

from __future__ import annotations

from typing import Any

from mtl_perception.manifest import Manifest
from mtl_perception.tasks import LabelSet, Task
import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.graph import PerceptionGraph  # noqa: E402
from mtl_perception.networks.outputs import Outputs  # noqa: E402

Array = npt.NDArray[Any]
FRUIT = LabelSet('fruit', ('apple', 'plum', 'leaf'), ((200, 0, 0), (90, 0, 90), (0, 200, 0)))
TASKS = (
    Task('rows', 'semantic', label_set=FRUIT),
    Task('depth', 'depth'),
    Task('gaps', 'semantic', label_set=FRUIT),
    Task('normals', 'normals'),
    Task('edges', 'edges', edge_meaning='contours'),
)
NAMES = ('rows', 'rows_confidence', 'depth', 'gaps', 'gaps_confidence', 'normals', 'edges')
SIZE = (8, 12)


def make_manifest(tasks: tuple[Task, ...] = TASKS, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        'name': 'graph',
        'system': 'fixed',
        'backbone': 'none',
        'tasks': tasks,
        'network_size': SIZE,
        'reference_focal_px': 100.0,
        'depth_range_m': (0.5, 8.0),
    }
    return Manifest(**{**values, **changes})


class Fixed(torch.nn.Module):  # type: ignore[misc]
    """Gives the same raw maps whatever it sees."""

    def __init__(self, raw: dict[str, Array]) -> None:
        super().__init__()
        self.raw = {name: torch.from_numpy(values) for name, values in raw.items()}

    def forward(self, image: Any) -> Outputs:
        return Outputs(self.raw)


class Echo(torch.nn.Module):  # type: ignore[misc]
    """Gives the normalised image itself as raw normals."""

    def forward(self, image: Any) -> Outputs:
        return Outputs({'normals': image})


def run(network: Any, manifest: Manifest, image: Array, scale: Array) -> dict[str, Array]:
    graph = PerceptionGraph(network, manifest).eval()
    with torch.no_grad():
        maps = graph(torch.from_numpy(image), torch.from_numpy(scale))
    return {name: values.numpy() for name, values in zip(graph.output_names, maps)}


def enlarge(plane: Array, size: tuple[int, int]) -> Array:
    """Interpolate one plane bilinearly, half-pixel centres, borders repeated: the slow way."""
    height, width = plane.shape
    result = np.empty(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = min(max((row + 0.5) * height / size[0] - 0.5, 0.0), height - 1.0)
            x = min(max((column + 0.5) * width / size[1] - 0.5, 0.0), width - 1.0)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            fy, fx = y - y0, x - x0
            top = plane[y0, x0] * (1 - fx) + plane[y0, x1] * fx
            low = plane[y1, x0] * (1 - fx) + plane[y1, x1] * fx
            result[row, column] = top * (1 - fy) + low * fy
    return result


def make_raw() -> dict[str, Array]:
    generator = np.random.default_rng(3)
    shapes = {task.name: (2, task.channels, 2, 3) for task in TASKS}
    raw = {
        name: generator.normal(0.0, 2.0, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    raw['edges'] = generator.normal(0.0, 3.0, (2, 1, *SIZE)).astype(np.float32)  # at full size
    return raw


@pytest.mark.parametrize('label_scale', [1.0, 0.5])
def test_every_output_is_the_slow_decode_of_the_raw_map(label_scale: float) -> None:
    raw = make_raw()
    manifest = make_manifest(label_scale=label_scale)
    scale = np.array([1.0, 1.6], np.float32)
    image = np.zeros((2, *SIZE, 3), np.uint8)
    maps = run(Fixed(raw), manifest, image, scale)
    assert tuple(maps) == NAMES

    labels = (int(8 * label_scale), int(12 * label_scale))
    for index in range(2):
        for name in ('rows', 'gaps'):
            logits = np.stack([enlarge(plane, labels) for plane in raw[name][index]])
            softmax = np.exp(logits) / np.exp(logits).sum(axis=0)
            np.testing.assert_array_equal(maps[name][index], softmax.argmax(axis=0))
            np.testing.assert_allclose(
                maps[f'{name}_confidence'][index], softmax.max(axis=0), rtol=1e-5
            )
        log_depth = enlarge(raw['depth'][index, 0], SIZE)
        depth = np.clip(np.exp(log_depth), 0.5, 8.0) * scale[index]
        np.testing.assert_allclose(maps['depth'][index], depth, rtol=1e-5)
        vectors = np.stack([enlarge(plane, SIZE) for plane in raw['normals'][index]], axis=-1)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        vectors[..., 2] /= scale[index]
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        np.testing.assert_allclose(maps['normals'][index], vectors, atol=1e-5)
        edges = 255.0 / (1.0 + np.exp(-raw['edges'][index, 0].astype(np.float64)))
        np.testing.assert_array_equal(maps['edges'][index], np.floor(edges + 0.5))


def test_types_of_the_outputs() -> None:
    maps = run(
        Fixed(make_raw()),
        make_manifest(),
        np.zeros((2, *SIZE, 3), np.uint8),
        np.ones(2, np.float32),
    )
    kinds = {name: maps[name].dtype.str[1:] for name in ('rows', 'depth', 'normals', 'edges')}
    assert kinds == {'rows': 'u1', 'depth': 'f4', 'normals': 'f4', 'edges': 'u1'}
    assert maps['rows_confidence'].dtype == np.float32
    assert maps['normals'].shape == (2, *SIZE, 3)


def test_image_is_normalised_channel_by_channel() -> None:
    manifest = make_manifest(
        (Task('normals', 'normals'),), mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4)
    )
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    normals = run(Echo(), manifest, image, np.ones(1, np.float32))['normals']
    vectors = (image / 255.0 - [0.1, 0.5, 0.9]) / [0.2, 0.3, 0.4]
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    np.testing.assert_allclose(normals, vectors, atol=1e-5)


@pytest.mark.parametrize('scale', [0.7, 1.0, 1.4])
def test_corrected_depth_and_normals_describe_one_surface(scale: float) -> None:
    """A plane in view of the reference camera stays a plane with its normals for any other."""
    height, width = size = (48, 64)
    reference = 60.0
    normal = np.array([0.3, -0.5, -0.8])
    normal /= np.linalg.norm(normal)
    ys, xs = np.mgrid[:height, :width].astype(np.float64)

    def rays(focal: float) -> Array:
        x, y = (xs - (width - 1) / 2) / focal, (ys - (height - 1) / 2) / focal
        return np.stack((x, y, np.ones_like(x)), axis=-1)

    # The plane n . p = -2: what a perfect network sees at the reference focal length.
    depth = -2.0 / (rays(reference) @ normal)
    raw = {
        'depth': np.log(depth)[None, None].astype(np.float32),
        'normals': np.tile(normal[None, :, None, None] * 3.0, (1, 1, *size)).astype(np.float32),
    }
    manifest = make_manifest(
        (Task('depth', 'depth'), Task('normals', 'normals')),
        network_size=size,
        reference_focal_px=reference,
        depth_range_m=(0.1, 100.0),
    )
    image = np.zeros((1, *size, 3), np.uint8)
    maps = run(Fixed(raw), manifest, image, np.array([scale], np.float32))
    np.testing.assert_allclose(maps['depth'][0], depth * scale, rtol=1e-5)

    # The cloud of the camera at hand, and its normals from neighbouring points.
    cloud = rays(reference * scale) * maps['depth'][0][..., None]
    right = cloud[:-1, 1:] - cloud[:-1, :-1]
    down = cloud[1:, :-1] - cloud[:-1, :-1]
    crossed = np.cross(down, right)
    crossed /= np.linalg.norm(crossed, axis=-1, keepdims=True)
    cosine = np.sum(crossed * maps['normals'][0][:-1, :-1], axis=-1)
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.1
