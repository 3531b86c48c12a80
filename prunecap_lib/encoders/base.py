"""What do all encoders share? What they tell about themselves, and the few layers they have in common.

Shapes: B pictures, N = H * W visual tokens, P prefix tokens, T tokens that look at each other, C channels,
h heads, Dh = C / h, S side of the picture in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import attend, attend_kept
from ..errors import InputError
from ..preprocessing import Preprocessing
from ..pruning import Schedule
from ..pruning.predictor import PREDICTOR
from ..recompute import segment
from ..tokens import Grid, VisualTokens
from .when_it_pays import WhenItPays, usual_schedule

if TYPE_CHECKING:
    from .sparse import KeptCells, MaskedCells

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),  # OpenAI's CLIP
}


class Encoder(nn.Module):
    """From pictures to visual tokens; ``forward(images [B, 3, S, S]) -> VisualTokens``.

    Attributes:
        name: what ``build_encoder`` was asked for.
        image_size: S, the only side it takes.
        channels: C, the width of a token.
        grid: (H, W); the token of cell (i, j) starts at pixel (i * stride, j * stride). (What it has seen is wider:
            all of the picture, for most. A convolution that pads moves the middle of that by up to half a cell.)
        stride: pixels between neighbouring tokens (a ViT's patch size).
        prefix_tokens: P, class and register tokens.
        preprocessing: how a picture becomes its input.
        few: pictures that a CPU encodes at a time: what one layer has left is then still in its cache when the next
            one reads it.
        block_channels: C of each block, counted through all stages.
        block_tokens: N at each block, as long as all are kept.
        reductions: what ``Schedule.reduction`` may be here; nothing where tokens cannot go on the way.
        schedule: where tokens go on the way, or None; see ``set_schedule``.
        added: the modules that the schedule needs beyond the encoder's own.
        recompute: are blocks computed again for the backward pass? See ``set_recompute``.
    """

    name: str
    image_size: int
    channels: int
    grid: Grid
    stride: int
    prefix_tokens: int = 0
    preprocessing: Preprocessing
    few: int = 4
    block_channels: tuple[int, ...] = ()
    block_tokens: tuple[int, ...] = ()
    reductions: tuple[str, ...] = ()
    schedule: Schedule | None = None
    added: nn.ModuleDict
    recompute: bool = False

    head_keys: tuple[str, ...] = ("head.",)
    """How keys of timm's classifier begin: they may be in a state dict and are left out."""

    def __init__(self):
        super().__init__()
        self.added = nn.ModuleDict()
        self.pays: WhenItPays | None = None

    def __call__(self, images: Tensor, **more) -> VisualTokens:
        if self.pays is None or self.pays(self, images):
            return super().__call__(images, **more)
        with self.unpruned():
            return super().__call__(images, **more)

    def forward(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        raise NotImplementedError

    def encode(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        """``forward``, a few pictures at a time where that is faster: on a CPU, while nothing is trained."""
        few = len(images) if self.training or torch.is_grad_enabled() or images.device.type != "cpu" else self.few
        return VisualTokens.join([self(part, need_attention=need_attention) for part in images.split(few)])

    def set_recompute(self, on: bool) -> None:
        """Keep nothing of what is inside a block for the backward pass: less memory, and more time, in training."""
        self.recompute = on

    def run(self, block, *args, **more):
        """``block(*args, **more)``, a block or half of one, as ``set_recompute`` says."""
        return segment(self.recompute, block, *args, **more)

    @property
    def depth(self) -> int:
        """Number of blocks, counted through all stages; a schedule names them from 1."""
        return len(self.block_channels)

    def block_signals(self, number: int) -> tuple[str, ...]:
        """Which of ``tokens.SIGNALS`` the block of this number can tell of its tokens."""
        return ()

    def set_schedule(self, schedule: Schedule | str | None) -> None:
        """Prune on the way, from the next picture on; None: no longer. A text is read by ``Schedule.parse``.

        Weights stay as they are. Modules that the schedule needs are in ``added``: those that the schedule of before
        had too stay, with what they have learned; others are new. Set a schedule before loading their weights.

        "auto" follows the schedule that is set already, or else ``usual_schedule``, for batches of a size at which it
        is faster here. Both ways are timed on the first batch of each size, and the log tells the outcome.

        Raises InputError where a block does not exist, or cannot do what the schedule asks of it, and where this
        encoder's predictors learned for other blocks.
        """
        if schedule == "auto" and self.schedule is not None:
            self.pays = WhenItPays()
            return
        pays, needed = None, {}
        if schedule == "auto":
            pays, schedule = WhenItPays(), usual_schedule(self)
        elif isinstance(schedule, str):
            schedule = Schedule.parse(schedule)
        if schedule is not None:
            schedule.check(self)
            needed = self.schedule_modules(schedule)
            had, needs = ({name for name in modules if name.startswith(PREDICTOR)} for modules in (self.added, needed))
            if had and needs and had != needs:
                raise InputError(f"encoder {self.name}: its predictors belong to schedule {self.schedule}, and "
                                 f"{schedule} needs others; keep its blocks, or set_schedule(None) to start anew")
        self.schedule, self.pays = schedule, pays
        like = next(self.parameters())
        self.added = nn.ModuleDict({name: self.added[name] if name in self.added else module
                                    for name, module in needed.items()}).to(like)
        self.added.train(self.training)

    @contextmanager
    def unpruned(self) -> Iterator[None]:
        """``with encoder.unpruned():`` all tokens stay on the way, for the time being."""
        before = self.schedule, self.pays
        self.schedule = self.pays = None
        try:
            yield
        finally:
            self.schedule, self.pays = before

    @property
    def learning(self) -> bool:
        """Do predictors train? Tokens are then masked, where they would be gathered."""
        return self.training and self.schedule is not None and self.schedule.learned

    def predictor(self, number: int) -> nn.Module | None:
        """What the schedule's scorer has learned for its reduction after the block of this number."""
        name = f"predictor_{number}"
        return self.added[name] if name in self.added else None

    def schedule_modules(self, schedule: Schedule) -> dict[str, nn.Module]:
        """What this encoder must have beyond its own parameters to follow ``schedule``."""
        return schedule.modules(self.block_channels)

    def timm_module(self) -> nn.Module:
        """The module whose parameters have timm's names."""
        return self

    def check_images(self, images: Tensor) -> None:
        """Raises InputError where ``images`` is not [B, 3, S, S]."""
        S = self.image_size
        if images.dim() != 4 or images.shape[1:] != (3, S, S):
            raise InputError(f"encoder {self.name} takes pictures of shape [B, 3, {S}, {S}], not "
                             f"{list(images.shape)}; resize them with encoder.preprocessing, or build the "
                             "encoder with another image_size")

    def no_attention(self) -> InputError:
        """What to raise where attention was asked of an encoder that cannot tell."""
        return InputError(f"encoder {self.name} has no attention weights to give; score its tokens with "
                          "'pilot', 'grid', 'random', 'norm_largest' or 'norm_smallest'")


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
                kept: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x [B, T, C], mask or kept: see ``attend``, ``attend_kept`` -> (y [B, T, C], weights [B, h, T, T] | None)."""
        return self.mix(*self.project(x), need_weights, mask, kept)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, C] -> queries, keys, values, each [B, h, T, Dh]."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, need_weights: bool = False, mask: Tensor | None = None,
            kept: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What ``project`` gives -> what ``forward`` gives."""
        if kept is None:
            y, weights = attend(q, k, v, mask, need_weights=need_weights)
        else:
            y, weights = attend_kept(q, k, v, kept, need_weights=need_weights)
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
                cheap: nn.Linear | None = None, **more) -> tuple[Tensor, Tensor | None]:
        """x [B, T, C] (Swin: [B, H, W, C]) -> (the same, weights | None); ``more`` goes to the attention.

        With ``cells`` of a map the MLP is for those alone, and ``cheap`` for the others.
        """
        y, weights = self.attn(self.norm1(x), need_weights, **more)
        return self.think(x + self.ls1(y), cells, cheap), weights

    def think(self, x: Tensor, cells: KeptCells | MaskedCells | None = None, cheap: nn.Linear | None = None) -> Tensor:
        """The second half, in which every token is by itself."""
        y = self.norm2(x)
        return x + self.ls2(self.mlp(y) if cells is None else cells.mix(y, self.mlp, cheap))


def init_weights(module: nn.Module) -> None:
    """Normal weights cut at two, of deviation 0.02, and zero biases: what all our encoders start from."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
