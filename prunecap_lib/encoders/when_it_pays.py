"""When does pruning pay? Where few tokens or pictures are at hand, choosing can take longer than it saves: time both.

``encoder.set_schedule("auto")`` leaves the answer to ``WhenItPays``; ``costs.break_even`` looks for the batch size.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from ..pruning import Schedule

if TYPE_CHECKING:
    from .base import Encoder

LOG = logging.getLogger(__name__)


def usual_schedule(encoder: Encoder) -> Schedule:
    """What "auto" tries where nothing else is set: 0.7 stay after each quarter of the blocks (DynamicViT's places).

    By the attention that tokens receive; evenly spread where the encoder has none.
    """
    after = tuple(sorted({encoder.depth * quarter // 4 for quarter in (1, 2, 3)} - {0}))
    if not after:  # a single block, or another's encoder: say why not
        after = (1,)
    attention = all("attention_received" in encoder.block_signals(block) for block in after)
    return Schedule(after, (0.7,) * len(after), "attention_received" if attention else "grid")


def time_by_turns(encoder: Encoder, images: Tensor, *, turns: int = 5,
                  clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Median seconds of the encoder with its schedule, and with every token kept; one turn of each warms up."""

    def run() -> float:
        start = clock()
        encoder.forward(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)  # it works on after the call has returned
        return clock() - start

    pruned, whole = [], []
    with torch.no_grad():
        for _ in range(turns + 1):
            pruned.append(run())
            with encoder.unpruned():
                whole.append(run())
    return median(pruned[1:]), median(whole[1:])


class WhenItPays:
    """Follows a schedule for the batch sizes at which it is faster. Each size is timed once, when it first comes."""

    def __init__(self, *, turns: int = 5, clock: Callable[[], float] = time.perf_counter):
        self.turns, self.clock = turns, clock
        self.faster: dict[int, bool] = {}

    def __call__(self, encoder: Encoder, images: Tensor) -> bool:
        """Is the schedule to be followed for images [B, 3, S, S]? Raises InputError in training."""
        if encoder.training and torch.is_grad_enabled():
            raise InputError(f"schedule 'auto' cannot train encoder {encoder.name}: it goes by the clock, and training "
                             "must not; call encoder.eval(), or set the schedule itself, or none")
        if images.device.type == "meta":
            return True  # without numbers there is nothing to time
        if len(images) not in self.faster:
            pruned, whole = time_by_turns(encoder, images, turns=self.turns, clock=self.clock)
            self.faster[len(images)] = pruned < whole
            LOG.warning("schedule auto: at batch %d encoder %s takes %.4g ms with %s and %.4g ms with all tokens: "
                        "pruning %s", len(images), encoder.name, 1e3 * pruned, encoder.schedule, 1e3 * whole,
                        "pays" if pruned < whole else "does not pay and is left off")
        return self.faster[len(images)]
