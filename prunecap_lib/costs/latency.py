"""Do fewer operations take less time? The ledger's stages by this machine's clock.

Pruned and unpruned runs take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..captioner import Captioner
from ..decoder import Decoder, IncrementalDecoder, MemoryKV
from ..errors import InputError
from ..text import BOS
from .ledger import check_counts, ledger, look_in_stages


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

    Every caption is written to its full length, and beams stay in their own line: choosing among beams and
    stopping early belong to the search, not to the model. One run of each kind warms up and is not counted.
    Raises InputError for fewer than 3 repeats.
    """
    check_counts(words=words, beams=beams)
    if repeats < 3:
        raise InputError(f"repeats is {repeats}; quartiles need at least 3")
    ratio = captioner.config.prune_ratio if prune_ratio is None else prune_ratio
    scorer = scorer or captioner.config.scorer
    settings = dict(scorer=scorer, words=words, beams=beams)
    theory = ledger(captioner, prune_ratio=ratio, batch=len(images), **settings)
    images, was_training = images.to(captioner.device), captioner.training
    captioner.eval()
    try:
        runs = []
        for _ in range(repeats + 1):
            less = time_stages(captioner, images, prune_ratio=ratio, **settings)
            with captioner.encoder.unpruned():
                runs.append((less, time_stages(captioner, images, prune_ratio=0.0, **settings)))
    finally:
        captioner.train(was_training)
    pruned, unpruned = ({stage: Quartiles.of([run[stage] for run in kind]) for stage in kind[0]}
                        for kind in zip(*runs[1:], strict=True))
    speedup = Quartiles.of([whole["total"] / less["total"] for less, whole in runs[1:]])
    return Latency(pruned, unpruned, speedup, theory.speedup, ratio, repeats)


@torch.inference_mode()
def time_stages(captioner: Captioner, images: Tensor, *, prune_ratio: float, scorer: str, words: int,
                beams: int) -> dict[str, float]:
    """Seconds of each stage of one run, and their sum as "total"."""
    seconds = {}

    def measure(stage: str, function: Callable, *inputs):
        wait_for(images.device)
        start = time.perf_counter()
        result = function(*inputs)
        wait_for(images.device)
        seconds[stage] = time.perf_counter() - start
        return result

    _, _, memory_kv = look_in_stages(captioner, images, measure, prune_ratio=prune_ratio, scorer=scorer,
                                     n_queries=beams * words)
    first = torch.full((len(images), beams), BOS, device=images.device)
    measure("decoding", write, captioner.decoder, first, memory_kv, words)
    return seconds | {"total": sum(seconds.values())}


def write(decoder: Decoder, ids: Tensor, memory_kv: MemoryKV, words: int) -> Tensor:
    """``words`` steps, each with the most probable words of the one before: ids [B, R] -> [B, R]."""
    incremental = IncrementalDecoder(decoder, memory_kv, beams=ids.shape[1], max_length=words)
    for _ in range(words):
        ids = incremental.step(ids).argmax(dim=-1)
        incremental.advance()
    return ids


def wait_for(device: torch.device) -> None:
    """A GPU works on after a call has returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
