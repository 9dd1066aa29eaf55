# SPDX-License-Identifier: Apache-2.0
"""The manifest: what it accepts, what it refuses, and that nothing else passes for one."""

from __future__ import annotations

import copy
from dataclasses import replace
import hashlib
import json
from pathlib import Path
import shutil
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mtl_perception.manifest import (
    BundleError,
    default_bundle,
    default_label_scale,
    load_manifest,
    Manifest,
    save_manifest,
    verify_files,
)
from mtl_perception.tasks import LabelSet, Task
import pytest

FILES = ('weights.safetensors', 'graph.onnx', 'check.safetensors', 'README.md')
COLOURS = LabelSet('fruit', ('apple', 'plum'), ((200, 30, 30), (90, 20, 120)))
TASKS = (
    Task('rows', 'semantic', label_set=COLOURS),
    Task('depth', 'depth'),
    Task('gaps', 'edges', edge_meaning='depth_jumps'),
)


def make(**changes: Any) -> Manifest:
    """Return a manifest in which no optional field has its default."""
    values: dict[str, Any] = {
        'name': 'orchard',
        'system': 'mti_net',
        'backbone': 'resnet18',
        'tasks': TASKS,
        'network_size': (96, 128),
        'reference_focal_px': 120.5,
        'depth_range_m': (0.2, 30.0),
        'mode': 'published',
        'neck': (8, 16, 24, 32),
        'auxiliary': (Task('normals', 'normals'),),
        'label_scale': 0.5,
        'mean': (0.5, 0.4, 0.3),
        'std': (0.2, 0.21, 0.22),
        'description': 'Sees fruit.',
        'limitations': ('Blind at night.',),
        'provenance': {'epochs': 3, 'seeds': [1, 2], 'data': {'name': 'orchard'}},
        'scores': {'this': {'iou': 0.5, 'rmse': None}, 'constant': {'iou': 0.1}},
        'files': {name: hashlib.sha256(name.encode()).hexdigest() for name in FILES},
    }
    return Manifest(**{**values, **changes})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a directory with a manifest and files of the digests in it."""
    for name in FILES:
        (tmp_path / name).write_bytes(name.encode())
    save_manifest(make(), tmp_path)
    return tmp_path


def edit(directory: Path, **changes: Any) -> None:
    """Change fields of the file as somebody with an editor would."""
    path = directory / 'bundle.json'
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def test_what_was_saved_is_loaded(bundle: Path) -> None:
    assert load_manifest(bundle) == make()


def test_file_is_plain_json_with_the_label_set_inside(bundle: Path) -> None:
    document = json.loads((bundle / 'bundle.json').read_text())
    assert document['format_version'] == 1
    assert document['network_size'] == [96, 128]
    assert document['tasks'][0]['label_set']['names'] == ['apple', 'plum']
    assert document['tasks'][0]['label_set']['colours'] == [[200, 30, 30], [90, 20, 120]]
    assert document['auxiliary'] == [{'name': 'normals', 'kind': 'normals'}]


def test_scores_that_could_not_be_computed_become_null(tmp_path: Path) -> None:
    save_manifest(make(scores={'this': {'iou': float('nan')}}), tmp_path)
    assert load_manifest(tmp_path).scores == {'this': {'iou': None}}


def test_sizes_and_output_names() -> None:
    manifest = make(network_size=(480, 640), label_scale=1 / 4)
    assert manifest.label_step == 4
    assert manifest.label_size == (120, 160)
    assert manifest.output_names == ('rows', 'rows_confidence', 'depth', 'gaps')


@pytest.mark.parametrize(
    ('size', 'scale'),
    [
        ((480, 640), 0.5), ((479, 640), 1.0), ((240, 320), 1.0), ((512, 513), 1.0),
        ((544, 480), 0.5),
    ],
)  # fmt: skip
def test_labels_are_halved_from_480_pixels_on(size: tuple[int, int], scale: float) -> None:
    assert default_label_scale(size) == scale
    assert make(network_size=size, label_scale=scale).label_step == round(1 / scale)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('name', ''),
        ('system', None),
        ('backbone', 7),
        ('description', None),
        ('tasks', ()),
        ('tasks', (Task('depth', 'depth'), Task('depth', 'depth'))),
        ('tasks', (TASKS[0], Task('rows_confidence', 'depth'))),
        ('auxiliary', ['normals']),
        ('network_size', (0, 128)),
        ('network_size', (96.0, 128)),
        ('network_size', (96,)),
        ('label_scale', 0.0),
        ('label_scale', 2.0),
        ('label_scale', 0.3),
        ('label_scale', 1 / 5),  # 96 is no multiple of 5
        ('label_scale', float('nan')),
        ('neck', (8, 0)),
        ('mean', (123.7, 116.3, 103.5)),  # of 0..255, a common mistake
        ('std', (0.0, 0.2, 0.2)),
        ('reference_focal_px', -1.0),
        ('reference_focal_px', float('inf')),
        ('depth_range_m', (5.0, 1.0)),
        ('depth_range_m', (0.0, 1.0)),
        ('limitations', 'a string, not a list of them'),
        ('provenance', {'path': Path('somewhere')}),
        ('scores', {'this': 0.5}),
        ('files', {'graph.onnx': 12}),
    ],
)
def test_senseless_fields_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(BundleError, match=f"'{field}'"):
        make(**{field: value})


def test_senseless_score_is_named_whole() -> None:
    with pytest.raises(BundleError, match=r"'scores\.this\.iou' is 'high'"):
        make(scores={'this': {'iou': 'high'}})


def test_missing_directory_and_foreign_directory(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match='nowhere is not a bundle: there is no such directory'):
        load_manifest(tmp_path / 'nowhere')
    (tmp_path / 'config.json').write_text('{}')
    with pytest.raises(BundleError, match=r'has no bundle\.json'):
        load_manifest(tmp_path)


def test_manifest_cut_anywhere_is_refused(bundle: Path) -> None:
    path = bundle / 'bundle.json'
    content = path.read_bytes()
    for length in range(0, len(content) - 2, 97):
        path.write_bytes(content[:length])
        with pytest.raises(BundleError, match=r'bundle\.json: not readable as JSON'):
            load_manifest(bundle)


@pytest.mark.parametrize('text', ['[]', '3', 'null', '{"model_type": "bert"}', '{"a": {}}'])
def test_foreign_json_is_refused(bundle: Path, text: str) -> None:
    (bundle / 'bundle.json').write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.json: field 'format_version' is missing"):
        load_manifest(bundle)


def test_newer_format_says_upgrade(bundle: Path) -> None:
    edit(bundle, format_version=2, some_new_field=1)
    with pytest.raises(BundleError, match=r"bundle\.json: field 'format_version' is 2.*upgrade"):
        load_manifest(bundle)


@pytest.mark.parametrize('version', [0, -1, '1', 1.0, True, None])
def test_format_version_is_a_whole_number(bundle: Path, version: Any) -> None:
    edit(bundle, format_version=version)
    with pytest.raises(BundleError, match="'format_version'"):
        load_manifest(bundle)


def test_edited_value_is_noticed(bundle: Path) -> None:
    edit(bundle, reference_focal_px=140.0)
    with pytest.raises(BundleError, match=r"bundle\.json: field 'sha256'.*edited"):
        load_manifest(bundle)


def test_layout_of_the_file_is_free(bundle: Path) -> None:
    edit(bundle)  # writes the same values in one line
    assert load_manifest(bundle) == make()


def test_unknown_and_missing_fields_are_named(bundle: Path) -> None:
    edit(bundle, zoom=2)
    with pytest.raises(BundleError, match=r"bundle\.json: field 'zoom' is unknown"):
        load_manifest(bundle)
    document = json.loads((bundle / 'bundle.json').read_text())
    del document['zoom'], document['backbone']
    (bundle / 'bundle.json').write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"bundle\.json: field 'backbone' is missing"):
        load_manifest(bundle)


def test_bad_task_inside_the_file_is_named(bundle: Path) -> None:
    edit(bundle, tasks=[{'name': 'depth', 'kind': 'depht'}])
    with pytest.raises(BundleError, match=r"bundle\.json: field 'tasks'.*depht"):
        load_manifest(bundle)


def test_digest_of_every_file_must_be_there(bundle: Path) -> None:
    save_manifest(make(files={'graph.onnx': '0' * 64}), bundle)
    with pytest.raises(BundleError, match=r"field 'files'.*weights\.safetensors is missing"):
        load_manifest(bundle)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_value_anywhere_gives_another_error(data: st.DataObject) -> None:
    document: Any = copy.deepcopy(make().to_json())
    node = document
    key = data.draw(st.sampled_from(sorted(node)))
    while isinstance(node[key], (dict, list)) and node[key] and data.draw(st.booleans()):
        node = node[key]
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = data.draw(st.sampled_from(keys))
    node[key] = data.draw(JSON_VALUES | st.just(10**400))
    try:
        manifest = Manifest.from_json(document)
    except BundleError:
        return
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_files_are_compared_with_their_digests(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    verify_files(manifest, bundle)
    path = bundle / 'graph.onnx'
    path.write_bytes(path.read_bytes()[:-1])
    verify_files(manifest, bundle, ['weights.safetensors'])
    with pytest.raises(BundleError, match=r"graph\.onnx: SHA-256 is .*'files' of bundle\.json"):
        verify_files(manifest, bundle)
    path.unlink()
    with pytest.raises(BundleError, match=r'graph\.onnx: not readable \(No such file'):
        verify_files(manifest, bundle)


def test_default_bundle_is_found_or_its_absence_explained(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('importlib.resources.files', lambda package: tmp_path / package)
    with pytest.raises(BundleError, match=r'default bundle is missing at .*reinstall'):
        default_bundle()
    place = tmp_path / 'mtl_perception' / 'bundles' / 'rooms_small'
    place.mkdir(parents=True)
    shutil.copy(bundle / 'bundle.json', place)
    assert default_bundle() == place


def test_replace_keeps_the_checks() -> None:
    with pytest.raises(BundleError, match='label_scale'):
        replace(make(), label_scale=-1.0)
