# SPDX-License-Identifier: Apache-2.0
"""The page of a replay, as a file and in a real browser."""

from __future__ import annotations

import base64
import csv
from html.parser import HTMLParser
import json
from pathlib import Path
import re
from typing import Any

import cv2
from mtl_perception.bags.topics import BagTopics
from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.evaluation.report.html_report import HtmlReport
from mtl_perception.tasks import LabelSet, Task
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import pytest

HOSTILE = '</script><img src=x onerror="alert(1)">&amp;'
FRAMES = 30
CAMERA = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)
TASKS = (
    Task('semantic', 'semantic', LabelSet('two', ('wall', HOSTILE), ((9, 9, 9), (200, 0, 0)))),
    Task('depth', 'depth'),
    Task('normals', 'normals'),
    Task('edges', 'edges', edge_meaning='depth_jumps'),
)


class Report:
    """Stands for what a replay found."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def to_json(self) -> dict[str, Any]:
        return self._document


def frame(index: int, error: float) -> FrameResult:
    """Return a frame whose depth and normals are wrong by known amounts."""
    depth = np.full((24, 32), 2.0, np.float32)
    normals = np.zeros((24, 32, 3), np.float32)
    normals[..., 2] = -1
    turned = np.zeros_like(normals)
    turned[..., 1], turned[..., 2] = np.sin(0.5), -np.cos(0.5)
    labels = np.zeros((24, 32), np.uint8)
    labels[:, 16:] = 1
    image = np.full((24, 32, 3), 8 * index, np.uint8)
    edges = np.zeros((24, 32), np.uint8)
    maps = {
        'semantic': labels, 'depth': depth * np.float32(1 + error), 'normals': turned,
        'edges': edges,
    }  # fmt: skip
    targets = {
        'semantic': np.zeros_like(labels), 'depth': depth, 'normals': normals, 'edges': edges,
    }  # fmt: skip
    return FrameResult(
        index, index * 10**8, frame=Frame(image, 0, 'camera', CAMERA),
        maps=PerceptionMaps(maps, {}, image, CAMERA), targets=targets,
        scores={'depth': {'abs_rel': error}, 'semantic': {'miou': 0.25}},
        ranking=('depth', 'abs_rel', False),
    )  # fmt: skip


def write_page(directory: Path) -> Path:
    """Write the page of two runs over one bag with hostile names."""
    page = directory / 'report.html'
    report = HtmlReport(page)
    for number, name in enumerate(('first', HOSTILE)):
        folder = directory / str(number)
        folder.mkdir()
        context = ReplayContext(name, Path('bag'), BagTopics(), TASKS, folder, FRAMES)
        report.begin(context)
        errors = [0.1 * (number + 1) + 0.01 * ((7 * index) % FRAMES) for index in range(FRAMES)]
        for index, error in enumerate(errors):
            report.frame(frame(index, error))
        report.frame(FrameResult(FRAMES, 0, HOSTILE))
        with (folder / 'per_frame.csv').open('w', newline='') as stream:
            writer = csv.writer(stream)
            writer.writerow(('index', 'stamp_ns', 'refused', 'depth.abs_rel', 'engine_ms'))
            for index, error in enumerate(errors):
                writer.writerow((index, index, '', '' if index == 5 else error, 20.0))
            writer.writerow((FRAMES, 0, HOSTILE, '', ''))
        report.finish(Report({
            'bag': f'/bags/{HOSTILE}', 'model': HOSTILE, 'engine': 'onnxruntime',
            'frames': FRAMES + 1, 'processed': FRAMES, 'frames_per_second': 20.0,
            'scores': {
                'depth': {'abs_rel': 0.25 + 0.1 * number, 'delta1': 0.5 + 0.1 * number},
                'depth_by_distance': {'abs_rel_1_2m': 0.25, 'abs_rel_8m_on': 0.5},
            },
            'class_iou': {'semantic': {'wall': 0.5, HOSTILE: None}},
            'confusion': {'semantic': [[3, 1, 0], [0, 0, 0], [0, 0, 0]]},
            'refused': {HOSTILE: 1}, 'notes': {HOSTILE: 3}, 'warnings': [HOSTILE],
            'damage': [HOSTILE], 'lost': {HOSTILE: {'read': 3, 'recorded': 5}},
            'latency_ms': {'engine': {'mean': 20.0, 'p99': 31.5}},
        }))  # type: ignore[arg-type]  # fmt: skip
    return page


@pytest.fixture(scope='module')
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(tmp_path_factory.mktemp('report'))


class Elements(HTMLParser):
    """Collects every element of a page, as a browser would find them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_refers_to_nothing_outside_and_shows_hostile_names_as_words(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    elements = Elements(text)
    for tag, attributes in elements.found:
        assert not any(name.startswith('on') for name in attributes), (tag, attributes)
        for name in ('src', 'href'):
            target = attributes.get(name)
            assert target is None or target.startswith(('data:', '#')), (tag, target)
        assert tag != 'img' or attributes.get('alt')
    assert 'http:' not in text
    assert 'https:' not in text
    assert sum(tag == 'script' for tag, _ in elements.found) == 2
    # Every place that names it shows it whole.
    assert sum(HOSTILE in words for words in elements.words) > 10


def test_the_summary_says_what_differs(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    row = re.search(r'<th scope="row">depth.abs_rel</th>(.*?)</tr>', text)
    assert row is not None
    assert re.sub(r'<[^>]*>', '|', row[1]).replace('|', '') == '0.2500.350 +0.100 worse'
    row = re.search(r'<th scope="row">depth.delta1</th>(.*?)</tr>', text)
    assert row is not None
    assert re.sub(r'<[^>]*>', '', row[1]) == '0.5000.600 +0.100 better'
    assert '8 m and on' in text


def test_pictures_are_those_of_their_frames(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    data = re.search(r'id="frames-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    (bag,) = json.loads(data[1])['bags']
    assert [run['name'] for run in bag['runs']] == ['first', HOSTILE]
    for run in bag['runs']:
        assert [strip['index'] for strip in run['strips']] == list(range(FRAMES))
    strip = bag['runs'][0]['strips'][9]
    pictures = {}
    for title, source, width, height in strip['pictures']:
        encoded = np.frombuffer(base64.b64decode(source.split(',')[1]), np.uint8)
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
        assert picture.shape == (height, width, 3) == (24, 32, 3)
        pictures[title] = picture.astype(int)
    assert np.abs(pictures['camera'] - 72).max() <= 3
    wrong = pictures['semantic: wrong is orange']
    assert (wrong[:, :16] == (70, 78, 86)).all()
    assert (wrong[:, 16:] == (255, 120, 40)).all()
    # 0.5 rad of 60 degrees, on OpenCV's own scale of colours.
    level = np.uint8([[np.degrees(0.5) / 60 * 255]])
    expected = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[0, 0, ::-1].astype(int)
    assert np.abs(pictures['normal error, 0 to 60°'] - expected).max() <= 6
    assert len(pictures) == 12


def test_worst_and_best_are_the_extremes(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    part = re.search(r'<section id="extremes">(.*?)</section>', text, re.DOTALL)
    assert part is not None
    shown = [int(found) for found in re.findall(r'strip-title">frame (\d+)', part[1])]
    error = {index: (7 * index) % FRAMES for index in range(FRAMES)}
    order = sorted(error, key=lambda index: -error[index])
    assert shown[:4] == order[:4]
    assert shown[4:8] == order[::-1][:4]


def test_the_browser_shows_frame_after_frame_and_asks_the_network_for_nothing(
    page: Path, browser: Any, tmp_path: Path
) -> None:
    browser.open(page)
    assert browser.evaluate('document.title').startswith('Replay of ')
    source = 'document.querySelector("#strips img").src'
    number = 'document.getElementById("frame-number").textContent'
    first = browser.evaluate(source)
    assert browser.evaluate(number) == '0'
    assert browser.evaluate('document.querySelectorAll("#strips .strip").length') == 2
    before = tmp_path / 'before.png'
    browser.screenshot(before)

    browser.evaluate('document.getElementById("slider").focus()')
    browser.press('ArrowRight')
    browser.press('ArrowRight')
    assert browser.evaluate(number) == '2'
    browser.press('End')
    assert browser.evaluate(number) == str(FRAMES - 1)
    browser.press('Home')
    assert browser.evaluate(number) == '0'
    assert browser.evaluate(source) == first
    browser.evaluate('document.activeElement.blur()')
    for _ in range(3):
        browser.press('ArrowRight')
    assert browser.evaluate(number) == '3'
    assert browser.evaluate(source) != first
    after = tmp_path / 'after.png'
    browser.screenshot(after)
    assert before.read_bytes() != after.read_bytes()
    # The line in the charts is at frame 3 of 0 to 30.
    chart = 'document.querySelector(".chart")'
    share = browser.evaluate(
        f'({chart}.querySelector(".cursor").getAttribute("x1") - {chart}.dataset.left)'
        f' / ({chart}.dataset.right - {chart}.dataset.left)'
    )
    assert share == pytest.approx(3 / FRAMES)

    for width in (1280, 400):
        browser.open(page, width=width, dark=width == 400)
        room = 'document.documentElement.scrollWidth - document.documentElement.clientWidth'
        assert browser.evaluate(room) == 0, f'the page is wider than {width} pixels'
        broken = '[...document.images].filter((one) => !one.naturalWidth).length'
        assert browser.evaluate(broken) == 0
        assert browser.evaluate('[...document.images].every((one) => one.alt)')
    # Text of the charts, in pixels of a telephone.
    shown = f'{chart}.getBoundingClientRect().width / {chart}.viewBox.baseVal.width'
    scale = browser.evaluate(shown)
    assert 12 * scale >= 9
    assert browser.messages == []
    assert {url.split(':')[0] for url in browser.requests} <= {'file', 'data'}
