# SPDX-License-Identifier: Apache-2.0
"""
Every system and every dataset once: train, kill -9, resume, bundle, the same maps in ONNX Runtime.

Each case is a recipe file and the command line, on a small tree in the dataset's exact layout.
test_recipe_cycles.py does so with every recipe of the package.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from pathlib import Path
import random
import runpy
import signal
import time

from mtl_perception.datasets import synthia, vkitti2
import pytest
import yaml

# What the published layouts hold too much of for a test: by module, its table made short.
SHORT = (
    (synthia, '_SPLITS', {'train': range(2), 'val': range(2, 3), 'all': range(3)}),
    (vkitti2, 'SCENES', dict.fromkeys(vkitti2.SCENES, 2)),
)

if __name__ == 'doomed':
    # In the process that is killed: `arguments` comes with the call.
    for module, name, value in SHORT:
        setattr(module, name, value)
    from mtl_perception.cli import main

    main(arguments)  # type: ignore[name-defined]  # noqa: F821

torch = pytest.importorskip('torch')

KINDS = {
    'semantic': {'kind': 'semantic'}, 'depth': {'kind': 'depth'}, 'normals': {'kind': 'normals'},
    'edges': {'kind': 'edges', 'edge_meaning': 'label_borders'}, 'saliency': {'kind': 'saliency'},
    'parts': {'kind': 'parts', 'label_set': 'pascal_parts7'},
}


def tasks_of(text, labels=None):
    """Tasks by name; semantic ones with their label set."""
    listed = []
    for name in text.split():
        task = {'name': name, **KINDS[name]}
        listed.append(task | ({'label_set': labels} if name == 'semantic' else {}))
    return listed


def writer(name):
    """Return a module of the datasets' tests: it writes the tree that the reader is tested on."""
    path = Path(__file__).parents[1] / 'datasets' / f'test_{name}_dataset.py'
    spec = importlib.util.spec_from_file_location(f'{name}_trees', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nyud(root):
    writer('nyud').write_tree(root, 'npy')
    return tasks_of('semantic depth normals edges', 'nyu40'), {'train': 'train'}


def pascal_context(root):
    writer('pascal_context').write_tree(root)
    return tasks_of('semantic parts saliency normals edges', 'pascal21'), {'train': 'train'}


def cityscapes(root):
    writer('cityscapes').write_tree(root)
    return tasks_of('semantic depth', 'cityscapes16'), {
        'options': {'tasks': ['semantic', 'depth'], 'labels': 'cityscapes16'},
    }


def vkitti2_tree(root):
    writer('vkitti2').write_tree(root, ('fog',))
    return tasks_of('semantic depth', 'vkitti14'), {
        'kind': 'vkitti2', 'options': {'variations': ['fog'], 'labels': 'vkitti14'},
    }


def synthia_tree(root):
    writer('synthia').write_tree(root, range(3), 'Depth/Depth', channels=3)
    return tasks_of('depth'), {'kind': 'synthia', 'options': {'tasks': ['depth']}}


def folder(root):
    writer('folder').write_tree(root)
    return [
        {'name': 'ground', 'kind': 'semantic', 'classes': ['ground', 'rest']},
        {'name': 'movers', 'kind': 'semantic', 'classes': ['none', 'mover']},
    ], {'options': {'tasks': ['ground', 'movers']}}


def rosbag(root):
    bags = writer('rosbag')
    bags.write_bag(root / 'morning', 6)
    bags.write_bag(root / 'noon', 3)
    tasks = tasks_of('depth normals edges')
    tasks[2]['edge_meaning'] = 'depth_jumps'
    return tasks, {'train': 'morning', 'validation': 'noon'}


def rooms(root, splits=('train', 'validation')):
    from mtl_perception.datasets.rooms_command import main

    for seed, split in enumerate(splits):
        out = ['--out', str(root / split), '--seed', str(2 + seed)]
        assert main(['--frames', '2', '--size', '48x36', '--frames-per-world', '2', *out]) == 0
    return 'rooms', {'train': 'train', 'validation': 'validation'}


CYCLES = [
    ('mti_net', nyud), ('demt', pascal_context), ('densemtl', cityscapes),
    ('multi_task', vkitti2_tree), ('single_task', synthia_tree), ('mtl_segformer', folder),
    ('demt_global', rosbag), ('pad_net', rooms),
]


def test_every_system_and_every_dataset_has_its_turn():
    from mtl_perception.datasets.dataset import KINDS as DATASETS
    from mtl_perception.networks.build import SYSTEMS

    assert {system for system, _ in CYCLES} == set(SYSTEMS)
    assert {write.__name__.removesuffix('_tree') for _, write in CYCLES} == set(DATASETS)


@pytest.fixture(scope='module')
def processes():
    """Processes that have the heavy imports done and no thread of ours."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(
        ['mtl_perception.training.run', 'mtl_perception.training.source']
    )
    return context


def kill_at_random(context, arguments, out):
    """Start the command and kill it some moment after its first checkpoint."""
    process = context.Process(
        target=runpy.run_path, args=(__file__, {'arguments': arguments}, 'doomed')
    )
    process.start()
    while not (out / 'last.ckpt').exists():
        assert process.is_alive(), 'ended before its first checkpoint'
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.3))
    process.kill()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0), process.exitcode
    return torch.load(out / 'last.ckpt', weights_only=True)['global_step']


def cycle(recipe, context, tmp_path):
    """Train, kill, resume; what is left is the whole run, and its bundle computes the same."""
    from mtl_perception.agreement import disagreement, FP32_TOLERANCE
    from mtl_perception.bundle import verify_bundle
    from mtl_perception.cli import main
    from mtl_perception.inference.engine import open_engine
    from safetensors.numpy import load_file

    config, out = tmp_path / 'recipe.yaml', tmp_path / 'run'
    config.write_text(yaml.safe_dump(recipe))
    arguments = ['train', '--config', str(config), '--out', str(out), '--device', 'cpu']
    reached = kill_at_random(context, arguments, out)
    assert 1 <= reached <= 3
    assert main([*arguments, '--resume']) == 0
    checkpoint = torch.load(out / 'last.ckpt', weights_only=True)
    assert checkpoint['global_step'] == 3
    four = ('semantic', 'depth', 'normals', 'edges')
    tasks = recipe['tasks']
    names = four if tasks == 'rooms' else [task['name'] for task in tasks]
    assert set(verify_bundle(out / 'bundle')) == set(names)
    check = load_file(out / 'bundle' / 'check.safetensors')
    with open_engine(out / 'bundle', 'onnxruntime') as engine:
        maps = engine.run(check['input.image'], check['input.depth_scale'])
        errors = disagreement(
            engine.manifest.tasks,
            {name: check[f'output.{name}'] for name in engine.manifest.output_names},
            maps,
        )
        for task in engine.manifest.tasks:
            assert errors[task.name] <= FP32_TOLERANCE[task.kind], (task.name, errors)
    return engine.manifest, checkpoint


@pytest.fixture
def short_tables(monkeypatch):
    """Let the trees be small here as in the process that is killed."""
    for module, name, value in SHORT:
        monkeypatch.setattr(module, name, value)


LOOP = {
    'checkpoint_every_steps': 1, 'validate_every_steps': 3, 'threads': 1, 'picture_rows': 1,
    'validation_frames': 2,
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures('short_tables')
@pytest.mark.parametrize(
    ('system', 'write'), CYCLES, ids=[f'{system}-{each.__name__}' for system, each in CYCLES]
)
def test_train_kill_resume_bundle_and_onnx_runtime(system, write, processes, tmp_path):
    (tmp_path / 'data').mkdir()
    tasks, data = write(tmp_path / 'data')
    recipe = {
        'name': 'cycle',
        'tasks': tasks,
        'network': {
            'system': system, 'backbone': 'mobilenetv2_100',
            'neck': [8] * (5 if system == 'densemtl' else 4),
            'size': [64, 64], 'reference_focal_px': 60.0, 'depth_range_m': [0.2, 300.0],
        },
        'data': {
            'kind': write.__name__.removesuffix('_tree'), 'root': str(tmp_path / 'data'),
            'train': 'train', 'validation': 'val', 'workers': 0, **data,
        },
        'optimiser': {'steps': 3, 'batch_size': 2, 'learning_rate': 1e-4},
        'loop': LOOP,
    }
    cycle(recipe, processes, tmp_path)
