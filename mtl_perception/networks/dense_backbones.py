# SPDX-License-Identifier: Apache-2.0
"""What networks for dense prediction do otherwise than timm's, which are made to classify."""

from __future__ import annotations

from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn, Tensor
from torch.nn import functional


class PadFirstBlock(SwinTransformerBlock):
    """
    A Swin block that pads its map to whole windows first, then shifts (Liu et al. 2021, 3.2).

    timm shifts first: where the sides are no multiple of the window, the mask then misses the
    rows that came round, and the top of the image attends to its bottom.
    """

    def _attn(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the attention's update of the same shape."""
        height, width = x.shape[1:3]
        below, right = -height % self.window_size[0], -width % self.window_size[1]
        padded = functional.pad(x, (0, 0, 0, right, 0, below))
        return super()._attn(padded)[:, :height, :width]


def make_dense(net: nn.Module) -> None:
    """
    Make a timm feature extractor in place what the dense-prediction papers use; weights stay.

    * HRNet adds coarser levels enlarged bilinearly (Wang et al. 2020, as MTI-Net and DeMT use it),
      not by repeating pixels;
    * Swin pads before it shifts: `PadFirstBlock`.
    """
    for module in net.modules():
        if isinstance(module, nn.Upsample):
            module.mode, module.align_corners = 'bilinear', False
        elif type(module) is SwinTransformerBlock:
            module.__class__ = PadFirstBlock
