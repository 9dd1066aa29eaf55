# SPDX-License-Identifier: Apache-2.0
"""A study trains each run once, goes on where it was stopped, and divides as Delta_m does."""

from __future__ import annotations

import json
from pathlib import Path
import statistics

import cv2
from mtl_perception.tasks import standard_tasks
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.run_directory import prepare_directory
from mtl_perception.training.study import load_plan, make_study, run_study
from mtl_perception.training.study_report import summarise, table, verdict, write_study
import numpy as np
import pytest
import yaml

CONFIG = Path(__file__).parents[2] / 'config' / 'study'
RECIPE = {
    'name': 'base',
    'tasks': [
        {'name': 'semantic', 'kind': 'semantic', 'label_set': 'rooms'},
        {'name': 'depth', 'kind': 'depth'},
    ],
    'network': {
        'system': 'multi_task', 'backbone': 'mobilenetv2_100', 'size': [64, 96],
        'reference_focal_px': 80, 'neck': [8, 8, 8, 8],
    },
    'data': {'root': 'nowhere', 'workers': 0},
    'optimiser': {'steps': 900, 'batch_size': 2, 'learning_rate': 0.002},
    'loop': {'threads': 1, 'picture_rows': 1, 'validation_frames': 1},
}
PLAN = {
    'name': 'tiny',
    'recipe': 'base.yaml',
    'protocol': 'nyud_mti',
    'baseline': 'multi_task',
    'changes': {
        'optimiser': {'steps': 2},
        'loop': {'checkpoint_every_steps': 1, 'validate_every_steps': 2},
    },
    'networks': {
        'multi_task': {'network': {'system': 'multi_task'}},
        'mtl_segformer': {'network': {'system': 'mtl_segformer', 'neck': []}},
    },
}


class Boxes(list):
    """Box frames as a dataset."""

    tasks = standard_tasks('rooms')


def _load(folder, **changes):
    (folder / 'base.yaml').write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    (folder / 'study.yaml').write_text(yaml.safe_dump({**PLAN, **changes}, sort_keys=False))
    return load_plan(folder / 'study.yaml')


@pytest.fixture(scope='module')
def finished(box_frames, tmp_path_factory):
    """Return a study that was stopped before its third run and begun again, and its folder."""
    folder = tmp_path_factory.mktemp('study')
    study = make_study(*_load(folder))
    frames, out, began = Boxes(box_frames[:4]), folder / 'out', []

    def stop(index, run, is_done):
        if index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study, frames, frames, out, before=stop)
    kept = {path: path.stat().st_mtime_ns for path in out.rglob('evaluation.json')}
    results = run_study(
        study, frames, frames, out, before=lambda index, run, is_done: began.append(is_done)
    )
    assert len(kept) == 2
    assert began == [True, True, False, False]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    return study, results, out


def test_the_runs_are_the_networks_and_one_twin_for_each_task(tmp_path):
    plan, base = _load(tmp_path, seeds=[0, 5])
    study = make_study(plan, base)
    labels = ['single_task_semantic', 'single_task_depth', 'multi_task', 'mtl_segformer']
    assert [run.folder for run in study.runs] == [
        f'{label}_seed{seed}' for seed in (0, 5) for label in labels
    ]
    for run in study.runs:
        assert run.recipe.optimiser.steps == 2
        assert run.recipe.loop.seed == run.seed
    twin = study.runs[1].recipe
    assert (twin.network.system, twin.network.neck) == ('single_task', (8, 8, 8, 8))
    assert [task.name for task in twin.task_list()] == ['depth']


def test_some_networks_are_trained_first_and_beside_the_baseline(tmp_path):
    plan, base = _load(tmp_path)
    few = make_study(plan.only(['multi_task']), base)
    labels = ['single_task_semantic', 'single_task_depth', 'multi_task']
    assert [run.label for run in few.runs] == labels
    assert [run.label for run in make_study(plan.only(['mtl_segformer']), base).runs] == [
        *labels, 'mtl_segformer',
    ]
    with pytest.raises(TrainingError, match="'pad_net' is not one of multi_task, mtl_segformer"):
        plan.only(['mtl_segformer', 'pad_net'])


def test_another_backbone_has_twins_of_its_own(tmp_path):
    other = {'network': {'system': 'multi_task', 'backbone': 'resnet18'}}
    networks = {**PLAN['networks'], 'on_resnet': other}
    study = make_study(*_load(tmp_path, networks=networks))
    assert study.twins['on_resnet'] == {
        'semantic': 'single_task_semantic_2', 'depth': 'single_task_depth_2'
    }
    assert study.twins['multi_task'] == study.twins['mtl_segformer']
    recipes = {run.label: run.recipe for run in study.runs}
    assert recipes['single_task_depth_2'].network.backbone == 'resnet18'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'baseline': 'none'}, "baseline: 'none' is not one of multi_task, mtl_segformer"),
        ({'seeds': [1, 1]}, r'seeds: \[1, 1\]'),
        ({'networks': {'multi_task': {'optimiser': {'steps': 9}}}}, 'differ in network and loss'),
        ({'changes': {'optimizer': {}}}, r'changes\.optimizer: no such section'),
        ({'recipe': 'none.yaml'}, r'none\.yaml cannot be read'),
    ],
)
def test_a_mistake_in_the_file_is_named(changes, message, tmp_path):
    with pytest.raises(TrainingError, match=message):
        _load(tmp_path, **changes)


@pytest.mark.parametrize('path', sorted(CONFIG.glob('*.yaml')), ids=lambda path: path.stem)
def test_every_study_of_the_package_is_valid(path):
    plan, base = load_plan(path)
    assert plan.name == path.stem
    study = make_study(plan, base)
    twins = {label for each in study.twins.values() for label in each.values()}
    assert len(study.runs) == len(plan.seeds) * (len(plan.networks) + len(twins))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_delta_m_of_real_runs_by_hand(finished):
    study, results, out = finished
    summary = write_study(study, results, out)
    assert json.loads((out / 'study.json').read_text()) == json.loads(json.dumps(summary))

    def score(label, name):
        document = json.loads((out / f'runs/{label}_seed0/evaluation.json').read_text())
        return document['scores'][name]

    for name in ('multi_task', 'mtl_segformer'):
        miou, alone = score(name, 'semantic.miou'), score('single_task_semantic', 'semantic.miou')
        rmse, metres = score(name, 'depth.rmse_m'), score('single_task_depth', 'depth.rmse_m')
        expected = 100 * ((miou - alone) / alone - (rmse - metres) / metres) / 2
        found = summary['networks'][name]
        assert found['delta_m']['mean'] == pytest.approx(expected)
        assert found['gain']['depth']['mean'] == pytest.approx(100 * (metres - rmse) / metres)
        assert found['delta_m']['deviation'] is None
    text = (out / 'study.md').read_text()
    assert f'{summary["networks"]["mtl_segformer"]["delta_m"]["mean"]:+.2f} |' in text
    assert '2 steps of 2 frames' in text
    assert 'One seed: the spread was not measured.' in text
    assert cv2.imread(str(out / 'study.png')).shape[1] > 800


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_evaluate_and_train_score_a_bundle_alike(finished):
    _, _, out = finished
    for folder in (out / 'runs').iterdir():
        trained = json.loads((folder / 'scores.json').read_text())['this network']
        evaluated = json.loads((folder / 'evaluation.json').read_text())
        assert (evaluated['engine'], evaluated['frames']) == ('onnxruntime', 4)
        # ONNX Runtime against torch: single precision, and a class may tip over at a border.
        common = {name: value for name, value in trained.items() if value is not None}
        assert len(common) >= 2
        for name, value in common.items():
            assert evaluated['scores'][name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_with_other_recipes_is_not_mixed_in(finished, box_frames, tmp_path):
    _, _, out = finished
    frames = Boxes(box_frames[:4])
    changes = {**PLAN['changes'], 'optimiser': {'steps': 3}}
    other = make_study(*_load(tmp_path, changes=changes))
    with pytest.raises(TrainingError, match=r'another recipe: optimiser was .*another --out'):
        run_study(other, frames, frames, out)


def test_a_study_that_an_older_version_began_goes_on(tmp_path, monkeypatch):
    """Recipes that it wrote lack the fields that came later, and mean their defaults."""
    study = make_study(*_load(tmp_path))
    out, trained = tmp_path / 'out', []
    for run in study.runs:
        folder = out / 'runs' / run.folder
        prepare_directory(run.recipe, folder, resume=False)
        document = json.loads((folder / 'recipe.json').read_text())
        del document['network']['label_scale'], document['optimiser']['epoch_steps']
        (folder / 'recipe.json').write_text(json.dumps(document))
        (folder / 'evaluation.json').write_text('{"scores": {}}')
    monkeypatch.setattr('mtl_perception.training.study.train', lambda *a, **b: trained.append(a))
    results = run_study(study, Boxes(), Boxes(), out)
    assert len(results) == 4
    assert not trained


def _made_up(study, scores):
    return {
        (label, seed): {
            'scores': {f'{task}': value for task, value in values.items()},
            'parameters': 1000000, 'seconds': 60.0, 'frames': 10,
        }
        for (label, seed), values in scores.items()
    }


def test_the_spread_over_seeds_and_the_signs(tmp_path):
    study = make_study(*_load(tmp_path, seeds=[0, 1]))
    scores = {}
    for seed in (0, 1):
        scores['single_task_semantic', seed] = {'semantic.miou': 0.4}
        scores['single_task_depth', seed] = {'depth.rmse_m': 2.0}
        scores['multi_task', seed] = {'semantic.miou': 0.3, 'depth.rmse_m': 2.0}
    # +25 % and half the error: +37.5; then +0 % and a tenth more error: -5.
    scores['mtl_segformer', 0] = {'semantic.miou': 0.5, 'depth.rmse_m': 1.0}
    scores['mtl_segformer', 1] = {'semantic.miou': 0.4, 'depth.rmse_m': 2.2}
    summary = summarise(study, _made_up(study, scores))
    delta = summary['networks']['mtl_segformer']['delta_m']
    assert delta['by_seed'] == pytest.approx([37.5, -5.0])
    assert delta['mean'] == pytest.approx(16.25)
    assert delta['deviation'] == pytest.approx(statistics.stdev([37.5, -5.0]))
    assert summary['networks']['multi_task']['delta_m']['mean'] == pytest.approx(-12.5)
    gain = summary['networks']['mtl_segformer']['gain']
    assert gain['depth']['mean'] == pytest.approx((50 - 10) / 2)
    rows = table(summary).splitlines()
    assert rows[0].split('|')[3:5] == [' semantic miou ↑ ', ' depth rmse_m ↓ ']
    assert rows[2].startswith('| single task x2 | 2.00 | 0.400 ± 0.000 | 2.000 ± 0.000 |')
    assert rows[4].endswith(f'| +16.25 ± {statistics.stdev([37.5, -5]):.2f} |')
    assert 'higher: mtl_segformer (+28.75); not higher: none. 2 seeds.' in verdict(summary)
    scores['single_task_semantic', 1] = {'semantic.miou': None}
    with pytest.raises(TrainingError, match=r"multi_task, seed 1: .*'semantic'.*train longer"):
        summarise(study, _made_up(study, scores))


def test_the_bars_point_the_right_way(tmp_path):
    from mtl_perception.training.study_plot import plot

    study = make_study(*_load(tmp_path))
    scores = {
        ('single_task_semantic', 0): {'semantic.miou': 0.4},
        ('single_task_depth', 0): {'depth.rmse_m': 2.0},
        ('multi_task', 0): {'semantic.miou': 0.2, 'depth.rmse_m': 3.0},
        ('mtl_segformer', 0): {'semantic.miou': 0.6, 'depth.rmse_m': 1.0},
    }
    data = plot(summarise(study, _made_up(study, scores)))
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    left = picture[:, : picture.shape[1] * 2 // 5].astype(int)
    green = np.argwhere((left[..., 1] > left[..., 2] + 40) & (left[..., 1] > left[..., 0] + 20))
    red = np.argwhere((left[..., 2] > left[..., 1] + 60) & (left[..., 2] > left[..., 0] + 60))
    # The baseline above loses: red and to the left of the gain.
    assert red[:, 0].mean() < green[:, 0].mean()
    assert red[:, 1].mean() < green[:, 1].mean()
