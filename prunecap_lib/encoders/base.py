"""What do all encoders share? What they tell about themselves, and how tokens go on the way.

Shapes: B pictures, N = H * W visual tokens, P prefix tokens, C channels, S side of the picture in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..devices import checkpointed
from ..errors import InputError
from ..preprocessing import Preprocessing
from ..pruning import Schedule
from ..pruning.predictor import PREDICTOR
from ..tokens import Grid, VisualTokens


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
        cpu_chunk: pictures that a CPU encodes at a time: what one layer has left is then still in its cache when the
            next one reads it.
        block_channels: C of each block, counted through all stages.
        block_tokens: N at each block, as long as all are kept.
        reductions: what ``Schedule.reduction`` may be here; nothing where tokens cannot go on the way.
        schedule: where tokens go on the way, or None; see ``set_schedule``.
        added: the modules that the schedule needs beyond the encoder's own.
        grad_checkpointing: are blocks computed again for the backward pass? See ``set_grad_checkpointing``.
    """

    name: str
    image_size: int
    channels: int
    grid: Grid
    stride: int
    prefix_tokens: int = 0
    preprocessing: Preprocessing
    cpu_chunk: int = 4
    block_channels: tuple[int, ...] = ()
    block_tokens: tuple[int, ...] = ()
    reductions: tuple[str, ...] = ()
    schedule: Schedule | None = None
    added: nn.ModuleDict
    grad_checkpointing: bool = False

    head_keys: tuple[str, ...] = ("head.",)
    """How keys of timm's classifier begin: they may be in a state dict and are left out."""

    def __init__(self):
        super().__init__()
        self.added = nn.ModuleDict()

    def forward(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        raise NotImplementedError

    def encode(self, images: Tensor, *, need_attention: bool = False) -> VisualTokens:
        """``forward``, a few pictures at a time where that is faster: on a CPU, while nothing is trained."""
        whole = self.training or torch.is_grad_enabled() or images.device.type != "cpu"
        chunk = len(images) if whole else self.cpu_chunk
        return VisualTokens.cat([self(part, need_attention=need_attention) for part in images.split(chunk)])

    def set_grad_checkpointing(self, on: bool) -> None:
        """Keep nothing of what is inside a block for the backward pass: less memory, and more time, in training."""
        self.grad_checkpointing = on

    def run(self, block, *args, **more):
        """``block(*args, **more)``, a block or half of one, as ``set_grad_checkpointing`` says."""
        return checkpointed(self.grad_checkpointing, block, *args, **more)

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

        Raises InputError where ``check_schedule`` does, and where this encoder's predictors learned for other blocks.
        """
        if isinstance(schedule, str):
            schedule = Schedule.parse(schedule)
        needed = {}
        if schedule is not None:
            self.check_schedule(schedule)
            needed = self.schedule_modules(schedule)
            had, needs = ({name for name in modules if name.startswith(PREDICTOR)} for modules in (self.added, needed))
            if had and needs and had != needs:
                raise InputError(f"encoder {self.name}: its predictors belong to schedule {self.schedule}, and "
                                 f"{schedule} needs others; keep its blocks, or set_schedule(None) to start anew")
        self.schedule = schedule
        like = next(self.parameters())
        self.added = nn.ModuleDict({name: self.added[name] if name in self.added else module
                                    for name, module in needed.items()}).to(like)
        self.added.train(self.training)

    def check_schedule(self, schedule: Schedule) -> None:
        """Raises InputError where a block does not exist, nothing would follow the last reduction, or this encoder
        cannot reduce in this way or give this score."""
        if not self.reductions:
            raise InputError(f"encoder {self.name}: tokens can go on the way inside encoders of our own code only; "
                             "leave schedule out and prune before the decoder (prune_ratio)")
        if schedule.after[-1] >= self.depth:
            raise InputError(f"schedule: after block {schedule.after[-1]} of {self.depth} nothing is left to save; "
                             f"name blocks from 1 to {self.depth - 1}")
        if schedule.reduction not in self.reductions:
            raise InputError(f"schedule: reduction {schedule.reduction!r} would leave holes in the maps of encoder "
                             f"{self.name}; use {' or '.join(map(repr, self.reductions))}")
        if schedule.needs_attention:
            for block in schedule.after:
                if schedule.scorer not in self.block_signals(block):
                    raise InputError(f"schedule: block {block} of encoder {self.name} cannot give the scorer "
                                     f"{schedule.scorer!r}; use 'norm_smallest', 'norm_largest', 'diversity' or "
                                     "'grid'")

    @contextmanager
    def unpruned(self) -> Iterator[None]:
        """``with encoder.unpruned():`` all tokens stay on the way, for the time being."""
        before, self.schedule = self.schedule, None
        try:
            yield
        finally:
            self.schedule = before

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
