"""The layers that our encoders share: convolution, MLP, attention, and the block that two of them make.

Shapes: B pictures, H, W height and width of a map, T tokens that attend to each other, C channels, h heads, Dh = C / h.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import attend, attend_with_policy
from ..pruning.spatial import KeptCells, MaskedCells

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),  # OpenAI's CLIP
}


class Conv(nn.Conv2d):
    """A convolution on a channels-last map: [B, H, W, C] -> [B, H', W', C']."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Mlp(nn.Module):
    """Two matrices with an activation between them, on the last axis: [..., C] -> [..., C]."""

    def __init__(self, channels: int, hidden: int, activation: str = "gelu"):
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Attention(nn.Module):
    """Every token looks at every token, h times side by side."""

    def __init__(self, channels: int, heads: int, qkv_bias: bool = True, projection_bias: bool = True):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels, bias=projection_bias)

    def forward(self, x: Tensor, need_weights: bool = False, mask: Tensor | None = None,
                policy: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x [B, T, C] -> (y [B, T, C], weights [B, h, T, T] | None). mask, policy: see ``attend``,
        ``attend_with_policy``."""
        return self.mix(*self.project(x), need_weights, mask, policy)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, C] -> queries, keys, values, each [B, h, T, Dh]."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, need_weights: bool = False, mask: Tensor | None = None,
            policy: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What ``project`` gives -> what ``forward`` gives."""
        y, weights = (attend(q, k, v, mask, need_weights=need_weights) if policy is None
                      else attend_with_policy(q, k, v, policy, need_weights=need_weights))
        return self.proj(y.transpose(1, 2).flatten(2)), weights


class LayerScale(nn.Module):
    """One learned factor per channel."""

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)): ViT's block and Swin's, which differ in their attention."""

    def __init__(self, attn: Attention, channels: int, hidden: int, *, norm_eps: float, activation: str,
                 layer_scale: float | None = None):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=norm_eps)
        self.attn = attn
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(channels, layer_scale)
        self.norm2 = nn.LayerNorm(channels, eps=norm_eps)
        self.mlp = Mlp(channels, hidden, activation)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(channels, layer_scale)

    def forward(self, x: Tensor, need_weights: bool = False, cells: KeptCells | MaskedCells | None = None,
                fast: nn.Linear | None = None, **more) -> tuple[Tensor, Tensor | None]:
        """x [B, T, C] (Swin: [B, H, W, C]) -> (the same, weights | None); ``more`` goes to the attention.

        With ``cells`` of a map the MLP is for those alone, and ``fast`` for the others.
        """
        y, weights = self.attn(self.norm1(x), need_weights, **more)
        return self.mlp_branch(x + self.ls1(y), cells, fast), weights

    def mlp_branch(self, x: Tensor, cells: KeptCells | MaskedCells | None = None,
                   fast: nn.Linear | None = None) -> Tensor:
        """The second half, in which every token is by itself."""
        y = self.norm2(x)
        return x + self.ls2(self.mlp(y) if cells is None else cells.route(y, self.mlp, fast))


def init_weights(module: nn.Module) -> None:
    """Normal weights cut at two, of deviation 0.02, and zero biases: what all our encoders start from."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
