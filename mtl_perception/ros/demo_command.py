# SPDX-License-Identifier: Apache-2.0
"""`demo`: a rendered camera and the live node as two processes on real topics, watched."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
import shlex
import subprocess
import time
from typing import Any

from mtl_perception.files import write_json
from mtl_perception.manifest import load_manifest
from mtl_perception.ros.child import child
from mtl_perception.ros.errors import RosError

_START_LIMIT_S = 120.0
_EXAMPLE = """examples:
  python3 -m mtl_perception demo
      open the printed address in a browser; Ctrl-C ends it
  python3 -m mtl_perception demo --headless --duration 20 --out out
      save one picture per output and a contact sheet; fails unless every output lives
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return 1 if an output is missing, constant or frozen."""
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception demo',
        description='Show every output of the live node on rendered rooms: no robot, no GPU, '
        'no dataset. Camera and perception are separate processes over real DDS.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', type=Path, help='bundle directory; default: the shipped one')
    parser.add_argument(
        '--camera', default='rooms', metavar='SOURCE',
        help='what the camera shows, with the options of `camera --help`: rooms, "video:PATH '
        '--fov-deg 69", "device:N --camera-info FILE" or "images:DIR ..." (default: rooms)',
    )
    parser.add_argument(
        '--rate', type=float,
        help='camera frames per second, as in `camera --help` (default: the source decides)',
    )
    parser.add_argument('--seed', type=int, default=1, help='which rooms are rendered')
    parser.add_argument(
        '--duration', type=float, metavar='S',
        help='end this long after the first output (default: 20 with --headless, else never)',
    )
    parser.add_argument('--headless', action='store_true', help='no viewer; save pictures')
    parser.add_argument(
        '--out', type=Path, default=Path('out'), help='where --headless saves (default: out)'
    )
    arguments = parser.parse_args(argv)
    if arguments.duration is not None and arguments.duration <= 0:
        parser.error(f'--duration is {arguments.duration}; it must be positive')
    if not arguments.camera.strip():
        parser.error('--camera is empty; name a source, for example rooms')
    if arguments.camera.startswith('bag:'):
        parser.error('a bag has topics of its own: play it with `camera` and `live`')
    if arguments.headless and arguments.duration is None:
        arguments.duration = 20.0
    if arguments.model is not None:
        load_manifest(arguments.model)  # said at once, not by one of two processes
    # What runs here stays here: a robot on the same network must not see the demo's topics.
    from mtl_perception.ros.dds import stay_on_this_machine, use_large_message_profile

    stay_on_this_machine()
    use_large_message_profile()
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from mtl_perception.ros.shutdown import shut_down
    import rclpy
    from rclpy.executors import ExternalShutdownException

    with ExitStack() as stack:
        viewer = None
        if not arguments.headless:
            from mtl_perception.ros.viewer import Viewer

            viewer = Viewer()
            print(f'viewer: {viewer.address}', flush=True)
        rclpy.init(args=[])
        stack.callback(shut_down)
        node = rclpy.create_node('mtl_perception_demo')
        children = [
            ('camera', stack.enter_context(child('camera', _camera_arguments(arguments)))),
            ('live', stack.enter_context(child('live', _live_arguments(arguments)))),
        ]
        from mtl_perception.ros.observer import Observer

        observer = Observer(node)
        try:
            _watch(node, observer, viewer, children, arguments.duration)
        except (KeyboardInterrupt, ExternalShutdownException):
            if arguments.headless:
                raise
    return _report(observer, arguments)


def _camera_arguments(arguments: argparse.Namespace) -> list[str]:
    source, *options = shlex.split(arguments.camera)
    if arguments.rate is not None:
        options += ['--rate', str(arguments.rate)]
    if source == 'rooms':  # before its own options: a seed among them wins
        options = ['--seed', str(arguments.seed), *options]
    return [source, *options]


def _live_arguments(arguments: argparse.Namespace) -> list[str]:
    from mtl_perception.ros.observer import CAMERA_IMAGE

    result = [] if arguments.model is None else ['--model', str(arguments.model)]
    return [
        *result, '--ros-args',
        '-r', f'image:={CAMERA_IMAGE}',
        '-r', f'camera_info:={CAMERA_IMAGE.rpartition("/")[0]}/camera_info',
    ]


def _watch(
    node: Any,
    observer: Any,
    viewer: Any,
    children: list[tuple[str, subprocess.Popen[bytes]]],
    duration: float | None,
) -> None:
    """Spin until the time is over; show progress; fail when a child dies or nothing comes."""
    import rclpy
    from rich.console import Console

    console = Console(stderr=True)
    shown: dict[str, int] = {}
    start = time.monotonic()
    first: float | None = None
    with console.status('starting camera and perception ...') as status:
        while True:
            rclpy.spin_once(node, timeout_sec=0.1)
            now = time.monotonic()
            for name, process in children:
                if process.poll() == 0 and name == 'camera':
                    console.print('the camera has come to its end')
                    return
                if process.poll() is not None:
                    msg = f'the {name} process ended with code {process.returncode}; see above'
                    raise RosError(msg)
            points = observer.records['points']
            if first is None:
                if points.received:
                    first = now
                    console.print(f'first outputs after {now - start:.1f} s')
                elif now - start > _START_LIMIT_S:
                    msg = (
                        f'no cloud within {_START_LIMIT_S:.0f} s; has the camera intrinsics '
                        '(--fov-deg or --camera-info), and is DDS on localhost allowed?'
                    )
                    raise RosError(msg)
                continue
            left = '' if duration is None else f', {max(0.0, duration - now + first):.0f} s left'
            status.update(
                f'{points.received} clouds, {points.rate_hz:.1f} Hz, '
                f'latency {points.latency_ms:.0f} ms{left}'
            )
            if viewer is not None:
                for topic, record in observer.records.items():
                    if record.received > shown.get(topic, 0):
                        shown[topic] = record.received
                        viewer.show(topic, record.latest)
            if duration is not None and now - first >= duration:
                return


def _report(observer: Any, arguments: argparse.Namespace) -> int:
    """Print the table, save what --headless promises, and judge."""
    from mtl_perception.ros.observer import OUTPUTS
    from rich.console import Console
    from rich.table import Table

    complaints = observer.complaints
    table = Table('topic', 'encoding', 'Hz', 'latency ms', 'verdict')
    rows = []
    for topic in OUTPUTS:
        record = observer.records[topic]
        verdict = complaints.get(topic, 'fine')
        latency = '' if record.latency_ms != record.latency_ms else f'{record.latency_ms:.0f}'
        table.add_row(topic, record.encoding, f'{record.rate_hz:.1f}', latency, verdict)
        rows.append({
            'topic': topic, 'encoding': record.encoding, 'received': record.received,
            'rate_hz': round(record.rate_hz, 2), 'latency_ms': latency and float(latency),
            'verdict': verdict,
        })
    Console().print(table)
    if arguments.headless:
        from mtl_perception.ros.demo_pictures import save_pictures

        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out / 'demo.json', {'topics': rows})
        save_pictures(observer, arguments.out)
        print(f'pictures: {arguments.out}/contact_sheet.png')
    return 1 if complaints and arguments.headless else 0
