# SPDX-License-Identifier: Apache-2.0
"""Every recipe of the package can start a run; what it lacks is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtl_perception.networks.build import SYSTEMS
from mtl_perception.tasks import Task
from mtl_perception.training.command import main
from mtl_perception.training.dry_run import dry_run
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.module import (
    learning_rate_factor,
    make_loss,
    make_optimiser,
    MultiTaskModule,
)
from mtl_perception.training.recipe import load_recipe, OptimiserRecipe
from mtl_perception.training.run import make_network
from mtl_perception.training.source import check_tasks, open_frames
import pytest
import torch

CONFIG = Path(__file__).parents[2] / 'config' / 'train'
RECIPES = sorted(CONFIG.glob('*.yaml'))


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_every_recipe_builds_and_names_its_missing_data(path, tmp_path, monkeypatch):
    monkeypatch.delenv('MTL_PERCEPTION_SAMPLE_DATA', raising=False)
    recipe = load_recipe(path)
    assert recipe.network.system in SYSTEMS
    built, missing = dry_run(recipe, tmp_path / 'nowhere')
    text = '\n'.join(built)
    for task in (*recipe.task_list(), *recipe.auxiliary_list()):
        assert task.name in text
    assert any(line.startswith('data: ') and 'nowhere' in line for line in missing)


OF_PAPERS = [path for path in RECIPES if not path.stem.startswith(('rooms', 'rosbag'))]


@pytest.mark.parametrize('path', OF_PAPERS, ids=lambda path: path.stem)
def test_recipes_of_papers_decide_a_label_for_every_pixel(path):
    recipe = load_recipe(path)
    network = replace(recipe.network, pretrained=None)
    with torch.device('meta'):
        _, manifest = make_network(replace(recipe, network=network))
    assert manifest.label_size == recipe.network.size


# Measured on the released code, in millions.
@pytest.mark.parametrize(
    ('name', 'millions'),
    [
        ('pad_net_nyud', 7.019), ('mti_net_nyud', 14.838), ('mti_net_pascal', 24.494),
        ('densemtl_nyud_sd', 87.40), ('densemtl_nyud_sdn', 111.01),
        ('densemtl_nyud_sdne', 135.39),
    ],
)  # fmt: skip
def test_the_recipes_build_the_networks_of_the_papers(name, millions, tmp_path):
    built, _ = dry_run(load_recipe(CONFIG / f'{name}.yaml'), tmp_path)
    assert float(built[0].split()[-3]) == pytest.approx(millions, rel=0.005)


def test_the_command_says_what_is_missing(capsys, tmp_path):
    arguments = ['--config', str(CONFIG / 'rooms_small.yaml'), '--data', str(tmp_path)]
    assert main([*arguments, '--dry-run', '--single-task', 'depth']) == 0
    output = capsys.readouterr().out
    assert output.startswith('rooms_small_depth_alone\nnetwork: single_task')
    assert 'tasks: depth (depth)\n' in output
    assert '3 x depth log_gradient' in output
    assert f'missing: data: {tmp_path}/formats' in output


def test_a_twin_of_an_unknown_task_is_refused():
    with pytest.raises(TrainingError, match=r"'stairs' is not one of semantic, depth"):
        load_recipe(CONFIG / 'rooms_small.yaml').single_task_twin('stairs')


def _plan(**values):
    return OptimiserRecipe(**{'steps': 100, 'batch_size': 1, 'learning_rate': 1.0, **values})


def test_schedules_are_those_of_the_papers():
    poly, epochs = _plan(schedule='poly'), _plan(schedule='poly', epoch_steps=10)
    drop, constant = _plan(schedule='step', drop_at=75), _plan(schedule='constant')
    for step in (0, 7, 19, 74, 75, 99):
        assert learning_rate_factor(step, poly) == pytest.approx((1 - step / 100) ** 0.9)
        epoch = step // 10
        assert learning_rate_factor(step, epochs) == pytest.approx((1 - epoch / 10) ** 0.9)
        assert learning_rate_factor(step, drop) == (1.0 if step < 75 else 0.1)
        assert learning_rate_factor(step, constant) == 1.0


@pytest.mark.parametrize(
    ('name', 'cls'),
    [('adamw', torch.optim.AdamW), ('adam', torch.optim.Adam), ('sgd', torch.optim.SGD)],
)
def test_the_optimiser_learns_everything_once_and_the_loss_too(name, cls):
    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Module()
            self.encoder.backbone = torch.nn.Conv2d(3, 2, 1)
            self.head = torch.nn.Conv2d(2, 1, 1)
            self.all_tasks = (Task('depth', 'depth'),)

    recipe = load_recipe(CONFIG / 'rooms_small.yaml')
    loss = replace(recipe.loss, balancing='uncertainty', weights={}, kinds={})
    network = Tiny()
    criterion = make_loss(network, replace(recipe, loss=loss))
    for decay_all, of_biases in ((False, 0.0), (True, 0.1)):
        plan = _plan(name=name, backbone_factor=0.5, weight_decay=0.1, decay_all=decay_all)
        optimiser = make_optimiser(network, criterion, plan)
        assert type(optimiser) is cls
        found = {
            id(parameter): (group['lr'], group['weight_decay'])
            for group in optimiser.param_groups
            for parameter in group['params']
        }
        assert found == {
            id(network.encoder.backbone.weight): (0.5, 0.1),
            id(network.encoder.backbone.bias): (0.5, of_biases),
            id(network.head.weight): (1.0, 0.1),
            id(network.head.bias): (1.0, of_biases),
            id(criterion.log_variances['depth']): (1.0, 0.0),
        }


def test_the_image_is_normalised_as_the_recipe_says_in_training_and_in_the_bundle():
    values = load_recipe(CONFIG / 'densemtl_nyud_sd.yaml')
    part = replace(
        values.network, system='single_task', backbone='mobilenetv2_100', size=(64, 96),
        neck=(8, 8, 8, 8), pretrained=None,
    )
    recipe = values.single_task_twin('depth')
    recipe = replace(recipe, network=part)
    network, manifest = make_network(recipe)
    module = MultiTaskModule(network, manifest, recipe)
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 64, 96, 3)
    expected = [(value / 255 - 0.45) / 0.225 for value in (0, 128, 255)]
    assert module.normalised(image)[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)
    assert manifest.mean == pytest.approx((0.45,) * 3)
    assert manifest.std == pytest.approx((0.225,) * 3)


def test_data_that_mean_something_else_are_refused():
    recipe = load_recipe(CONFIG / 'mti_net_nyud.yaml')
    semantic, depth = recipe.task_list()
    check_tasks((semantic, depth), (depth,), 'nyud')
    with pytest.raises(TrainingError, match=r"'depth' of kind 'depth' is not in the nyud data"):
        check_tasks((semantic,), (semantic, depth), 'nyud')
    rooms = load_recipe(CONFIG / 'rooms_small.yaml').task_list()[0]
    with pytest.raises(TrainingError, match='means the classes wall'):
        check_tasks((semantic,), (rooms,), 'nyud')


@pytest.mark.realdata
@pytest.mark.parametrize('name', ['mtl_segformer_folder', 'rosbag_kitchen'])
def test_recipes_for_the_sample_data_find_them(name, sample_data, monkeypatch):
    monkeypatch.chdir(CONFIG.parents[1])
    monkeypatch.setenv('MTL_PERCEPTION_SAMPLE_DATA', str(sample_data))
    recipe = load_recipe(CONFIG / f'{name}.yaml')
    built, missing = dry_run(recipe)
    assert not missing, (built, missing)
    root = sample_data / ('camvid' if 'folder' in name else 'bags')
    train, validation = open_frames(recipe, root)
    assert {task.name for task in recipe.task_list()} <= set(train[0].targets)
    counts = (367, 101) if 'folder' in name else (300, 70)
    assert (len(train), len(validation)) == pytest.approx(counts, abs=6)
