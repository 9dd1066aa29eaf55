# SPDX-License-Identifier: Apache-2.0
"""Which engine the running perception node has, by its diagnostics."""

from __future__ import annotations

from threading import Event

from diagnostic_msgs.msg import DiagnosticArray
from mtl_perception.ros import qos
from rclpy.node import Node


class EngineListener:
    """Hears on /diagnostics what the perception node says of its engine."""

    def __init__(self, node: Node) -> None:
        self._heard = Event()
        self._engine = ''
        self._subscription = node.create_subscription(
            DiagnosticArray, '/diagnostics', self._receive, qos.diagnostics()
        )

    def wait(self, timeout_s: float) -> str:
        """Return the engine's name once it is said, '' if it is not said in time."""
        self._heard.wait(timeout_s)
        return self._engine

    def _receive(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {entry.key: entry.value for entry in status.values}
            if status.name.endswith(': perception') and values.get('engine'):
                self._engine = values['engine']
                self._heard.set()
