# SPDX-License-Identifier: Apache-2.0
"""A signal and the program may both end rclpy; nothing else is swallowed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip('rclpy')
from mtl_perception.ros.shutdown import shut_down
import rclpy

pytestmark = pytest.mark.ros


@pytest.fixture
def running(ros_domain: int) -> Iterator[None]:
    rclpy.init(args=[], domain_id=ros_domain)
    yield
    # A test that failed must not leave its context to the next.
    rclpy.get_default_context().try_shutdown()


def test_the_context_ends(running: None) -> None:
    shut_down()
    assert not rclpy.ok()
    shut_down()


def test_a_signal_that_was_quicker_is_no_error(
    running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_call() -> None:
        rclpy.shutdown()
        rclpy.shutdown()

    monkeypatch.setattr(rclpy, 'try_shutdown', second_call)
    with pytest.raises(Exception, match='shutdown'):
        second_call()
    rclpy.init(args=[])
    shut_down()
    assert not rclpy.ok()


def test_a_context_that_cannot_be_ended_is_an_error(
    running: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError('no')

    with monkeypatch.context() as patch:
        patch.setattr(rclpy, 'try_shutdown', fail)
        with pytest.raises(RuntimeError, match='no'):
            shut_down()
    shut_down()
