"""Where does the work go? Every stage from picture to caption, pruned and not: its operations, and its seconds here.

Shapes: B pictures, R beams, N visual tokens, K kept, P prefix tokens, T words.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..captioner import Captioner, CaptionerConfig
from ..decoder import Decoder, IncrementalDecoder, MemoryKV
from ..errors import InputError
from ..pruning import Schedule
from ..text import BOS
from ..tokens import VisualTokens
from .flops import count_flops, flops_and_result
from .meta import meta_captioner, to_meta

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
        words: T, words written, ``<eos>`` included; every caption is taken to be this long.
        beams: R; 1 is greedy search.

    Raises InputError for a ratio, scorer or length that the captioner cannot have.
    """
    check_counts(words=words, beams=beams, batch=batch)
    captioner = (to_meta(captioner) if isinstance(captioner, Captioner) else
                 meta_captioner(captioner, vocabulary_size).eval())
    ratio = captioner.config.prune_ratio if prune_ratio is None else prune_ratio
    scorer = scorer or captioner.config.scorer
    settings = dict(scorer=scorer, words=words, beams=beams, batch=batch)
    flops, _, kept, carried_back = _count(captioner, ratio, **settings)
    schedule = captioner.encoder.schedule
    with captioner.encoder.unpruned():
        unpruned, tokens, _, _ = _count(captioner, 0.0, **settings)
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in captioner.named_children()}
    return Ledger(flops, unpruned, parameters, ratio, schedule, tokens=tokens.x.shape[1], kept=kept.x.shape[1],
                  prefix=tokens.prefix_count, carried_back=carried_back, **settings)


def check_counts(**counts: int) -> None:
    """Raises InputError naming the first that is not at least 1."""
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")


def encode_in_stages(captioner: Captioner, images: Tensor, measure: Callable, *, prune_ratio: float, scorer: str,
                     n_queries: int) -> tuple[VisualTokens, VisualTokens, MemoryKV]:
    """All stages before the first word: images [B, 3, S, S] -> all tokens, those kept, keys and values.

    ``measure(stage, function)`` is to return what ``function()`` gives. ``n_queries``: a picture's, R * T.
    """
    tokens = measure("encoder", lambda: captioner.encode(images, scorer=scorer))
    kept = measure("scoring", lambda: captioner.prune(tokens, prune_ratio, scorer))
    memory = measure("projection", lambda: captioner.projection(kept.sequence))
    return tokens, kept, measure("keys and values", lambda: captioner.decoder.project_memory(memory, n_queries))


def _count(captioner: Captioner, ratio: float, *, scorer: str, words: int, beams: int, batch: int):
    """FLOPs by stage, the tokens, those kept, and whether queries are carried back."""
    flops = {}

    def measure(stage: str, function: Callable):
        flops[stage], result = flops_and_result(function)
        return result

    side = captioner.encoder.image_size
    images = torch.empty(batch, 3, side, side, device="meta")
    tokens, kept, memory_kv = encode_in_stages(captioner, images, measure, prune_ratio=ratio, scorer=scorer,
                                               n_queries=beams * words)

    def step(t: int) -> int:
        incremental = IncrementalDecoder(captioner.decoder, memory_kv, beams=beams, max_length=words)
        incremental.cache.step, incremental.cache.filled = t, t * beams
        return count_flops(incremental.step, torch.full((batch, beams), BOS, device="meta"))

    # each step looks at one word more than the one before: an arithmetic series
    flops["decoding"] = words * (step(0) + step(words - 1)) // 2
    return flops, tokens, kept, memory_kv[0][0].dim() == 3


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles of several runs."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Latency:
    """Seconds of each stage, and of "total", pruned as the captioner is and with every token kept.

    Attributes:
        speedup: unpruned total / pruned total, of neighbouring runs.
        theoretical: the ledger's speed-up, if every operation took the same time.
    """

    pruned: dict[str, Quartiles]
    unpruned: dict[str, Quartiles]
    speedup: Quartiles
    theoretical: float
    prune_ratio: float
    repeats: int


def latency(captioner: Captioner, images: Tensor, *, prune_ratio: float | None = None, scorer: str | None = None,
            words: int = 20, beams: int = 1, repeats: int = 9) -> Latency:
    """Time all stages from images [B, 3, S, S] to ``words`` words on the captioner's device.

    Pruned and unpruned runs take turns, so that a machine that slows down slows both. Every caption is written to its
    full length, and beams stay in their own line: choosing among beams and stopping early belong to the search, not to
    the model. One run of each kind warms up and is not counted. Raises InputError for fewer than 3 repeats.
    """
    if repeats < 3:
        raise InputError(f"repeats is {repeats}; quartiles need at least 3")
    theory = ledger(captioner, prune_ratio=prune_ratio, scorer=scorer, words=words, beams=beams, batch=len(images))
    settings = dict(scorer=theory.scorer, words=words, beams=beams)
    images, was_training = images.to(captioner.device), captioner.training
    captioner.eval()
    try:
        runs = []
        for _ in range(repeats + 1):
            pruned = time_stages(captioner, images, prune_ratio=theory.prune_ratio, **settings)
            with captioner.encoder.unpruned():
                runs.append((pruned, time_stages(captioner, images, prune_ratio=0.0, **settings)))
    finally:
        captioner.train(was_training)
    pruned, unpruned = ({stage: Quartiles.of([run[stage] for run in kind]) for stage in kind[0]}
                        for kind in zip(*runs[1:], strict=True))
    speedup = Quartiles.of([whole["total"] / less["total"] for less, whole in runs[1:]])
    return Latency(pruned, unpruned, speedup, theory.speedup, theory.prune_ratio, repeats)


@torch.inference_mode()
def time_stages(captioner: Captioner, images: Tensor, *, prune_ratio: float, scorer: str, words: int,
                beams: int) -> dict[str, float]:
    """Seconds of each stage of one run, and their sum as "total"."""
    seconds = {}

    def measure(stage: str, function: Callable):
        seconds[stage], result = timed(function, images.device)
        return result

    _, _, memory_kv = encode_in_stages(captioner, images, measure, prune_ratio=prune_ratio, scorer=scorer,
                                       n_queries=beams * words)
    first = torch.full((len(images), beams), BOS, device=images.device)
    measure("decoding", lambda: write(captioner.decoder, first, memory_kv, words))
    return seconds | {"total": sum(seconds.values())}


def write(decoder: Decoder, ids: Tensor, memory_kv: MemoryKV, words: int) -> Tensor:
    """``words`` steps, each with the most probable words of the one before: ids [B, R] -> [B, R]."""
    incremental = IncrementalDecoder(decoder, memory_kv, beams=ids.shape[1], max_length=words)
    for _ in range(words):
        ids = incremental.step(ids).argmax(dim=-1)
        incremental.advance()
    return ids


def timed(function: Callable, device: torch.device, clock: Callable[[], float] = time.perf_counter) -> tuple:
    """Seconds that ``function()`` takes on the device, and its result. A GPU works on after a call has returned."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda device: None
    wait(device)
    start = clock()
    result = function()
    wait(device)
    return clock() - start, result
