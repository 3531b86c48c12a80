"""How many tokens may stay if the encoder is to take half of its operations? And from which batch on is it faster?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..encoders import Encoder
from ..encoders.when_it_pays import time_by_turns
from ..errors import InputError
from ..pruning import Schedule
from .flops import count_flops
from .outline import without_numbers


def schedule_for_flops(encoder: Encoder, share: float, *, after: tuple[int, ...], scorer: str = "attention_received",
                       reduction: str = "keep") -> Schedule:
    """The schedule that takes at most ``share`` of the encoder's FLOPs: one keep rate, the same after each block.

    The rate is k of the N tokens that are there before the first reduction, and k the largest that fits, found by
    interpolation: the share is almost a line in k. Nothing is computed, and the encoder is left as it is.

    Raises InputError where the share is not in (0, 1], or too small to be reached by pruning after these blocks.
    """
    if not 0 < share <= 1:
        raise InputError(f"share {share} of the FLOPs is outside (0, 1]; 0.5 asks for half of them")
    outline = without_numbers(encoder)
    Schedule(after, (1.0,) * len(after), scorer, reduction).check(outline)
    images = torch.empty(1, 3, encoder.image_size, encoder.image_size, device="meta")
    with outline.unpruned():
        whole = count_flops(outline, images)
    N = encoder.block_tokens[after[0] - 1]

    def keeping(k: int) -> Schedule:
        return Schedule(after, (k / N,) * len(after), scorer, reduction)

    def share_of(k: int) -> float:
        with torch.device("meta"):
            outline.set_schedule(keeping(k))
        return count_flops(outline, images) / whole

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
        like = next(encoder.parameters())
        images = torch.zeros(batch, 3, encoder.image_size, encoder.image_size, device=like.device, dtype=like.dtype)
        pruned, whole = time_by_turns(encoder, images, turns=turns, clock=clock)
        speedup[batch] = whole / pruned
        if pruned < whole:
            return BreakEven(batch, speedup)
        batch *= 2
    return BreakEven(None, speedup)
