# SPDX-License-Identifier: Apache-2.0
"""Bundles: what is saved comes back, and anything else gives one error that says what."""

from __future__ import annotations

from dataclasses import replace
import hashlib
import json
from pathlib import Path
import pickle
import shutil
from typing import Any

from mtl_perception.manifest import BundleError, load_manifest, Manifest, save_manifest
from mtl_perception.tasks import standard_tasks, Task
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mtl_perception import bundle as bundle_module  # noqa: E402
from mtl_perception.bundle import load_network, save_bundle, verify_bundle  # noqa: E402
from mtl_perception.networks.build import build_network  # noqa: E402
from mtl_perception.networks.decoding import decode_depth  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

SIZE = (64, 96)


@pytest.fixture
def copied(small_bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle that the test may damage."""
    return shutil.copytree(small_bundle, tmp_path / 'copied')


def stub_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the ONNX export out, which takes most of the time of saving."""
    monkeypatch.setattr(bundle_module, 'export_onnx', lambda graph, manifest, weights: b'graph')


def make(**changes: Any) -> tuple[Any, Manifest]:
    """Return a depth network and its manifest."""
    tasks = (Task('depth', 'depth'),)
    torch.manual_seed(2)
    network = build_network('single_task', tasks, backbone='resnet18', neck=(4, 4, 4, 4))
    values: dict[str, Any] = {
        'name': 'depth only',
        'system': 'single_task',
        'backbone': 'resnet18',
        'tasks': tasks,
        'network_size': SIZE,
        'reference_focal_px': 80.0,
        'depth_range_m': (0.2, 20.0),
        'neck': (4, 4, 4, 4),
    }
    return network, Manifest(**{**values, **changes})


def check_image(size: tuple[int, int] = SIZE) -> Any:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def reseal(directory: Path) -> None:
    """Make the digests in the manifest those of the files as they are now."""
    manifest = load_manifest(directory)
    digests = {
        name: hashlib.sha256((directory / name).read_bytes()).hexdigest()
        for name in manifest.files
    }
    save_manifest(replace(manifest, files=digests), directory)


def test_the_five_files_and_their_digests(small_bundle: Path) -> None:
    names = {path.name for path in small_bundle.iterdir()}
    assert names == {
        'bundle.json', 'weights.safetensors', 'graph.onnx', 'check.safetensors', 'README.md'
    }
    for name, digest in load_manifest(small_bundle).files.items():
        assert hashlib.sha256((small_bundle / name).read_bytes()).hexdigest() == digest
    assert all(path.stat().st_mode & 0o044 for path in small_bundle.iterdir())


def test_network_comes_back_weight_by_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_export(monkeypatch)
    network, manifest = make()
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    saved = save_bundle(network, manifest, tmp_path / 'b', check_image())
    assert network.training
    loaded, loaded_manifest = load_network(tmp_path / 'b')
    assert not loaded.training
    assert loaded_manifest == saved
    assert replace(saved, files={}) == manifest
    state = loaded.state_dict()
    assert list(state) == list(before)
    for name, tensor in before.items():
        assert torch.equal(state[name], tensor), name


def test_check_file_holds_the_frame_and_what_the_network_says_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_export(monkeypatch)
    network, manifest = make()
    image = check_image()
    save_bundle(network, manifest, tmp_path / 'b', image)
    check = load_file(tmp_path / 'b' / 'check.safetensors')
    np.testing.assert_array_equal(check['input.image'], image[None])
    scale = check['input.depth_scale']
    assert scale.shape == (1,)
    assert scale[0] != 1.0
    # The same by hand: normalise, run, enlarge, decode.
    pixels = (image / 255.0 - manifest.mean) / manifest.std
    tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    with torch.no_grad():
        raw = network.eval()(tensor).maps['depth']
        raw = torch.nn.functional.interpolate(raw, SIZE, mode='bilinear')
        depth = decode_depth(raw, (0.2, 20.0)).numpy() * scale[0]
    np.testing.assert_allclose(check['output.depth'], depth, rtol=1e-5)


def test_verify_finds_a_sound_bundle_in_agreement(small_bundle: Path) -> None:
    errors = verify_bundle(small_bundle)
    assert set(errors) == {'semantic', 'depth', 'normals', 'edges'}
    assert errors['semantic'] <= 1e-4
    assert errors['depth'] <= 1e-4
    assert errors['normals'] <= 0.01


def test_verify_notices_maps_that_the_network_does_not_give(copied: Path) -> None:
    path = copied / 'check.safetensors'
    check = load_file(path)
    check['output.depth'] = check['output.depth'] * np.float32(1.002)
    save_file(check, path)
    reseal(copied)
    with pytest.raises(BundleError, match=r"check\.safetensors: 'depth' is 0\.00[12]"):
        verify_bundle(copied)


@pytest.mark.parametrize('label_scale', [0.5, 1.0])
def test_half_size_labels_are_priced_in_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label_scale: float
) -> None:
    stub_export(monkeypatch)
    tasks = standard_tasks('rooms')[:1]
    network, manifest = make(tasks=tasks, label_scale=label_scale)
    network = build_network('single_task', tasks, backbone='resnet18', neck=(4, 4, 4, 4))
    save_bundle(network, manifest, tmp_path / 'b', check_image())
    labels = load_file(tmp_path / 'b' / 'check.safetensors')['output.semantic'][0]
    step = round(1 / label_scale)
    assert labels.shape == (SIZE[0] // step, SIZE[1] // step)
    image = torch.from_numpy(check_image()).permute(2, 0, 1)[None] / 255.0
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (manifest.mean, manifest.std))
    with torch.no_grad():
        raw = network.eval()((image - mean) / std).maps['semantic']
        full, half = (
            torch.nn.functional.interpolate(raw, size, mode='bilinear').argmax(1)[0].numpy()
            for size in (SIZE, (SIZE[0] // 2, SIZE[1] // 2))
        )
    np.testing.assert_array_equal(labels, full if label_scale == 1.0 else half)
    share = np.mean(np.kron(half, np.ones((2, 2))) != full)
    assert share > 0
    assert f'{share:.2%} of the pixels' in (tmp_path / 'b' / 'README.md').read_text()


@pytest.mark.parametrize(
    'image', [check_image((32, 32)), check_image().astype(np.float32), check_image()[..., :1]]
)
def test_check_image_must_be_a_frame_at_network_size(tmp_path: Path, image: Any) -> None:
    with pytest.raises(BundleError, match=r'check_image is .* give uint8 \(64, 96, 3\)'):
        save_bundle(*make(), tmp_path / 'b', image)
    assert not (tmp_path / 'b').exists()


def test_failed_save_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_export(monkeypatch)
    network, manifest = make()
    save_bundle(network, manifest, tmp_path / 'b', check_image())
    digests = load_manifest(tmp_path / 'b').files
    with torch.no_grad():
        network.heads['depth'].predict.bias.fill_(float('nan'))
    with pytest.raises(BundleError, match="NaN or infinity for 'depth'"):
        save_bundle(network, manifest, tmp_path / 'b', check_image())
    assert [path.name for path in tmp_path.iterdir()] == ['b']
    load_network(tmp_path / 'b')
    assert load_manifest(tmp_path / 'b').files == digests


def test_manifest_of_another_network_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub_export(monkeypatch)
    network, manifest = make()
    with pytest.raises(BundleError, match=r'weights\.safetensors: the weights do not fit'):
        save_bundle(network, replace(manifest, neck=(8, 8, 8, 8)), tmp_path / 'b', check_image())
    with pytest.raises(BundleError, match=r"fields 'system'.*unknown backbone 'vgg'"):
        save_bundle(network, replace(manifest, backbone='vgg'), tmp_path / 'b', check_image())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['weights.safetensors', 'check.safetensors', 'graph.onnx'])
def test_one_changed_byte_is_noticed(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[-100] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}.*'files' of bundle.json"):
        verify_bundle(copied)


def test_truncated_weights_are_noticed(copied: Path) -> None:
    path = copied / 'weights.safetensors'
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BundleError, match=r'weights\.safetensors.*cut short'):
        load_network(copied)
    # Even where the digest was made to fit.
    reseal(copied)
    with pytest.raises(BundleError, match=r'weights\.safetensors: not readable as safetensors'):
        load_network(copied)


def test_weights_of_another_network_are_named(copied: Path) -> None:
    path = copied / 'weights.safetensors'
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith('.weight'))
    tensors['foreign.weight'] = tensors.pop(name)
    save_file(tensors, path)
    reseal(copied)
    with pytest.raises(BundleError, match=r'do not fit mti_net on mobilenetv2_100(.|\n)*foreign'):
        load_network(copied)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_loading_runs_no_code(copied: Path, tmp_path: Path) -> None:
    mark = tmp_path / 'executed'
    for name in ('weights.safetensors', 'check.safetensors'):
        (copied / name).write_bytes(pickle.dumps(Bomb(mark)))
    reseal(copied)
    with pytest.raises(BundleError, match='not readable as safetensors'):
        verify_bundle(copied)
    torch.save(Bomb(mark), copied / 'weights.safetensors')
    reseal(copied)
    with pytest.raises(BundleError, match='not readable as safetensors'):
        load_network(copied)
    assert not mark.exists()


def test_system_of_a_newer_version_is_named(copied: Path) -> None:
    document = json.loads((copied / 'bundle.json').read_text())
    save_manifest(replace(load_manifest(copied), system='mti_net_3'), copied)
    assert document['system'] == 'mti_net'
    with pytest.raises(BundleError, match=r"fields 'system'.*'mti_net_3'"):
        load_network(copied)
