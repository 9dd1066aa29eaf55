# SPDX-License-Identifier: Apache-2.0
"""Processes, subscribers and a DDS domain of its own for every test over real topics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
import fcntl
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest

# Above 101 the ports of DDS lie among those that Linux hands out to any program.
_DOMAINS = range(1, 102)


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Reserve a ROS_DOMAIN_ID that no other test of this package uses at the same time."""
    start = os.getpid() % len(_DOMAINS)
    for number in (*_DOMAINS[start:], *_DOMAINS[:start]):
        lock = Path(tempfile.gettempdir(), f'mtl_perception_test_domain_{number}')
        with lock.open('w') as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            monkeypatch.setenv('ROS_DOMAIN_ID', str(number))
            monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
            yield number
            return
    pytest.fail('every ROS domain is in use by other tests')


@dataclass
class Running:
    """A process started by a test, and what it said so far."""

    process: subprocess.Popen[bytes]
    output_file: Path

    @property
    def output(self) -> str:
        """Everything it printed, standard error included."""
        return self.output_file.read_text(errors='replace')

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f'still running after {timeout_s} s; it said:\n{self.output}')

    def wait_for_output(self, text: str, timeout_s: float) -> None:
        """Wait until it has printed `text`."""
        deadline = time.monotonic() + timeout_s
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f'never said {text!r}; it said:\n{self.output}')
            time.sleep(0.05)

    def interrupt(self, timeout_s: float = 10) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait(timeout_s)


@pytest.fixture
def start(ros_domain: int, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts Python with arguments; all is killed after the test."""
    started: list[Running] = []

    def run(*arguments: object, env: dict[str, str] | None = None) -> Running:
        file = tmp_path / f'process_{len(started)}.txt'
        with file.open('wb') as stream:
            process = subprocess.Popen(
                [sys.executable, *(str(argument) for argument in arguments)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'OMP_NUM_THREADS': '1', **(env or {})},
            )
        started.append(Running(process, file))
        return started[-1]

    yield run
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()


@pytest.fixture
def start_command(start: Callable[..., Running]) -> Callable[..., Running]:
    """Return a function that starts `python3 -m mtl_perception` with arguments."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Running:
        return start('-m', 'mtl_perception', *arguments, env=env)

    return run


@dataclass
class Listener:
    """A plain rclpy node of the test's own process that keeps every message it hears."""

    node: Any
    executor: Any
    heard: dict[str, list[Any]] = field(default_factory=dict)

    def subscribe(self, kind: Any, topic: str, profile: Any = 10, **options: Any) -> list[Any]:
        """Subscribe to a topic and return the list that its messages will be put into."""
        messages: list[Any] = []
        self.heard[topic] = messages
        self.node.create_subscription(kind, topic, messages.append, profile, **options)
        return messages

    def spin_until(
        self, condition: Callable[[], object], timeout_s: float, running: Sequence[Running] = ()
    ) -> None:
        """Receive until `condition` holds; fail after the time, or when a process ends."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            said = '\n'.join(one.output for one in running)
            if time.monotonic() > deadline:
                counts = {topic: len(messages) for topic, messages in self.heard.items()}
                pytest.fail(f'nothing within {timeout_s} s; heard {counts}; said:\n{said}')
            if any(one.process.poll() not in (None, 0) for one in running):
                pytest.fail(f'a process ended: {said}')
            self.executor.spin_once(timeout_sec=0.05)

    def spin_for(self, seconds: float) -> None:
        """Receive for a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)


@pytest.fixture
def listener(ros_domain: int) -> Iterator[Listener]:
    """Return a node to subscribe with."""
    rclpy = pytest.importorskip('rclpy')
    from mtl_perception.ros.dds import use_large_message_profile

    use_large_message_profile()
    context = rclpy.Context()
    rclpy.init(context=context, args=[], domain_id=ros_domain)
    node = rclpy.create_node('listener', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield Listener(node, executor)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)
