"""Where does the work go? Operations of every stage from picture to caption, pruned and not.

Shapes: B pictures, R beams, N visual tokens, K kept, P prefix tokens, T words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..captioner import Captioner, CaptionerConfig
from ..decoder import IncrementalDecoder, MemoryKV
from ..errors import InputError
from ..pruning import Schedule
from ..text import BOS
from ..tokens import VisualTokens
from .flops import counted
from .outline import outline

STAGES = ("encoder", "scoring", "projection", "keys and values", "decoding")


@dataclass(frozen=True)
class Ledger:
    """What B captions cost, stage by stage.

    Attributes:
        flops: stage -> FLOPs at ``prune_ratio`` and with ``schedule``, in the order of ``STAGES``.
        unpruned: the same with every token kept, inside the encoder too.
        parameters: part -> number of parameters; a matrix that two layers share is counted once.
        tokens: N. kept: K. prefix: P, which are never pruned.
        carried_back: the words' queries meet the tokens themselves and no key is projected: so few looks cost
            less that way (see ``CrossAttention``). The stage "keys and values" is then empty.
    """

    flops: dict[str, int]
    unpruned: dict[str, int]
    parameters: dict[str, int]
    prune_ratio: float
    schedule: Schedule | None
    scorer: str
    words: int
    beams: int
    batch: int
    tokens: int
    kept: int
    prefix: int
    carried_back: bool

    @property
    def total(self) -> int:
        return sum(self.flops.values())

    @property
    def unpruned_total(self) -> int:
        return sum(self.unpruned.values())

    @property
    def speedup(self) -> float:
        """How many times faster the pruned captioner would be if every operation took the same time."""
        return self.unpruned_total / self.total


def ledger(captioner: Captioner | CaptionerConfig, *, vocabulary_size: int | None = None,
           prune_ratio: float | None = None, scorer: str | None = None, words: int = 20, beams: int = 1,
           batch: int = 1) -> Ledger:
    """Count the FLOPs of writing ``batch`` captions, stage by stage. Nothing is computed and no memory taken.

    Args:
        captioner: one that exists, or a configuration with ``vocabulary_size``.
        prune_ratio, scorer: None means the captioner's own.
        words: T, words written, ``<eos>`` included; every caption is taken to be this long.
        beams: R; 1 is greedy search.

    Raises InputError for a ratio, scorer or length that the captioner cannot have.
    """
    check_counts(words=words, beams=beams, batch=batch)
    captioner = outline(captioner, vocabulary_size)
    ratio = captioner.config.prune_ratio if prune_ratio is None else prune_ratio
    scorer = scorer or captioner.config.scorer
    settings = dict(scorer=scorer, words=words, beams=beams, batch=batch)
    flops, _, kept, carried_back = _count(captioner, ratio, **settings)
    schedule = captioner.encoder.schedule
    with captioner.encoder.unpruned():
        unpruned, tokens, _, _ = _count(captioner, 0.0, **settings)
    return Ledger(flops, unpruned, count_parameters(captioner), ratio, schedule, tokens=tokens.x.shape[1],
                  kept=kept.x.shape[1], prefix=tokens.prefix_count, carried_back=carried_back, **settings)


def check_counts(**counts: int) -> None:
    """Raises InputError naming the first that is not at least 1."""
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")


def count_parameters(captioner: Captioner) -> dict[str, int]:
    """Parameters of each part."""
    return {name: sum(p.numel() for p in part.parameters()) for name, part in captioner.named_children()}


def look_in_stages(captioner: Captioner, images: Tensor, measure: Callable, *, prune_ratio: float, scorer: str,
                   n_queries: int) -> tuple[VisualTokens, VisualTokens, MemoryKV]:
    """All stages before the first word: images [B, 3, S, S] -> all tokens, those kept, keys and values.

    ``measure(stage, function, *inputs)`` is to return what ``function(*inputs)`` gives. ``n_queries``: queries that
    each picture will answer, R * T.
    """
    tokens = measure("encoder", lambda: captioner.encode(images, scorer=scorer))
    kept = measure("scoring", lambda: captioner.prune(tokens, prune_ratio, scorer))
    memory = measure("projection", lambda: captioner.projection(kept.sequence))
    return tokens, kept, measure("keys and values", lambda: captioner.decoder.project_memory(memory, n_queries))


def _count(captioner: Captioner, ratio: float, *, scorer: str, words: int, beams: int, batch: int):
    """FLOPs by stage, the tokens, those kept, and whether queries are carried back."""
    flops = {}

    def measure(stage: str, function: Callable):
        flops[stage], result = counted(function)
        return result

    side = captioner.encoder.image_size
    images = torch.empty(batch, 3, side, side, device="meta")
    tokens, kept, memory_kv = look_in_stages(captioner, images, measure, prune_ratio=ratio, scorer=scorer,
                                             n_queries=beams * words)

    def step(t: int) -> int:
        incremental = IncrementalDecoder(captioner.decoder, memory_kv, beams=beams, max_length=words)
        incremental.cache.step, incremental.cache.filled = t, t * beams
        return counted(incremental.step, torch.full((batch, beams), BOS, device="meta"))[0]

    # each step looks at one word more than the one before: an arithmetic series
    flops["decoding"] = words * (step(0) + step(words - 1)) // 2
    return flops, tokens, kept, memory_kv[0][0].dim() == 3
