"""What do all encoders share? What they say of themselves, and how tokens go on the way.

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
    """From pictures to visual tokens; ``forward(images [B, 3, S, S]) -> VisualTokens``."""

    name: str  #: what ``build_encoder`` was asked for
    image_size: int  #: S, the only side it takes
    channels: int  #: C, the width of a token
    grid: Grid  #: (H, W); the token of cell (i, j) starts at pixel (i * stride, j * stride); what it has seen is wider
    stride: int  #: pixels between neighbouring tokens (a ViT's patch size)
    prefix_tokens: int = 0  #: P, class and register tokens
    preprocessing: Preprocessing  #: how a picture becomes its input
    cpu_chunk: int = 4  #: pictures that a CPU encodes at a time, so that what one layer leaves is in cache for the next
    block_channels: tuple[int, ...] = ()  #: C of each block, counted through all stages
    block_tokens: tuple[int, ...] = ()  #: N at each block, as long as all are kept
    reductions: tuple[str, ...] = ()  #: what ``Schedule.reduction`` may be; nothing where tokens cannot go on the way
    schedule: Schedule | None = None  #: where tokens go on the way, or None; see ``set_schedule``
    added: nn.ModuleDict  #: the modules that the schedule needs beyond the encoder's own
    grad_checkpointing: bool = False  #: are blocks computed again for the backward pass? See ``set_grad_checkpointing``
    head_keys: tuple[str, ...] = ("head.",)  #: how keys of timm's classifier begin: they may be there, and are left out

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
        """Which of ``tokens.SIGNALS`` the block of this number can give of its tokens."""
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
        for block in schedule.after if schedule.needs_attention else ():
            if schedule.scorer not in self.block_signals(block):
                raise InputError(f"schedule: block {block} of encoder {self.name} cannot give the scorer "
                                 f"{schedule.scorer!r}; use 'norm_smallest', 'norm_largest', 'diversity' or 'grid'")

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
        name = f"{PREDICTOR}_{number}"
        return self.added[name] if name in self.added else None

    def schedule_modules(self, schedule: Schedule) -> dict[str, nn.Module]:
        """What this encoder must have beyond its own parameters to follow ``schedule``."""
        return schedule.modules(self.block_channels)

    def timm_module(self) -> nn.Module:
        """The module whose parameters have timm's names."""
        return self

    def check_images(self, images: Tensor, need_attention: bool = False) -> None:
        """Raises InputError where ``images`` is not [B, 3, S, S], or attention is asked of an encoder without any."""
        S = self.image_size
        if images.dim() != 4 or images.shape[1:] != (3, S, S):
            raise InputError(f"encoder {self.name} takes pictures of shape [B, 3, {S}, {S}], not "
                             f"{list(images.shape)}; resize them with encoder.preprocessing, or build the "
                             "encoder with another image_size")
        if need_attention and not self.block_signals(self.depth):
            raise InputError(f"encoder {self.name} has no attention weights to give; score its tokens with "
                             "'pilot', 'grid', 'random', 'norm_largest' or 'norm_smallest'")
