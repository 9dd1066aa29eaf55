# SPDX-License-Identifier: Apache-2.0
"""The report of a run says what was logged, in one file that needs no other."""

from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser
import re
import xml.etree.ElementTree as ET

import cv2
from mtl_perception.manifest import Manifest
from mtl_perception.tasks import standard_tasks
from mtl_perception.training.report import read_log, write_report
import numpy as np
import pytest

MANIFEST = Manifest(
    name='report', system='mti_net', backbone='mobilenetv2_100', tasks=standard_tasks('rooms'),
    network_size=(48, 64), reference_focal_px=60.0, depth_range_m=(0.2, 20.0),
    description='Rooms & <things>.',
    scores={
        'this network': {'depth.abs_rel': 0.1234567, 'semantic.miou': None},
        'constant': {'depth.abs_rel': 0.9, 'semantic.miou': 0.01},
    },
    provenance={'steps': 30, 'date': '2026-01-02', 'frames': {'train': 7, 'validation': 2}},
)


@pytest.fixture
def run(tmp_path):
    """A run of thirty steps that was stopped at 20 and resumed from 10."""
    head = 'epoch,loss,loss/depth,step,validation/depth.abs_rel\n'
    for first, rows in (
        (0, ['0,8.0,4.0,9,', '0,,,9,0.5', '0,7.0,3.5,19,']),
        (10, ['0,6.0,3.0,19,', '0,5.0,2.5,29,', '0,,,29,0.25']),
    ):
        log = tmp_path / 'log' / f'from_step_{first:07d}' / 'metrics.csv'
        log.parent.mkdir(parents=True)
        log.write_text(head + '\n'.join(rows) + '\n')
    (tmp_path / 'pictures').mkdir()
    for index, name in enumerate(('final', *(f'step_{step:07d}' for step in range(10, 70, 10)))):
        image = np.full((20, 30, 3), 30 * index, np.uint8)
        assert cv2.imwrite(str(tmp_path / 'pictures' / f'{name}.png'), image)
    return tmp_path


def test_the_log_of_a_resumed_run_is_one_curve(run):
    series = read_log(run / 'log')
    assert series['loss'] == [(10, 8.0), (20, 6.0), (30, 5.0)]
    assert series['loss/depth'] == [(10, 4.0), (20, 3.0), (30, 2.5)]
    assert series['validation/depth.abs_rel'] == [(10, 0.5), (30, 0.25)]
    assert 'epoch' not in series


class Page(HTMLParser):
    """Collects table rows, pictures and what is loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.rows, self.pictures, self.outside = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == 'tr':
            self.rows.append([])
        if tag == 'img':
            self.pictures.append(values['src'])
        self.outside += [
            value for name, value in attributes
            if name in ('src', 'href', 'xlink:href') and not value.startswith(('data:', '#'))
        ]

    def handle_data(self, data):
        if self.rows and data.strip():
            self.rows[-1].append(data.strip())


def test_the_page_holds_scores_curves_and_pictures(run):
    text = write_report(MANIFEST, run).read_text(encoding='utf-8')
    page = Page()
    page.feed(text[: text.index('<h2>Truth')])
    assert page.rows[:3] == [
        ['score', 'this network', 'constant'],
        ['depth.abs_rel', '0.1235', '0.9'],
        ['semantic.miou', '–', '0.01'],
    ]
    page.feed(text[text.index('<h2>Truth') :])
    assert not page.outside
    assert '<script' not in text
    assert 'Rooms &amp; &lt;things&gt;.' in text
    assert 'mti_net on mobilenetv2_100, 64x48, 30 steps, 7 frames train, 2 frames val' in text
    # The last picture, and four of the six validations with the first and the last.
    shown = [
        int(cv2.imdecode(
            np.frombuffer(base64.b64decode(each.partition(',')[2]), np.uint8), cv2.IMREAD_COLOR
        ).mean()) for each in page.pictures
    ]
    assert shown == pytest.approx([0, 30, 90, 120, 180], abs=2)
    svg = ET.fromstring(re.search(r'<svg.*</svg>', text, re.DOTALL).group())
    labels = [''.join(each.itertext()) for each in svg.iter('{http://www.w3.org/2000/svg}text')]
    assert 'depth: abs_rel (lower is better)' in labels
    assert 'training loss' in labels


def test_a_run_without_validation_or_pictures_has_a_report(tmp_path):
    (tmp_path / 'log').mkdir()
    text = write_report(replace(MANIFEST, scores={}), tmp_path).read_text(encoding='utf-8')
    assert '<svg' in text
