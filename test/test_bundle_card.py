# SPDX-License-Identifier: Apache-2.0
"""The card says what the manifest says."""

from __future__ import annotations

from dataclasses import replace

from mtl_perception.bundle_card import write_card
from mtl_perception.manifest import Manifest
from mtl_perception.tasks import standard_tasks

MANIFEST = Manifest(
    name='rooms small',
    system='mti_net',
    backbone='mobilenetv2_100',
    tasks=standard_tasks('rooms'),
    network_size=(240, 320),
    label_scale=0.5,
    reference_focal_px=277.5,
    depth_range_m=(0.25, 12.0),
    description='A small network for a small robot.',
    limitations=('It has never seen a street.',),
    provenance={'initialised_from': 'ImageNet', 'training': {'frames': 9000, 'seeds': [1, 2]}},
    scores={
        'this network': {'semantic/miou': 0.61234, 'depth/rmse': 0.25},
        'constant': {'semantic/miou': 0.02, 'depth/rmse': None},
    },
)


def table(card: str, heading: str) -> list[list[str]]:
    """Read the first table after a heading."""
    lines = iter(card.split(f'{heading}\n', 1)[1].splitlines())
    rows = []
    for line in lines:
        if line.startswith('|'):
            rows.append([cell.strip() for cell in line.strip('|').split('|')])
        elif rows:
            break
    return [rows[0], *rows[2:]]


def test_scores_stand_beside_what_they_are_compared_with() -> None:
    assert table(write_card(MANIFEST), '## Scores') == [
        ['metric', 'this network', 'constant'],
        ['semantic/miou', '0.6123', '0.02'],
        ['depth/rmse', '0.25', 'not available'],
    ]


def test_outputs_have_their_own_sizes() -> None:
    rows = {row[0]: row for row in table(write_card(MANIFEST), '## What it is')}
    assert rows['`semantic`'][1:3] == ['semantic', '160x120']
    assert '18 classes: wall, floor' in rows['`semantic`'][3]
    assert rows['`depth`'][2] == '320x240'
    assert '0.25 to 12 m at a focal length of 277.5 px' in rows['`depth`'][3]
    # What simulation/render.py draws between objects, not only where two labels meet.
    assert 'the corner of two walls too) or a jump of depth' in rows['`edges`'][3]


def test_edges_of_other_labels_are_their_borders() -> None:
    card = write_card(replace(MANIFEST, tasks=standard_tasks('nyu13')))
    rows = {row[0]: row for row in table(card, '## What it is')}
    assert rows['`edges`'][3] == 'probability of label borders'


def test_training_limits_and_description_are_told() -> None:
    card = write_card(MANIFEST)
    assert card.startswith('# rooms small\n\nA small network for a small robot.\n')
    assert '* initialised from: ImageNet\n' in card
    assert '* training\n  * frames: 9000\n  * seeds: 1, 2\n' in card
    assert '* It has never seen a street.\n' in card


def test_price_of_small_labels_is_told_where_it_was_measured() -> None:
    assert 'another label' not in write_card(MANIFEST)
    assert 'on the check frame 1.25% of the pixels' in write_card(MANIFEST, 0.0125)
    full = replace(MANIFEST, label_scale=1.0)
    assert 'another label' not in write_card(full)
    assert '1.25% of the pixels of the check frame would get another' in write_card(full, 0.0125)
