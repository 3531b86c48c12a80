"""Does it matter how tokens are mixed? MetaFormer: one block, a Transformer's, with any of five mixers in it.

Yu et al. 2022, "MetaFormer Is Actually What You Need for Vision" (pooling); Yu et al. 2024, "MetaFormer Baselines for
Vision" (the other mixers, StarReLU, a factor on the residual). Parameters carry timm's names, so that timm's weights
fit: its PoolFormers (V1 and V2), ConvFormers and CAFormers are configurations of this file. The papers' identity and
random mixers are not in timm; a ``MetaFormerConfig`` that names them builds them.

Maps are [B, H, W, C] all the way, as in ``convnext``. (timm has [B, C, H, W], with 1x1 convolutions for the matrices,
and rows of tokens around attention; it computes the same.)

Shapes: B pictures, S side of the picture, H, W height and width of a map, N = H * W, C channels, h heads, Dh = C / h.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from ..preprocessing import Preprocessing
from ..pruning.spatial import KeptCells, MaskedCells
from .layers import Attention, Conv, init_weights
from .pyramid import HierarchicalEncoder, Stage


@dataclass(frozen=True)
class MetaFormerConfig:
    """The settings of one MetaFormer architecture. Each stage after the first halves the map.

    Raises InputError for a mixer, norm or activation that is not there, and where stages are counted unequally.
    """

    image_size: int = 224
    depths: tuple[int, ...] = (2, 2, 6, 2)
    channels: tuple[int, ...] = (64, 128, 320, 512)
    mixers: tuple[str, ...] = ("pooling",) * 4  #: how each stage mixes its tokens, by the names in ``MIXERS``
    head_channels: int = 32  #: Dh, the width of an attention head
    norm: str = "map"  #: over "cell", the channels of each cell, or "map", all cells and channels
    norm_bias: bool = False
    norm_eps: float = 1e-6
    downsample_norm: bool = True  #: LayerNorm after the stem, and before each convolution that halves the map
    activation: str = "star_relu"
    mlp_bias: bool = False
    layer_scale: float | None = None  #: start value of a factor per channel on what a branch adds; None: no factor
    residual_scale: tuple[bool, ...] = (False, False, True, True)  #: stages whose residual has a factor too, 1 at first

    def __post_init__(self):
        for field in ("channels", "mixers", "residual_scale"):
            if (entries := len(getattr(self, field))) != len(self.depths):
                raise InputError(f"MetaFormerConfig: {field} has {entries} entries and depths {len(self.depths)}; "
                                 "give both one a stage")
        for known, names in ((MIXERS, self.mixers), (NORMS, (self.norm,)), (ACTIVATIONS, (self.activation,))):
            for name in names:
                if name not in known:
                    raise InputError(f"MetaFormerConfig: there is no {name!r}; choose from {', '.join(known)}")

    @property
    def stride(self) -> int:
        return 4 * 2 ** (len(self.depths) - 1)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(H, W) of every stage."""
        side = (self.image_size + 1) // 4  # after the stem
        return [(-(-side // 2**stage),) * 2 for stage in range(len(self.depths))]


class MapNorm(nn.LayerNorm):
    """LayerNorm over a whole map at once (GroupNorm with one group), then a factor per channel."""

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C] -> the same shape
        x = x.permute(0, 3, 1, 2)
        return F.group_norm(x, 1, self.weight, self.bias, self.eps).permute(0, 2, 3, 1)


class StarReLU(nn.Module):
    """s * relu(x)^2 + b with learned s and b: cheaper than GELU, and no worse in the paper."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.relu().square() + self.bias


class Pooling(nn.Module):
    """The mean of a cell and its neighbours. The block adds the cell itself again, so it is taken off here."""

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C] -> the same shape
        mean = F.avg_pool2d(x.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)
        return mean.permute(0, 2, 3, 1) - x


class SeparableConvolution(nn.Module):
    """Twice the channels, a 7x7 convolution of each by itself, and back (Sandler et al. 2018, MobileNetV2)."""

    def __init__(self, channels: int):
        super().__init__()
        wide = 2 * channels
        self.pwconv1 = nn.Linear(channels, wide, bias=False)
        self.act1 = StarReLU()
        self.dwconv = Conv(wide, wide, 7, padding=3, groups=wide, bias=False)
        self.pwconv2 = nn.Linear(wide, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C] -> the same shape
        return self.pwconv2(self.dwconv(self.act1(self.pwconv1(x))))


class MapAttention(Attention):
    """Every cell looks at every cell, h times side by side."""

    def __init__(self, channels: int, head_channels: int):
        super().__init__(channels, channels // head_channels, qkv_bias=False, projection_bias=False)

    def attend(self, x: Tensor, need_weights: bool) -> tuple[Tensor, Tensor | None]:
        """x [B, H, W, C] -> (y [B, H, W, C], weights [B, h, N, N] | None)."""
        y, weights = super().forward(x.flatten(1, 2), need_weights)
        return y.view(x.shape), weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, need_weights=False)[0]


class RandomMixing(nn.Module):
    """Every cell becomes a fixed random mean of all cells: attention that looks at nothing and learns nothing.

    The matrix [N, N] is drawn once, by torch's generator as all first weights are: the softmax of uniform numbers, so
    that rows sum to 1. It is saved with the weights and never trained, and it binds the encoder to one image size.
    """

    def __init__(self, cells: int):
        super().__init__()
        self.register_buffer("weights", torch.rand(cells, cells).softmax(dim=-1))

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C] -> the same shape
        return (self.weights @ x.flatten(1, 2)).view(x.shape)


# What builds a mixer for C channels, in heads of Dh, on N cells.
MIXERS = {
    "identity": lambda C, Dh, N: nn.Identity(),
    "random": lambda C, Dh, N: RandomMixing(N),
    "pooling": lambda C, Dh, N: Pooling(),
    "convolution": lambda C, Dh, N: SeparableConvolution(C),
    "attention": lambda C, Dh, N: MapAttention(C, Dh),
}
NORMS = {"cell": nn.LayerNorm, "map": MapNorm}
ACTIVATIONS = {"gelu": nn.GELU, "star_relu": StarReLU}


class Scale(nn.Module):
    """One learned factor per channel."""

    def __init__(self, channels: int, start: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Block(nn.Module):
    """x + mixer(norm(x)), then x + MLP(norm(x)); each term may have its factors."""

    def __init__(self, stage: int, config: MetaFormerConfig):
        super().__init__()
        C, (H, W) = config.channels[stage], config.grids[stage]
        norm = partial(NORMS[config.norm], C, eps=config.norm_eps, bias=config.norm_bias)
        residual = 1.0 if config.residual_scale[stage] else None

        def factor(start: float | None) -> nn.Module:
            return nn.Identity() if start is None else Scale(C, start)

        self.norm1 = norm()
        self.token_mixer = MIXERS[config.mixers[stage]](C, config.head_channels, H * W)
        self.layer_scale1, self.res_scale1 = factor(config.layer_scale), factor(residual)
        self.norm2 = norm()
        self.mlp = nn.Sequential(OrderedDict(
            fc1=nn.Linear(C, 4 * C, bias=config.mlp_bias), act=ACTIVATIONS[config.activation](),
            fc2=nn.Linear(4 * C, C, bias=config.mlp_bias)))
        self.layer_scale2, self.res_scale2 = factor(config.layer_scale), factor(residual)

    def forward(self, x: Tensor, *sparse) -> Tensor:  # [B, H, W, C] -> the same shape
        return self.add(x, self.token_mixer(self.norm1(x)), *sparse)

    def add(self, x: Tensor, mixed: Tensor, cells: KeptCells | MaskedCells | None = None,
            fast: nn.Linear | None = None) -> Tensor:
        """All that follows the mixer. With ``cells`` the MLP is for those alone, and ``fast`` for the others."""
        x = self.res_scale1(x) + self.layer_scale1(mixed)
        y = self.norm2(x)
        y = self.mlp(y) if cells is None else cells.route(y, self.mlp, fast)
        return self.res_scale2(x) + self.layer_scale2(y)


def outer_norm(channels: int, config: MetaFormerConfig) -> nn.Module:
    """LayerNorm outside blocks: after the stem, before halving."""
    return nn.LayerNorm(channels, eps=config.norm_eps, bias=False) if config.downsample_norm else nn.Identity()


def downsample(config: MetaFormerConfig, stage: int) -> nn.Module:
    """What stands before a stage: a 3x3 convolution that halves the map; before the first nothing."""
    if stage == 0:
        return nn.Identity()
    before, channels = config.channels[stage - 1 : stage + 1]
    return nn.Sequential(OrderedDict(norm=outer_norm(before, config),
                                     conv=Conv(before, channels, 3, stride=2, padding=1)))


class MetaFormer(HierarchicalEncoder):
    """MetaFormer without its classifier, and without the LayerNorm that belongs to it."""

    def __init__(self, config: MetaFormerConfig, *, name: str, preprocessing: Preprocessing):
        super().__init__(config, name=name, preprocessing=preprocessing)
        first = config.channels[0]
        self.stem = nn.Sequential(OrderedDict(
            conv=Conv(3, first, 7, stride=4, padding=2), norm=outer_norm(first, config)))
        self.stages = nn.Sequential(*(
            Stage(downsample(config, stage), (Block(stage, config) for _ in range(depth)))
            for stage, depth in enumerate(config.depths)))
        self.apply(init_weights)

    def block_signals(self, number: int) -> tuple[str, ...]:
        ends = accumulate(self.config.depths)
        mixer = next(mixer for mixer, end in zip(self.config.mixers, ends, strict=True) if number <= end)
        return ("attention_received",) if mixer == "attention" else ()

    def run_block(self, block: Block, x: Tensor, asked: bool, *sparse) -> tuple[Tensor, Tensor | None]:
        if not asked:
            return block(x, *sparse), None
        mixed, weights = block.token_mixer.attend(block.norm1(x), need_weights=True)  # weights [B, h, N, N]
        return block.add(x, mixed, *sparse), weights.mean(dim=(1, 2))
