"""How does a ConvNeXt see? Convolutions over ever coarser maps, built like a Transformer's blocks.

Liu et al. 2022, "A ConvNet for the 2020s" (V1); Woo et al. 2023, "ConvNeXt V2", which lets the channels compete.
Parameters carry timm's names, so that timm's weights fit.

Maps are [B, H, W, C] all the way: LayerNorm and the MLP work on the last axis, and a convolution takes the permuted
view, which is torch's channels-last format, without a copy. (The other layout, [B, C, H, W] with 1x1 convolutions for
the MLP, computes the same; timm has both, and weights of either fit here.)

Shapes: B pictures, S side of the picture, H, W height and width of a map, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..preprocessing import Preprocessing
from ..pruning.spatial import KeptCells, MaskedCells
from .layers import Conv, Mlp, init_weights
from .pyramid import HierarchicalEncoder, Stage


@dataclass(frozen=True)
class ConvNeXtConfig:
    """The settings of one ConvNeXt architecture. Each stage after the first halves the map."""

    image_size: int = 224
    depths: tuple[int, ...] = (3, 3, 9, 3)
    channels: tuple[int, ...] = (96, 192, 384, 768)
    patch: int = 4  #: side of the patches that the stem cuts
    stem_channels: int | None = None  #: width between two overlapping convolutions in the patches' place; None: patches
    kernel: int = 7
    layer_scale: float | None = 1e-6  #: start of a factor per channel on each branch; None: no factor (V2)
    grn: bool = False  #: global response normalization inside the MLP (V2)
    final_norm: bool = False  #: LayerNorm on the last map (most ConvNeXts normalize only in the classifier)
    norm_eps: float = 1e-6
    activation: str = "gelu"

    @property
    def stride(self) -> int:
        return (4 if self.stem_channels else self.patch) * 2 ** (len(self.depths) - 1)

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(H, W) of every stage."""
        side = self.image_size // self.patch if self.stem_channels is None else -(-self.image_size // 4)
        return [(side // 2**stage,) * 2 for stage in range(len(self.depths))]


class GlobalResponseNorm(nn.Module):
    """A channel that is strong on this map, compared with the others, is made stronger (Woo et al. 2023).

        y_c = x_c + weight_c * x_c * ||x_c|| / mean_c' ||x_c'|| + bias_c,    ||.|| over the whole map

    Weights start at zero: at first it changes nothing.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, H, W, C], or kept cells only, [B, K, C] -> the same shape.

        Where cells are kept, channels compete on those alone, whether they are gathered or marked by ``mask``
        [B, H, W]. The share is a ratio of strengths, so that fewer cells make it no smaller.
        """
        cells = x if mask is None else x * mask[..., None]
        strength = cells.norm(dim=tuple(range(1, x.dim() - 1)), keepdim=True)  # [B, 1, 1, C]
        share = strength / (strength.mean(dim=-1, keepdim=True) + 1e-6)
        return x + self.weight * (x * share) + self.bias


class GrnMlp(Mlp):
    """The MLP of V2: channels compete where it is widest."""

    def __init__(self, channels: int, hidden: int, activation: str = "gelu"):
        super().__init__(channels, hidden, activation)
        self.grn = GlobalResponseNorm(hidden)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.fc2(self.grn(self.activation(self.fc1(x)), mask))


class Block(nn.Module):
    """A 7x7 convolution of each channel by itself, LayerNorm, MLP; added to what came in."""

    def __init__(self, channels: int, config: ConvNeXtConfig):
        super().__init__()
        self.conv_dw = Conv(channels, channels, config.kernel, padding=config.kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=config.norm_eps)
        self.mlp = (GrnMlp if config.grn else Mlp)(channels, 4 * channels, config.activation)
        scale = config.layer_scale
        self.gamma = None if scale is None else nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor, cells: KeptCells | MaskedCells | None = None, fast: nn.Linear | None = None) -> Tensor:
        """x [B, H, W, C] -> the same shape. With ``cells`` the MLP is for those alone, and ``fast`` for the others."""
        y = self.norm(self.conv_dw(x))
        if cells is None:
            y = self.mlp(y)
        else:
            y = cells.route(y, partial(self.mlp, mask=cells.mask) if isinstance(self.mlp, GrnMlp) else self.mlp, fast)
        return x + (y if self.gamma is None else y * self.gamma)


def downsample(config: ConvNeXtConfig, stage: int) -> nn.Module:
    """What stands before a stage: LayerNorm, and a 2x2 convolution that halves the map; before the first nothing."""
    if stage == 0:
        return nn.Identity()
    before, channels = config.channels[stage - 1 : stage + 1]
    return nn.Sequential(nn.LayerNorm(before, eps=config.norm_eps), Conv(before, channels, 2, stride=2))


class ConvNeXt(HierarchicalEncoder):
    """ConvNeXt without its classifier. It has no attention to give."""

    def __init__(self, config: ConvNeXtConfig, *, name: str, preprocessing: Preprocessing):
        super().__init__(config, name=name, preprocessing=preprocessing)
        first, last = config.channels[0], config.channels[-1]
        if config.stem_channels is None:
            stem = [Conv(3, first, config.patch, stride=config.patch)]
        else:
            stem = [Conv(3, config.stem_channels, 3, stride=2, padding=1),
                    Conv(config.stem_channels, first, 3, stride=2, padding=1)]
        self.stem = nn.Sequential(*stem, nn.LayerNorm(first, eps=config.norm_eps))
        self.stages = nn.Sequential(*(
            Stage(downsample(config, i), (Block(channels, config) for _ in range(depth)))
            for i, (channels, depth) in enumerate(zip(config.channels, config.depths, strict=True))))
        self.norm_pre = nn.LayerNorm(last, eps=config.norm_eps) if config.final_norm else nn.Identity()
        self.apply(init_weights)

    def parts(self) -> tuple[nn.Module, nn.Sequential, nn.Module]:
        return self.stem, self.stages, self.norm_pre
