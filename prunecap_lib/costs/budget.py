"""How many tokens may stay if the encoder is to take half of its operations? And where is that faster, by the clock?"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from ..encoders import Encoder
from ..errors import InputError
from ..pruning import Schedule
from .flops import count_flops
from .ledger import timed
from .meta import to_meta

LOG = logging.getLogger(__name__)

def schedule_for_flops(encoder: Encoder, share: float, *, after: tuple[int, ...], scorer: str = "attention_received",
                       reduction: str = "keep") -> Schedule:
    """The schedule that takes at most ``share`` of the encoder's FLOPs: one keep rate, the same after each block.

    The rate is k of the N tokens that are there before the first reduction, and k the largest that fits, found by
    interpolation: the share is almost a line in k. Nothing is computed, and the encoder is left as it is.

    Raises InputError where the share is not in (0, 1], or too small to be reached by pruning after these blocks.
    """
    if not 0 < share <= 1:
        raise InputError(f"share {share} of the FLOPs is outside (0, 1]; 0.5 asks for half of them")
    shapes = to_meta(encoder)
    shapes.check_schedule(Schedule(after, (1.0,) * len(after), scorer, reduction))
    images = torch.empty(1, 3, encoder.image_size, encoder.image_size, device="meta")
    with shapes.unpruned():
        whole = count_flops(shapes, images)
    N = encoder.block_tokens[after[0] - 1]

    def keeping(k: int) -> Schedule:
        return Schedule(after, (k / N,) * len(after), scorer, reduction)

    def share_of(k: int) -> float:
        with torch.device("meta"):
            shapes.set_schedule(keeping(k))
        return count_flops(shapes, images) / whole

    if share == 1:
        return keeping(N)
    fits, over, shares = 1, N, {1: share_of(1), N: 1.0}
    if shares[1] > share:
        raise InputError(f"encoder {encoder.name}: with one token left after blocks {after} it still takes "
                         f"{shares[1]:.1%} of its FLOPs, more than {share:.1%}; name earlier blocks, or a larger share")
    while over - fits > 1:
        guess = fits + round((over - fits) * (share - shares[fits]) / (shares[over] - shares[fits]))
        guess = min(max(guess, fits + 1), over - 1)
        shares[guess] = share_of(guess)
        fits, over = (guess, over) if shares[guess] <= share else (fits, guess)
    return keeping(fits)


def usual_schedule(encoder: Encoder) -> Schedule:
    """0.7 of the tokens stay after each quarter of the blocks (the places of Rao et al. 2021, DynamicViT).

    By the attention that tokens receive; evenly spread where the encoder has none. Raises InputError where nothing can
    go inside this encoder.
    """
    after = tuple(sorted({encoder.depth * quarter // 4 for quarter in (1, 2, 3)} - {0})) or (1,)
    attention = all("attention_received" in encoder.block_signals(block) for block in after)
    schedule = Schedule(after, (0.7,) * len(after), "attention_received" if attention else "grid")
    encoder.check_schedule(schedule)
    return schedule


def time_by_turns(encoder: Encoder, batch: int, *, turns: int = 5,
                  clock: Callable[[], float] = time.perf_counter) -> tuple[float, float]:
    """Median seconds of the encoder with its schedule, and with every token kept; one turn of each warms up."""
    like = next(encoder.parameters())
    images = torch.zeros(batch, 3, encoder.image_size, encoder.image_size, device=like.device, dtype=like.dtype)

    pruned, whole = [], []
    with torch.no_grad():
        for _ in range(turns + 1):
            pruned.append(timed(lambda: encoder(images), like.device, clock)[0])
            with encoder.unpruned():
                whole.append(timed(lambda: encoder(images), like.device, clock)[0])
    return median(pruned[1:]), median(whole[1:])


def fastest_schedule(encoder: Encoder, batch: int, *, turns: int = 5,
                     clock: Callable[[], float] = time.perf_counter) -> Schedule | None:
    """What is faster here for batches of this size: the encoder's schedule (``usual_schedule`` where it has none), or
    all tokens (None). Both are timed, and the log tells the outcome; the encoder is left as it is.

    Raises InputError where nothing can go inside this encoder.
    """
    before, tried = encoder.schedule, encoder.schedule or usual_schedule(encoder)
    encoder.set_schedule(tried)
    try:
        pruned, whole = time_by_turns(encoder, batch, turns=turns, clock=clock)
    finally:
        encoder.set_schedule(before)
    LOG.warning("schedule auto: at batch %d encoder %s takes %.4g ms with %s and %.4g ms with all tokens: pruning %s",
                batch, encoder.name, 1e3 * pruned, tried, 1e3 * whole,
                "pays" if pruned < whole else "does not pay and is left off")
    return tried if pruned < whole else None


@dataclass(frozen=True)
class BreakEven:
    """From which batch on a schedule is faster.

    Attributes:
        batch: the smallest one tried that is; None where none is.
        speedup: batch -> unpruned seconds / pruned seconds, of those tried.
    """

    batch: int | None
    speedup: dict[int, float]

    def __str__(self) -> str:
        tried = ", ".join(f"{ratio:.2f} times as fast at {batch}" for batch, ratio in self.speedup.items())
        if self.batch is None:
            return f"pruning inside the encoder does not pay up to batch {max(self.speedup)} here ({tried})"
        return f"pruning inside the encoder pays from batch {self.batch} on here ({tried})"


def break_even(encoder: Encoder, *, largest: int = 32, turns: int = 5,
               clock: Callable[[], float] = time.perf_counter) -> BreakEven:
    """Time the encoder with its schedule and with all tokens by turns, at 1, 2, 4, ... pictures until it is faster.

    Raises InputError where it has no schedule.
    """
    if encoder.schedule is None:
        raise InputError(f"encoder {encoder.name} has no schedule, so there is nothing to compare; set one")
    speedup, batch = {}, 1
    while batch <= largest:
        pruned, whole = time_by_turns(encoder, batch, turns=turns, clock=clock)
        speedup[batch] = whole / pruned
        if pruned < whole:
            return BreakEven(batch, speedup)
        batch *= 2
    return BreakEven(None, speedup)
