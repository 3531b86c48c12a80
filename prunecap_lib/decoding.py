"""How is a caption written, word by word? Greedy search and beam search over cached keys and values.

Both write from the same step: last words in, logits out. Self-attention is cached, the keys and values of
the visual tokens are projected once a picture, and beams share them.

Shapes: B pictures, R beams, T words, S visual tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import KVCache
from .decoder import Decoder
from .errors import InputError
from .text import BOS, EOS, PAD, UNK

NEVER_WRITTEN = [PAD, BOS, UNK]


@dataclass(frozen=True)
class Written:
    """Finished captions of B pictures.

    Attributes:
        ids: [B, T] without ``<bos>``, with ``<eos>`` where it was written, then padding.
        log_prob: [B], sum over the words written (``<eos>`` included) of log p(word).
    """

    ids: Tensor
    log_prob: Tensor


def _check_length(decoder: Decoder, max_length: int) -> None:
    if not 1 <= max_length <= decoder.max_length:
        raise InputError(f"max_length {max_length} is outside 1..{decoder.max_length}, what this decoder was "
                         "built for")


def _next_log_probs(decoder: Decoder, words: Tensor, memory_kv, cache: KVCache) -> Tensor:
    """[B, R] -> [B, R, V]; words that no caption holds get -inf."""
    logits = decoder.step(words, memory_kv, cache).float()
    for word in NEVER_WRITTEN:
        logits[..., word] = float("-inf")
    return logits.log_softmax(dim=-1)


class _Open:
    """The pictures whose captions are still being written; the finished ones leave when half are done."""

    def __init__(self, memory_kv, cache: KVCache, B: int, device):
        self.memory_kv, self.cache = memory_kv, cache
        self.rows = torch.arange(B, device=device)

    def drop(self, finished: Tensor) -> Tensor | None:
        """finished [len(rows)] -> positions that stay, or None while too few are done to be worth a copy."""
        if 2 * int(finished.sum()) < len(finished):
            return None
        stay = (~finished).nonzero().flatten()
        self.rows = self.rows[stay]
        self.memory_kv = [(k[stay], v[stay]) for k, v in self.memory_kv]
        self.cache.keep_pictures(stay)
        return stay


@torch.inference_mode()
def greedy(decoder: Decoder, memory: Tensor, *, max_length: int = 20) -> Written:
    """Write the most probable word, again and again.

    Args:
        memory: [B, S, D] projected visual tokens.
        max_length: most words written, ``<eos>`` included.
    """
    _check_length(decoder, max_length)
    B, device = len(memory), memory.device
    ids = torch.full((B, max_length), PAD, device=device)
    log_prob = torch.zeros(B, device=device)
    todo = _Open(decoder.project_memory(memory, max_length), KVCache(1, max_length), B, device)
    words = torch.full((B, 1), BOS, device=device)
    finished = torch.zeros(B, dtype=torch.bool, device=device)
    for t in range(max_length):
        best = _next_log_probs(decoder, words, todo.memory_kv, todo.cache).max(dim=-1)  # [B, 1]
        words = best.indices.masked_fill(finished[:, None], PAD)
        ids[todo.rows, t] = words[:, 0]
        log_prob[todo.rows] += best.values[:, 0].masked_fill(finished, 0.0)
        finished = finished | (words[:, 0] == EOS)
        if finished.all():
            break
        todo.cache.advance()
        if (stay := todo.drop(finished)) is not None:
            words, finished = words[stay], finished[stay]
    return Written(ids[:, : t + 1], log_prob)


@torch.inference_mode()
def beam(decoder: Decoder, memory: Tensor, *, beam_size: int = 5, max_length: int = 20,
         length_penalty: float = 0.7) -> Written:
    """Keep the ``beam_size`` most probable beginnings at every step.

    A finished beam stands still and keeps its place while its log-probability stays among the best. At the
    end the beam with the highest ``log p / length ** length_penalty`` wins (Wu et al. 2016, equation 14,
    in its plain form): without it short captions win, because every word costs probability.

    Args:
        memory: [B, S, D] projected visual tokens.
        max_length: most words written, ``<eos>`` included.
    """
    _check_length(decoder, max_length)
    V = decoder.output.out_features
    if not 1 <= beam_size <= V - len(NEVER_WRITTEN):
        raise InputError(f"beam_size {beam_size} is outside 1..{V - len(NEVER_WRITTEN)}")
    B, R, device = len(memory), beam_size, memory.device
    ids = torch.full((B, R, max_length), PAD, device=device)
    log_prob = torch.full((B, R), float("-inf"), device=device)
    log_prob[:, 0] = 0.0  # all beams start alike: only the first may branch
    out_ids, out_log_prob = ids.clone(), log_prob.clone()
    todo = _Open(decoder.project_memory(memory, R * max_length), KVCache(R, max_length), B, device)
    words = torch.full((B, R), BOS, device=device)
    finished = torch.zeros(B, R, dtype=torch.bool, device=device)
    stand_still = torch.full((V,), float("-inf"), device=device)
    stand_still[PAD] = 0.0
    for t in range(max_length):
        step = _next_log_probs(decoder, words, todo.memory_kv, todo.cache)
        step = torch.where(finished[..., None], stand_still, step)
        log_prob, flat = (log_prob[..., None] + step).flatten(1).topk(R, dim=-1)
        parents, words = flat // V, flat % V
        ids = ids.gather(1, parents[..., None].expand_as(ids))
        ids[..., t] = words
        finished = finished.gather(1, parents) | (words == EOS)
        out_ids[todo.rows], out_log_prob[todo.rows] = ids, log_prob
        if finished.all():
            break
        todo.cache.advance(parents)
        if (stay := todo.drop(finished.all(dim=1))) is not None:
            words, finished, ids, log_prob = words[stay], finished[stay], ids[stay], log_prob[stay]
    length = (out_ids != PAD).sum(dim=-1).clamp(min=1)
    best = (out_log_prob / length**length_penalty).argmax(dim=1, keepdim=True)
    chosen = out_ids.gather(1, best[..., None].expand(-1, -1, max_length))[:, 0, : t + 1]
    return Written(chosen, out_log_prob.gather(1, best)[:, 0])
