# SPDX-License-Identifier: Apache-2.0
"""A recipe is read as written, and a mistake in it is named."""

from __future__ import annotations

from pathlib import Path

from mtl_perception.training.errors import TrainingError
from mtl_perception.training.parsing import parse
from mtl_perception.training.recipe import expand, load_recipe, Recipe
import pytest
import yaml

CONFIG = Path(__file__).parents[2] / 'config' / 'train'


def _values(**changes):
    values = {
        'name': 'small',
        'tasks': 'rooms',
        'network': {
            'system': 'mti_net', 'backbone': 'mobilenetv2_100', 'size': [64, 96],
            'reference_focal_px': 80,
        },
        'data': {'root': 'rooms'},
        'optimiser': {'steps': 10, 'batch_size': 2, 'learning_rate': '1e-3'},
    }
    for path, value in changes.items():
        section = values
        *parents, last = path.split('__')
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            del section[last]
        else:
            section[last] = value
    return values


@pytest.mark.parametrize('path', sorted(CONFIG.glob('*.yaml')), ids=lambda path: path.stem)
def test_every_recipe_of_the_package_is_valid_and_named_after_its_file(path):
    assert load_recipe(path).name == path.stem


UNIFORM_HALF_TO_TWO = {
    'augmentation.zoom': (0.5, 2.0), 'augmentation.zoom_law': 'uniform',
    'augmentation.centred': False, 'augmentation.largest_class': 0.75,
    'optimiser.name': 'sgd', 'optimiser.learning_rate': 1e-3, 'optimiser.weight_decay': 5e-4,
    'optimiser.decay_all': True, 'optimiser.steps': 40000, 'loss.align_corners': False,
}
ADAM_100_EPOCHS = {
    'augmentation.centred': True, 'augmentation.flip': 0.5, 'optimiser.name': 'adam',
    'optimiser.learning_rate': 1e-4, 'optimiser.weight_decay': 1e-4, 'optimiser.decay_all': True,
    'loss.align_corners': False,
}
NYUD_ZOOM = {'augmentation.zoom_factors': (1.0, 1.2, 1.5), 'network.size': (480, 640)}
DENSEMTL = {
    'network.mean': (0.45,) * 3, 'network.std': (0.225,) * 3, 'loss.align_corners': True,
    'loss.scales': 'mean', 'optimiser.weight_decay': 0.0, 'optimiser.betas': (0.9, 0.98),
    'augmentation.photometric': 0.0,
}
DISTORTION = {'augmentation.photometric': 1.0, 'augmentation.photometric_law': 'colours'}
# Read in the released code and its configurations.
PUBLISHED = {
    'demt_nyud': {**UNIFORM_HALF_TO_TWO, **DISTORTION, 'network.size': (425, 560)},
    'demt_pascal': {**UNIFORM_HALF_TO_TWO, **DISTORTION, 'network.size': (512, 512)},
    'mti_net_nyud': {**ADAM_100_EPOCHS, **NYUD_ZOOM},
    'pad_net_nyud': {**ADAM_100_EPOCHS, **NYUD_ZOOM},
    'mti_net_pascal': {
        **ADAM_100_EPOCHS, 'augmentation.zoom': (0.75, 1.25), 'augmentation.zoom_law': 'uniform',
        'augmentation.rotation_deg': 20.0,
    },
    **{path.stem: DENSEMTL for path in CONFIG.glob('densemtl_*.yaml')},
}


@pytest.mark.parametrize('name', sorted(PUBLISHED))
def test_the_papers_recipes_have_the_published_numbers(name):
    recipe = load_recipe(CONFIG / f'{name}.yaml')
    found = {
        path: getattr(getattr(recipe, path.split('.')[0]), path.split('.')[1])
        for path in PUBLISHED[name]
    }
    assert found == PUBLISHED[name]


def test_densemtl_weighs_edges_as_two_classes():
    assert len([name for name in PUBLISHED if name.startswith('densemtl')]) == 11
    kinds = load_recipe(CONFIG / 'densemtl_nyud_sdne.yaml').loss.kinds
    assert kinds == {'depth': 'inverse_berhu', 'normals': 'cosine', 'edges': 'balanced_mean'}


def test_values_arrive_with_their_types():
    recipe = parse(Recipe, _values(network__neck=[8, 16, 24, 32], loss__weights={'depth': 4}), 'r')
    assert recipe.network.size == (64, 96)
    assert recipe.network.neck == (8, 16, 24, 32)
    assert recipe.network.reference_focal_px == 80.0
    # YAML 1.1 reads a number without a dot before the exponent as text.
    assert recipe.optimiser.learning_rate == 0.001
    assert recipe.loss.weights == {'depth': 4.0}
    assert [task.name for task in recipe.task_list()] == ['semantic', 'depth', 'normals', 'edges']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'network__sise': [1, 2]}, r'r\.network\.sise: no such field'),
        ({'network__size': [64]}, r'r\.network\.size: \[64\] should be a list of 2'),
        ({'network__size': [64, '9x']}, r"r\.network\.size\[1\]: '9x' should be a whole number"),
        ({'network__size': [16, 96]}, r'r\.network\.size: \(16, 96\) should be at least 32'),
        ({'network__initial': 'default', 'network__pretrained': 'imagenet'},
         r"network\.initial: 'default' replaces pretrained"),
        ({'network__depth_range_m': [5, 1]}, r'depth_range_m: \(5\.0, 1\.0\) should rise'),
        ({'optimiser__steps': None}, r'r\.optimiser\.steps: missing'),
        ({'optimiser__steps': 2.5}, r'r\.optimiser\.steps: 2\.5 should be a whole number'),
        ({'optimiser__steps': True}, r'r\.optimiser\.steps: True should be a whole number'),
        ({'optimiser__learning_rate': 'fast'}, r"learning_rate: 'fast' should be a number"),
        ({'optimiser__learning_rate': float('nan')}, r'learning_rate: nan should be a number'),
        ({'optimiser__average_decay': 1}, r'average_decay: 1\.0 should be at least 0 and below 1'),
        ({'augmentation__zoom': [0, 1]}, r'augmentation\.zoom: \(0\.0, 1\.0\) should rise'),
        ({'augmentation__zoom_law': 'linear'}, r"zoom_law: 'linear' is not in"),
        ({'augmentation__photometric_law': 'warm'}, r"photometric_law: 'warm' is not in"),
        ({'network__std': [0.2, 0, 0.2]}, r'network\.std: \(0\.2, .* should be positive'),
        ({'network__mean': [124, 116, 104]}, r'network\.mean: .* should be between 0 and 1'),
        ({'augmentation__early_share': 0.5}, r'early_share: 0\.5 needs early_size'),
        ({'loop__precision': 'half'}, r"loop\.precision: 'half' is not in"),
        ({'loop__validate_every_steps': 300}, r'validate_every_steps: 300 should be a multiple'),
        ({'loss__weights': {'depth': 'much'}}, r"loss\.weights\.depth: 'much' should be a number"),
        ({'tasks': 'nyu99'}, r'r\.tasks: .*nyu99'),
        ({'name': 'two words'}, r'r\.name'),
        ({'data': 'rooms'}, r"r\.data: 'rooms' should be a mapping"),
    ],
)
def test_a_mistake_is_named_with_field_and_value(change, message):
    with pytest.raises(TrainingError, match=message):
        parse(Recipe, _values(**change), 'r')


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(TrainingError, match=r'nowhere\.yaml cannot be read'):
        load_recipe(tmp_path / 'nowhere.yaml')
    broken = tmp_path / 'broken.yaml'
    broken.write_text('name: [')
    with pytest.raises(TrainingError, match=r'broken\.yaml is not YAML'):
        load_recipe(broken)
    (tmp_path / 'text.yaml').write_text('hello')
    with pytest.raises(TrainingError, match="'hello' should be a mapping"):
        load_recipe(tmp_path / 'text.yaml')


def test_yaml_cannot_make_objects(tmp_path):
    path = tmp_path / 'evil.yaml'
    path.write_text('name: !!python/object/apply:os.getcwd []')
    with pytest.raises(TrainingError, match='not YAML'):
        load_recipe(path)


def test_variables_come_from_the_environment(monkeypatch):
    monkeypatch.setenv('PLACE', '/data')
    assert expand('${PLACE}/weights', 'x') == Path('/data/weights')
    monkeypatch.delenv('PLACE')
    with pytest.raises(TrainingError, match=r'network\.pretrained.*PLACE, which is not set'):
        expand('${PLACE}/weights', 'network.pretrained')


def test_the_recipe_survives_json_and_yaml():
    recipe = parse(Recipe, _values(), 'r')
    assert parse(Recipe, yaml.safe_load(yaml.safe_dump(recipe.to_json() | {
        'network': {**recipe.to_json()['network'], 'size': [64, 96], 'depth_range_m': [0.2, 20]},
        'augmentation': {}, 'limitations': [],
    })), 'r') == recipe
