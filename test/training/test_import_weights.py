# SPDX-License-Identifier: Apache-2.0
"""Published weights come in by their names; what did not is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch')
from mtl_perception.bundle import load_network, verify_bundle  # noqa: E402
from mtl_perception.training.errors import TrainingError  # noqa: E402
from mtl_perception.training.import_command import main  # noqa: E402
from mtl_perception.training.import_weights import (  # noqa: E402
    import_weights,
    read_weights,
    with_backbone_names,
)
from mtl_perception.training.name_maps import read_rules, renamed  # noqa: E402
from mtl_perception.training.recipe import (  # noqa: E402
    DataRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
)
from mtl_perception.training.run import make_network  # noqa: E402
from mtl_perception.training.task_recipe import TaskRecipe  # noqa: E402
import numpy as np  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
import timm  # noqa: E402
import yaml  # noqa: E402

RECIPE = Recipe(
    name='imported',
    tasks=(TaskRecipe('depth', 'depth'),),
    network=NetworkRecipe('single_task', 'mobilenetv2_100', (64, 64), 60.0, neck=(8, 8, 8, 8)),
    data=DataRecipe('nowhere'),
    optimiser=OptimiserRecipe(steps=1, batch_size=1, learning_rate=1e-3),
)


def test_the_first_rule_that_fits_a_whole_name_renames_it(tmp_path):
    file = tmp_path / 'names.yaml'
    file.write_text(yaml.safe_dump(
        {r'params\..*': None, r'old\.(\w+)\.(.*)': r'new.\2.\1', r'old\..*': 'never'},
        sort_keys=False,
    ))
    weights = {
        name: torch.tensor(index) for index, name in enumerate(
            ('params.x', 'old.a.weight', 'old.a', 'very.old.a.weight', 'other'))
    }
    found = renamed(weights, read_rules(file))
    assert {name: int(value) for name, value in found.items()} == {
        'new.weight.a': 1, 'never': 2, 'very.old.a.weight': 3, 'other': 4,
    }
    file.write_text("'(a|b)': same")
    with pytest.raises(TrainingError, match="'a' and 'b' both become 'same'"):
        renamed({'a': torch.zeros(1), 'b': torch.zeros(1)}, read_rules(file))
    for text, message in (
        ("'(a': b", 'is no regular expression'), ('- a', 'should be a mapping'),
        ('a: 3', 'becomes 3'), ("'a': '\\2'", 'name map'),
    ):
        file.write_text(text)
        with pytest.raises(TrainingError, match=message):
            renamed({'a': torch.zeros(1)}, read_rules(file))


def test_checkpoints_are_read_as_plain_tensors_wherever_the_weights_lie(tmp_path):
    weights = {'module.a': torch.ones(2), 'module.b': torch.zeros(1)}
    torch.save({'epoch': 3, 'state_dict': weights}, tmp_path / 'a.pth')
    assert set(read_weights(tmp_path / 'a.pth')) == {'a', 'b'}
    save_file({'a': torch.ones(2)}, tmp_path / 'a.safetensors')
    assert torch.equal(read_weights(tmp_path / 'a.safetensors')['a'], torch.ones(2))
    scores = {'rmse': np.float64(0.5), 'best': np.float32(2), 'steps': np.int64(3)}
    torch.save({'model': weights, 'best_result': scores}, tmp_path / 'scored.pth')
    assert set(read_weights(tmp_path / 'scored.pth')) == {'a', 'b'}
    torch.save({'model': RECIPE}, tmp_path / 'code.pth')
    with pytest.raises(TrainingError, match=r'code\.pth cannot be read'):
        read_weights(tmp_path / 'code.pth')
    (tmp_path / 'torn.pth').write_bytes((tmp_path / 'a.pth').read_bytes()[:200])
    with pytest.raises(TrainingError, match=r'torn\.pth cannot be read'):
        read_weights(tmp_path / 'torn.pth')
    with pytest.raises(TrainingError, match='cannot be read'):
        read_weights(tmp_path / 'absent.safetensors')
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(TrainingError, match='no tensors by name'):
        read_weights(tmp_path / 'list.pth')


@pytest.mark.parametrize(
    'backbone',
    ['mobilenetv2_100', 'resnet18', 'swin_tiny', 'hrnet_w18_small_v2', 'resnet101'],
)
def test_a_timm_model_becomes_the_backbone(backbone):
    """Every tensor of the backbone is found under timm's own names."""
    source = {
        'swin_tiny': 'swin_tiny_patch4_window7_224',
    }.get(backbone, backbone)
    recipe = replace(RECIPE, network=replace(RECIPE.network, backbone=backbone, neck=None))
    with torch.device('meta'):
        network, _ = make_network(recipe)
        weights = timm.create_model(source).state_dict()
    given = with_backbone_names(network, weights)
    state = network.state_dict()
    wanted = {name for name in state if name.startswith('encoder.backbone.net.')}
    assert len(wanted) > 50
    assert wanted <= set(given)
    assert all(given[name].shape == state[name].shape for name in wanted)


def test_a_renamed_checkpoint_becomes_a_bundle_with_its_weights(tmp_path, capsys):
    network, _ = make_network(RECIPE)
    state = network.state_dict()
    generator = torch.Generator().manual_seed(5)
    published = {}
    for name, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            value = 0.05 * torch.randn(value.shape, generator=generator)
        published['their.' + name.replace('encoder.', 'enc.')] = value
    lost = next(name for name in published if name.endswith('bias'))
    del published[lost]
    torch.save({'state_dict': {**published, 'their.extra': torch.zeros(3)}}, tmp_path / 'x.pth')
    (tmp_path / 'names.yaml').write_text(yaml.safe_dump(
        {r'their\.enc\.(.*)': r'encoder.\1', r'their\.(.*)': r'\1'}, sort_keys=False
    ))
    recipe = {
        'name': 'imported', 'tasks': [{'name': 'depth', 'kind': 'depth'}],
        'network': {
            'system': 'single_task', 'backbone': 'mobilenetv2_100', 'size': [64, 64],
            'reference_focal_px': 60.0, 'neck': [8, 8, 8, 8],
        },
        'data': {'root': 'nowhere'},
        'optimiser': {'steps': 1, 'batch_size': 1, 'learning_rate': 1e-3},
    }
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    out = tmp_path / 'bundle'
    assert main([
        '--weights', str(tmp_path / 'x.pth'), '--config', str(tmp_path / 'recipe.yaml'),
        '--map', str(tmp_path / 'names.yaml'), '--out', str(out),
    ]) == 0
    printed = capsys.readouterr().out
    assert f'{len(state) - 1} tensors loaded' in printed
    assert '1 tensors not in the file' in printed
    assert '1 tensors in the file, not of this network:\n  extra 1' in printed
    loaded, manifest = load_network(out)
    for name, value in loaded.state_dict().items():
        theirs = published.get('their.' + name.replace('encoder.', 'enc.'))
        if theirs is not None:
            assert torch.equal(value, theirs), name
    assert manifest.provenance['imported']['file'] == 'x.pth'
    assert len(manifest.provenance['imported']['absent']) == 1
    assert set(verify_bundle(out)) == {'depth'}


def test_a_file_of_something_else_is_refused_with_both_sides_named(tmp_path):
    save_file({'foreign.weight': torch.zeros(2)}, tmp_path / 'x.safetensors')
    with pytest.raises(TrainingError, match=r'foreign\.weight.*encoder\..*--map'):
        import_weights(tmp_path / 'x.safetensors', RECIPE, tmp_path / 'bundle')
    assert not (tmp_path / 'bundle').exists()
