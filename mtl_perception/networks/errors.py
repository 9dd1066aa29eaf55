# SPDX-License-Identifier: Apache-2.0
"""The one error class of the networks room."""

from __future__ import annotations

from mtl_perception.errors import MtlPerceptionError


class NetworkError(MtlPerceptionError):
    """A network, backbone or weight file that cannot be built or loaded as asked."""
