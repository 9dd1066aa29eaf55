# SPDX-License-Identifier: Apache-2.0
"""The error of this room."""

from mtl_perception.errors import MtlPerceptionError


class BagError(MtlPerceptionError):
    """A recording that cannot be read; the message names the file, the topic and the remedy."""
