# SPDX-License-Identifier: Apache-2.0
"""The shipped name maps fill the networks from the names that the authors' code saves."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

torch = pytest.importorskip('torch')
from mtl_perception.networks.layers.gated_distillation import GatedDistillation  # noqa: E402
from mtl_perception.networks.network import Network  # noqa: E402
from mtl_perception.training.errors import TrainingError  # noqa: E402
from mtl_perception.training.import_command import main  # noqa: E402
from mtl_perception.training.initial import load_matching  # noqa: E402
from mtl_perception.training.name_maps import (  # noqa: E402
    find_map,
    read_rules,
    renamed,
    shipped_maps,
)
from mtl_perception.training.recipe import load_recipe  # noqa: E402
from mtl_perception.training.run import make_network  # noqa: E402
import yaml  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NAMES = Path(__file__).parent / 'published_names'
NORM = ('weight', 'bias', 'running_mean', 'running_var')
SYSTEMS = {  # names and recipe: name map
    'mti_net_nyud': 'mti_net',
    'mti_net_pascal': 'mti_net',
    'pad_net_nyud': 'pad_net',
    'demt_nyud': 'demt',
    'demt_pascal': 'demt',
    'densemtl_nyud_sd': 'densemtl',
    'densemtl_nyud_sdne': 'densemtl',
}


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Read a list of names with their shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for line in (NAMES / f'{name}.txt').read_text().splitlines():
        if line.startswith('#'):
            continue
        tensor, *kind, size = line.split()
        shape = () if size == '-' else tuple(int(length) for length in size.split('x'))
        if kind:
            shapes.update({f'{tensor}.{leaf}': shape for leaf in NORM})
            shapes[f'{tensor}.num_batches_tracked'] = ()
        else:
            shapes[tensor] = shape
    return shapes


def published_weights(name: str) -> dict[str, torch.Tensor]:
    """Make tensors of these shapes; all numbers of the first two axes differ, kernels repeat."""
    weights, first = {}, 0
    for tensor, shape in published_shapes(name).items():
        lead, kernel = shape[:2], shape[2:]
        numbers = torch.arange(first, first + prod(lead), dtype=torch.int32).view(lead)
        first += prod(lead)
        weights[tensor] = numbers.view((*lead, *(1 for _ in kernel))).expand(shape)
    return weights


def published_network(recipe: str) -> Network:
    """Build the network of a recipe as published, without storage."""
    given = load_recipe(ROOT / 'config' / 'train' / f'{recipe}.yaml')
    network = replace(given.network, mode='published', pretrained=None)
    with torch.device('meta'):
        return make_network(replace(given, network=network))[0]


def imported(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the published weights and what they become."""
    weights = published_weights(name)
    rules = read_rules(find_map(SYSTEMS[name]))
    return weights, renamed(weights, rules, published_network(name))


def test_the_shipped_maps_are_read_and_known_by_name(tmp_path, monkeypatch):
    assert set(shipped_maps()) == set(SYSTEMS.values())
    for name, path in shipped_maps().items():
        assert path == ROOT / 'config' / 'name_maps' / f'{name}.yaml'
        assert read_rules(find_map(name)).rules
    assert find_map('own.yaml') == Path('own.yaml')
    (tmp_path / 'own').write_text('a: b')
    assert read_rules(find_map(tmp_path / 'own')).rules[0].to == ('b',)
    message = 'name map other is neither a file nor shipped; shipped are demt, densemtl, mti_net'
    with pytest.raises(TrainingError, match=message):
        find_map('other')
    # As installed, the maps lie under share/ of some folder above the package.
    package = tmp_path / 'lib' / 'python3' / 'site-packages' / 'mtl_perception'
    maps = tmp_path / 'share' / 'mtl_perception' / 'config' / 'name_maps'
    maps.mkdir(parents=True)
    (maps / 'one.yaml').touch()
    monkeypatch.setattr('mtl_perception.__file__', str(package / '__init__.py'))
    assert shipped_maps() == {'one': maps / 'one.yaml'}


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_tensor_of_a_published_network_is_found(name):
    """None is absent, misshapen or left over, and no number is used twice or lost."""
    weights = published_weights(name)
    network = published_network(name)
    rules = read_rules(find_map(SYSTEMS[name]))
    given = renamed(weights, rules, network)
    with torch.device('meta'):
        matched = load_matching(network, given)
    assert set(matched.loaded) == set(network.state_dict())
    assert (matched.absent, matched.other_shape, matched.unused) == ((), (), ())
    kept = {
        tensor for tensor in weights
        if next((rule.to for rule in rules.rules if rule.pattern.fullmatch(tensor)), (tensor,))
    }
    logits = {  # two scores become one logit
        tensor for tensor in kept
        if next((r.logit for r in rules.rules if r.pattern.fullmatch(tensor)), False)
    }
    counts = [weights[t].numel() // (2 if t in logits else 1) for t in kept]
    assert sum(tensor.numel() for tensor in given.values()) == sum(counts)
    numbers = torch.cat([
        tensor.flatten(2)[..., 0].flatten() if tensor.dim() > 2 else tensor.flatten()
        for new, tensor in given.items() if 'predict.' not in new  # differences may repeat
    ])
    assert len(numbers.unique()) == len(numbers)


def test_what_is_left_out_is_not_of_the_network():
    """Of DenseMTL a second copy; of DeMT constants."""
    rules = read_rules(find_map('densemtl')).rules
    left = {
        tensor for tensor in published_shapes('densemtl_nyud_sdne')
        if not next((rule.to for rule in rules if rule.pattern.fullmatch(tensor)), (tensor,))
    }
    assert {tensor.split('.')[0] for tensor in left} == {'params'}
    rules = read_rules(find_map('demt')).rules
    left = {
        tensor for tensor in published_shapes('demt_nyud')
        if not next((rule.to for rule in rules if rule.pattern.fullmatch(tensor)), (tensor,))
    }
    assert {tensor.split('.')[-1] for tensor in left} == {'relative_position_index', 'offset'}


def test_mti_net_hears_who_sends_and_joins_the_tasks_in_its_own_order():
    weights, given = imported('mti_net_nyud')
    told = given['distillation.1.messages.normals.weight'].split(36)
    base = 'distillation_scale_1.self_attention'
    for index, receiver in enumerate(('semseg', 'depth')):
        pair = f'{base}.{receiver}.normals'
        assert torch.equal(told[2 * index], weights[f'{pair}.conv.weight'])
        assert torch.equal(told[2 * index + 1], weights[f'{pair}.attention.0.weight'])
    # There semseg, normals, edge, depth are joined, here semantic, depth, edges, normals.
    there = weights['fpm_scale_3.non_linear.0.conv1.weight'].split(144, 1)
    here = given['propagation.2.mask.0.conv1.weight'].split(144, 1)
    order = [next(i for i, x in enumerate(there) if torch.equal(x, block)) for block in here]
    assert order == [0, 3, 2, 1]
    there, here = weights['fpm_scale_1.non_linear.2.bias'], given['propagation.0.mask.2.bias']
    assert torch.equal(here[36:72], there[108:144])
    gate = given['propagation.1.gates.edges.squeeze.weight']
    assert torch.equal(gate[..., 0, 0], weights['fpm_scale_2.se.edge.squeeze.0.weight'])
    assert torch.equal(
        given['initial.3.predict.depth.weight'], weights['scale_3.decoders.depth.weight']
    )


def test_distillation_computes_messages_times_gates_of_the_sender():
    """D_t = F_t + the sum over a of conv(F_a) * sigmoid(conv(F_a)), of imported weights."""
    network = published_network('mti_net_nyud')
    mains, everyone = ('semseg', 'depth'), ('semseg', 'depth', 'edge', 'normals')
    ours = dict(zip(everyone, ('semantic', 'depth', 'edges', 'normals')))
    generator = torch.Generator().manual_seed(3)
    published = {
        f'distillation_scale_0.self_attention.{t}.{a}.{leaf}.weight':
            torch.randn(3, 3, 3, 3, generator=generator)
        for t in mains for a in everyone if a != t for leaf in ('attention.0', 'conv')
    }
    given = renamed(published, read_rules(find_map('mti_net')), network)
    layer = GatedDistillation(3, [ours[t] for t in mains], list(ours.values()))
    layer.load_state_dict({name[len('distillation.0.'):]: x for name, x in given.items()})
    features = {a: torch.randn(1, 3, 5, 4, generator=generator) for a in everyone}
    with torch.no_grad():
        found = layer({ours[a]: feature for a, feature in features.items()})

    def convolved(t: str, a: str, leaf: str) -> torch.Tensor:
        kernel = published[f'distillation_scale_0.self_attention.{t}.{a}.{leaf}.weight']
        return torch.nn.functional.conv2d(features[a], kernel, padding=1)

    for t in mains:
        wanted = features[t] + sum(
            convolved(t, a, 'conv') * convolved(t, a, 'attention.0').sigmoid()
            for a in everyone if a != t
        )
        torch.testing.assert_close(found[ours[t]], wanted)


def test_pad_net_reads_the_joined_levels_one_by_one():
    weights, given = imported('pad_net_nyud')
    joined = weights['backbone.1.last_layer.0.weight']
    for level, (first, last) in enumerate(((0, 18), (18, 54), (54, 126), (126, 270))):
        assert torch.equal(given[f'fuse.0.levels.{level}.weight'], joined[:, first:last])
    pair = 'multi_modal_distillation.self_attention.depth.semseg'  # depth receives
    message, gate = given['distillation.messages.semantic.weight'].chunk(2)
    assert torch.equal(message, weights[f'{pair}.conv.weight'])
    assert torch.equal(gate, weights[f'{pair}.attention.0.weight'])
    assert torch.equal(given['predict.depth.weight'], weights['heads.depth.2.weight'])


def test_demt_counts_its_tasks_and_cuts_its_projections():
    for name, tasks in (
        ('demt_nyud', ('semantic', 'depth', 'normals', 'edges')),
        ('demt_pascal', ('semantic', 'parts', 'saliency', 'normals', 'edges')),
    ):
        weights, given = imported(name)
        for index, task in enumerate(tasks):
            block = f'head.defor_mixers.{index}.blocks.0'
            assert torch.equal(given[f'mixers.{task}.mix.weight'], weights[f'{block}.0.weight'])
            packed = weights[f'head.task_querys.{index}.in_proj_weight'].split(256)
            for part, projection in zip(('query', 'key', 'value'), packed):
                assert torch.equal(given[f'queries.{task}.{part}.weight'], projection)
    linear = weights['head.linear1.0.weight']
    assert torch.equal(given['reduce.levels.2.weight'][..., 0, 0], linear[:, 288:672])
    scores = weights['head.final_logits.sal.weight']
    assert torch.equal(given['heads.saliency.predict.weight'], scores[1:] - scores[:1])
    there = weights['backbone.stages.1.downsample.reduction.weight']
    here = given['encoder.backbone.net.layers_2.downsample.reduction.weight']
    for channel, row, column in ((0, 0, 1), (5, 1, 0), (191, 1, 1)):
        assert torch.equal(
            here[:, (2 * column + row) * 192 + channel], there[:, 4 * channel + 2 * row + column]
        )


def test_densemtl_keeps_who_receives_and_who_sends():
    weights, given = imported('densemtl_nyud_sdne')
    pair = 'm.semseg.1.{}_normals.{}'  # semseg receives
    gate, gated = given['exchange.pairs.semantic.normals.attend_self.weight'].chunk(2)
    assert torch.equal(gate, weights[pair.format('SA', 'attention.0.weight')])
    assert torch.equal(gated, weights[pair.format('SA', 'conv.weight')])
    cross = 'exchange.pairs.semantic.normals.attend_cross'
    for ours, theirs in (('query', 'conv_b'), ('key', 'conv_c'), ('value', 'conv_d')):
        source = weights[pair.format('SxTAM', f'{theirs}.0.weight')]
        assert torch.equal(given[f'{cross}.{ours}.0.weight'], source)
    alpha = weights[pair.format('SxTAM', 'alpha')]
    assert torch.equal(given[f'{cross}.gate'], alpha[0])
    joined = weights['m.normals.1.post.0.weight']
    for index, sender in enumerate(('semantic', 'depth', 'edges')):
        part = joined[:, 128 * index : 128 * (index + 1)]
        assert torch.equal(given[f'exchange.fuse.normals.{sender}.weight'], part)
    final = weights['heads.depth.decoder.14.weight']
    assert torch.equal(given['predict.depth.weight'], final)
    scores = weights['heads.edges.decoder.15.bias']
    assert torch.equal(given['initial_predict.edges.bias'], scores[1:] - scores[:1])


def test_what_does_not_fit_is_told_and_not_bent():
    """A checkpoint of more tasks does not fill a network of fewer."""
    weights = published_weights('densemtl_nyud_sdne')
    network = published_network('densemtl_nyud_sd')
    given = renamed(weights, read_rules(find_map('densemtl')), network)
    with torch.device('meta'):
        matched = load_matching(network, given)
    assert set(matched.other_shape) == {
        'exchange.fuse.semantic.depth.weight', 'exchange.fuse.depth.semantic.weight',
    }
    assert not matched.absent
    assert any(name.startswith('decoders.normals.') for name in matched.unused)


def test_rules_for_layers_that_are_cut_otherwise(tmp_path):
    file = tmp_path / 'names.yaml'

    def given(weights: dict[str, torch.Tensor], **rules: object) -> dict[str, torch.Tensor]:
        file.write_text(yaml.safe_dump({'rules': rules}, sort_keys=False))
        return renamed(weights, read_rules(file))

    pair = {'a': torch.tensor([[1.0, 2, 3, 4]]), 'b': torch.tensor([[5.0, 6, 7, 8]])}
    found = given(pair, a={'to': 'x', 'part': '10'}, b={'to': 'x', 'part': '9'})
    assert found['x'].tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    found = given({'a': pair['a']}, a={'to': 'x', 'reversed': [2, 2]})
    assert found['x'].tolist() == [[1, 3, 2, 4]]
    found = given({'a': torch.tensor([1.0, 4])}, a={'to': 'x', 'logit': True})
    assert found['x'].tolist() == [3]
    for message, rule in (
        ('both become', {'to': 'x', 'part': '0'}),
        ('write a name or null', {'to': 'x', 'other': 1}),
        ('write a name or null', {'axis': 1}),
        ('write a name or null', {'to': 'x', 'axis': 'one'}),
        ('becomes 3', 3),
        ('name map', {'to': 'x', 'reversed': [-1, 3]}),
        ('name map', {'to': '{0}'}),
    ):
        with pytest.raises(TrainingError, match=message):
            given(pair, **{'a|b': rule})
    with pytest.raises(TrainingError, match='do not fit together'):
        given(
            {'a': torch.zeros(1, 2), 'b': torch.zeros(1, 3)},
            **{'(a)': {'to': 'x', 'part': '0'}, 'b': {'to': 'x', 'part': '1'}},
        )


@pytest.mark.slow
def test_a_shipped_map_is_named_on_the_command_line(tmp_path, capsys):
    recipe = yaml.safe_load((ROOT / 'config' / 'train' / 'pad_net_nyud.yaml').read_text())
    recipe['network'].update(mode='published', pretrained=None, size=[64, 64])
    recipe['data']['root'] = 'nowhere'
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, shape in published_shapes('pad_net_nyud').items():
        weights[f'module.{name}'] = (
            0.03 * torch.randn(shape, generator=generator) if len(shape) > 1
            else torch.ones(shape) if name.endswith(('weight', 'var')) else torch.zeros(shape)
        )
    torch.save({'model': weights, 'epoch': 1}, tmp_path / 'checkpoint.pth.tar')
    arguments = [
        '--weights', str(tmp_path / 'checkpoint.pth.tar'), '--out', str(tmp_path / 'bundle'),
        '--config', str(tmp_path / 'recipe.yaml'), '--map',
    ]
    assert main([*arguments, 'pad_net']) == 0
    printed = capsys.readouterr().out
    assert '1040 tensors loaded' in printed
    for kind in ('not in the file', 'of another shape', 'in the file, not of this network'):
        assert f'0 tensors {kind}' in printed
