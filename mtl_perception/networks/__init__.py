# SPDX-License-Identifier: Apache-2.0
"""Multi-task networks: one file per system, any backbone, one door (`build_network`)."""

from __future__ import annotations

from mtl_perception.networks.build import build_network, MODES, SYSTEMS
from mtl_perception.networks.errors import NetworkError
from mtl_perception.networks.network import Network
from mtl_perception.networks.outputs import Outputs

__all__ = ['MODES', 'SYSTEMS', 'Network', 'NetworkError', 'Outputs', 'build_network']
