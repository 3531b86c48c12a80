"""How does a Swin Transformer see? Tokens look around inside small windows, and the windows move.

Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (V1). A stem and ever
coarser maps as in a ConvNeXt, blocks as in a ViT. Parameters carry timm's names, so that timm's weights fit.

Maps are square, [B, H, W, C]. What timm keeps in buffers (which table entry belongs to which pair of cells, which
cells are apart) is computed where it is used: a few small operations a block, and no state that could be lost.

Shapes: B pictures, S side of the picture, H = W side of a map, w side of a window, nW windows of a map,
T = w * w cells of a window, N = H * W visual tokens, C channels, h heads.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..preprocessing import Preprocessing
from .layers import Attention, Block, Conv, init_weights
from .pyramid import HierarchicalEncoder, Stage

APART = -100.0  # added to the score of two cells that may not see each other, as in the paper's code


@dataclass(frozen=True)
class SwinConfig:
    """The settings of one Swin architecture. Each stage after the first halves the map."""

    image_size: int = 224
    depths: tuple[int, ...] = (2, 2, 6, 2)
    channels: tuple[int, ...] = (96, 192, 384, 768)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    windows: tuple[int, ...] = (7, 7, 7, 7)  #: side of a window, stage by stage; a map that is smaller is one window
    patch: int = 4  #: side of the patches that the stem cuts
    norm_eps: float = 1e-5
    activation: str = "gelu"

    @property
    def stride(self) -> int:
        return self.patch * 2 ** (len(self.depths) - 1)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(H, W) of every stage; halves are rounded up."""
        return [(-(-(self.image_size // self.patch) // 2**i),) * 2 for i in range(len(self.depths))]


class WindowAttention(Attention):
    """Every token looks at those of its window, and at each by where it lies from there.

        Attention(Q, K, V) = softmax(Q K^T / sqrt(Dh) + B) V,    B_ij = table[row_i - row_j, column_i - column_j]

    ``shifted`` windows begin half a window further right and down, and so cross the borders of the others. The
    map is rolled for that: what leaves at the top comes back at the bottom, where it may not see its neighbours.
    """

    def __init__(self, channels: int, heads: int, *, side: int, window: int, shifted: bool):
        super().__init__(channels, heads)
        self.side, self.window = side, min(window, side)
        self.shift = window // 2 if shifted and side > window else 0
        self.pad = -side % self.window if side else 0
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * self.window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """x [B, H, W, C] -> (y [B, H, W, C], weights [B * nW, h, T, T] | None)."""
        bias = self.relative_position_bias()
        if self.shift:
            bias = bias + APART * self.apart(x.device)  # [nW, h, T, T]
            bias = bias.expand(len(x), *bias.shape).flatten(0, 1)
        y, weights = super().forward(self.to_windows(x), need_weights, bias)
        return self.from_windows(y), weights

    def to_windows(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B * nW, T, C], with cells of zeros where the last windows reach over the edge.

        As in timm, these are looked at like any other: a map that windows do not fill sees a bit of nothing.
        """
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        if self.pad:
            x = F.pad(x, (0, 0, 0, self.pad, 0, self.pad))
        return cut(x, self.window)

    def from_windows(self, x: Tensor) -> Tensor:
        """Back again: [B * nW, T, C] -> [B, H, W, C]."""
        across = (self.side + self.pad) // self.window
        x = x.unflatten(1, (self.window, self.window)).unflatten(0, (-1, across, across))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # [B, H + pad, W + pad, C]
        x = x[:, :self.side, :self.side]
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x

    def relative_position_bias(self) -> Tensor:
        """What the scores gain by how two cells of a window lie to each other, [1, h, T, T]."""
        w, cell = self.window, torch.arange(self.window**2, device=self.relative_position_bias_table.device)
        row, column = cell // w, cell % w
        table = self.relative_position_bias_table.T.unflatten(1, (2 * w - 1, 2 * w - 1))  # [h, 2w-1, 2w-1]
        return table[:, row[:, None] - row + w - 1, column[:, None] - column + w - 1][None]

    def apart(self, device: torch.device) -> Tensor:
        """Which cells share a shifted window without being neighbours in the picture, [nW, 1, T, T]."""
        side = self.side + self.pad
        cell = torch.arange(side, device=device)
        strip = (cell >= side - self.window).int() + (cell >= side - self.shift).int()
        region = 3 * strip[:, None] + strip  # [H, W], nine regions that only the last windows mix
        region = cut(region[None, :, :, None], self.window)  # [nW, T, 1]
        return (region != region.mT)[:, None]

    def received(self, weights: Tensor) -> Tensor:
        """What each token gets, mean over heads and all N tokens: weights [B * nW, h, T, T] -> [B, N].

        From other windows it gets nothing. Padding is no token: what it gives or gets is left out.
        """
        windows = ((self.side + self.pad) // self.window) ** 2
        token = self.to_windows(weights.new_ones(len(weights) // windows, self.side, self.side, 1))
        received = (weights.mean(dim=1) * token).sum(dim=1)  # row looks at column
        return self.from_windows(received[..., None]).flatten(1) / self.side**2


def cut(x: Tensor, window: int) -> Tensor:
    """A map that windows fill, window by window: [B, H, W, C] -> [B * nW, T, C]."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # [B, H/w, w, W/w, w, C]
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


class PatchMerging(nn.Module):
    """Halve the map: the four cells of a square are joined, normalized and projected to one."""

    def __init__(self, before: int, channels: int, norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * before, eps=norm_eps)
        self.reduction = nn.Linear(4 * before, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C] -> [B, H/2, W/2, C']
        odd = x.shape[1] % 2
        x = F.pad(x, (0, 0, 0, odd, 0, odd))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, H/2, 2, W/2, 2, C]
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class Swin(HierarchicalEncoder):
    """Swin Transformer without its classifier; every second block's windows are shifted.

    A picture need not fill its grid: where a map is odd, the last cells reach over the picture's edge.
    """

    def __init__(self, config: SwinConfig, *, name: str, preprocessing: Preprocessing):
        super().__init__(config, name=name, preprocessing=preprocessing)
        first, eps = config.channels[0], config.norm_eps
        self.patch_embed = nn.Sequential(OrderedDict(proj=Conv(3, first, config.patch, stride=config.patch),
                                                     norm=nn.LayerNorm(first, eps=eps)))
        self.layers = nn.ModuleList(
            Stage(PatchMerging(config.channels[i - 1], C, eps) if i else nn.Identity(), (
                Block(WindowAttention(C, config.heads[i], side=side, window=config.windows[i], shifted=block % 2 == 1),
                      C, 4 * C, norm_eps=eps, activation=config.activation)
                for block in range(config.depths[i])))
            for i, (C, (side, _)) in enumerate(zip(config.channels, config.grids, strict=True)))
        self.norm = nn.LayerNorm(self.channels, eps=eps)
        self.apply(init_weights)

    def parts(self) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        return self.patch_embed, self.layers, self.norm

    def block_signals(self, number: int) -> tuple[str, ...]:
        return ("attention_received",)

    def run_block(self, block: Block, x: Tensor, asked: bool, *sparse) -> tuple[Tensor, Tensor | None]:
        x, weights = block(x, asked, *sparse)
        return x, None if weights is None else block.attn.received(weights)
