# SPDX-License-Identifier: Apache-2.0
"""Single precision at least: where half precision would ruin a result and double must stay."""

from __future__ import annotations

import torch
from torch import Tensor


def precise_type(dtype: torch.dtype) -> torch.dtype:
    """Return float64 for float64 and float32 for every narrower type."""
    return torch.promote_types(dtype, torch.float32)


def promote(x: Tensor) -> Tensor:
    """Return half precision as float32, float32 and float64 as they are."""
    return x.to(precise_type(x.dtype))
