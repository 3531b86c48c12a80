"""How is a caption written, word by word? The best word, a drawn one, or beams, over cached keys and values.

All write from the same step, ``IncrementalDecoder``'s: last words in, logits out.

Shapes: B pictures, R beams or samples, T words, S visual tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .decoder import Decoder, IncrementalDecoder
from .errors import InputError
from .text import BOS, EOS, PAD, UNK

NEVER_WRITTEN = [PAD, BOS, UNK]


@dataclass(frozen=True)
class Generated:
    """Finished captions of B pictures.

    Attributes:
        ids: [B, T] without ``<bos>``, with ``<eos>`` where it was written, then padding.
        log_prob: [B], sum over the words written (``<eos>`` included) of log p(word).
    """

    ids: Tensor
    log_prob: Tensor


class _ActiveBatch:
    """The pictures whose captions are not finished yet; the finished ones leave the batch when they are half of it."""

    def __init__(self, decoder: Decoder, memory: Tensor, beams: int, max_length: int):
        B, device = len(memory), memory.device
        memory_kv = decoder.project_memory(memory, beams * max_length)
        self.decoder = IncrementalDecoder(decoder, memory_kv, beams=beams, max_length=max_length,
                                          suppress=NEVER_WRITTEN)
        self.rows = torch.arange(B, device=device)
        self.ids = torch.full((B, beams, max_length), PAD, device=device)
        self.log_prob = torch.zeros(B, beams, device=device)

    def next_log_probs(self, words: Tensor) -> Tensor:
        """Last words [b, R] -> [b, R, V]; words that no caption holds get -inf."""
        return self.decoder.step(words).float().log_softmax(dim=-1)

    def end_step(self, ids: Tensor, log_prob: Tensor, finished: Tensor,
                 parents: Tensor | None = None) -> Tensor | None:
        """Positions [b'] of the pictures to go on with, or None to go on with all.

        Args: ids [b, R, max_length], log_prob and finished [b, R] of the active pictures; parents: see
        ``IncrementalDecoder.advance``.
        """
        self.decoder.advance(parents)
        done = finished.all(dim=1)
        if 2 * int(done.count_nonzero()) < len(done):
            return None  # too few to be worth a copy
        self.put(ids, log_prob)
        stay = (~done).nonzero().flatten()
        self.rows = self.rows[stay]
        self.decoder.keep_pictures(stay)
        return stay

    def put(self, ids: Tensor, log_prob: Tensor) -> None:
        """The active pictures' captions as they are now."""
        self.ids[self.rows], self.log_prob[self.rows] = ids, log_prob


@torch.inference_mode()
def greedy(decoder: Decoder, memory: Tensor, *, max_length: int = 20) -> Generated:
    """Write the most probable word, again and again.

    Args:
        memory: [B, S, D] projected visual tokens.
        max_length: most words written, ``<eos>`` included.
    """
    return _write(_ActiveBatch(decoder, memory, 1, max_length), lambda log_probs, t: log_probs.argmax(dim=-1))


@torch.inference_mode()
def sample(decoder: Decoder, memory: Tensor, uniforms: Tensor, *, temperature: float = 1.0) -> Generated:
    """Draw each word by its probability: R captions of every picture, each as likely as the model finds it.

    The words in their order share out the interval from 0 to 1, each as much as its probability, and the number given
    for a place falls to one of them. So a caption depends on its uniforms alone, whichever others are drawn with it.

    Args:
        memory: [B, S, D] projected visual tokens.
        uniforms: [B, R, T] from [0, 1), for captions of at most T words, ``<eos>`` included.
        temperature: log-probabilities are divided by it: below 1 the probable becomes more probable.

    Returns: B * R rows, those of one picture side by side; ``log_prob`` is the model's own, of temperature 1.

    Raises InputError for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise InputError(f"temperature {temperature} must be above 0; for the most probable words use greedy search")
    B, R, T = uniforms.shape
    active = _ActiveBatch(decoder, memory, R, T)

    def draw(log_probs: Tensor, t: int) -> Tensor:
        passed = (log_probs / temperature).softmax(dim=-1).cumsum(dim=-1)
        aim = uniforms[active.rows, :, t, None] * passed[..., -1:]  # their sum is 1 but for rounding
        return torch.searchsorted(passed, aim, right=True)[..., 0].clamp(max=passed.shape[-1] - 1)

    return _write(active, draw)


def _write(active: _ActiveBatch, choose: Callable[[Tensor, int], Tensor]) -> Generated:
    """Write the words that ``choose`` names, given log-probabilities [b, R, V] and the place t."""
    ids, log_prob = active.ids.clone(), active.log_prob.clone()
    words = torch.full_like(ids[..., 0], BOS)
    finished = torch.zeros_like(words, dtype=torch.bool)
    for t in range(ids.shape[-1]):
        log_probs = active.next_log_probs(words)
        words = choose(log_probs, t)  # [b, R]
        log_prob = log_prob + log_probs.gather(-1, words[..., None])[..., 0].masked_fill(finished, 0.0)
        words = words.masked_fill(finished, PAD)
        ids[..., t] = words
        finished = finished | (words == EOS)
        if (stay := active.end_step(ids, log_prob, finished)) is not None:
            if not len(stay):
                break
            words, finished, ids, log_prob = words[stay], finished[stay], ids[stay], log_prob[stay]
    else:
        active.put(ids, log_prob)
    return Generated(active.ids[..., : t + 1].flatten(0, 1), active.log_prob.flatten())


@torch.inference_mode()
def beam(decoder: Decoder, memory: Tensor, *, beam_size: int = 5, n: int = 1, max_length: int = 20,
         length_penalty: float = 0.7) -> Generated:
    """Keep the ``beam_size`` most probable beginnings at every step.

    A finished beam stands still and keeps its place while its log-probability stays among the best. At the
    end the beam with the highest ``log p / length ** length_penalty`` wins (Wu et al. 2016, equation 14,
    in its plain form): without it short captions win, because every word costs probability.

    Args:
        memory: [B, S, D] projected visual tokens.
        n: beams that are returned, the best first.
        max_length: most words written, ``<eos>`` included.

    Returns: B * n rows, those of one picture side by side.
    """
    V = decoder.output.out_features
    if not 1 <= beam_size <= V - len(NEVER_WRITTEN):
        raise InputError(f"beam_size {beam_size} is outside 1..{V - len(NEVER_WRITTEN)}")
    if not 1 <= n <= beam_size:
        raise InputError(f"n is {n}; a search of beam_size {beam_size} ends with 1 to {beam_size} captions")
    active = _ActiveBatch(decoder, memory, beam_size, max_length)
    ids, log_prob = active.ids[:, :1].clone(), active.log_prob[:, :1].clone()  # all beams begin as one
    words = torch.full_like(ids[..., 0], BOS)
    finished = torch.zeros_like(words, dtype=torch.bool)
    stand_still = torch.full((V,), float("-inf"), device=memory.device)
    stand_still[PAD] = 0.0
    for t in range(max_length):
        step = torch.where(finished[..., None], stand_still, active.next_log_probs(words))
        log_prob, flat = (log_prob[..., None] + step).flatten(1).topk(beam_size, dim=-1)
        parents, words = flat // V, flat % V
        ids = ids.gather(1, parents[..., None].expand(-1, -1, max_length))
        ids[..., t] = words
        finished = finished.gather(1, parents) | (words == EOS)
        if (stay := active.end_step(ids, log_prob, finished, parents)) is not None:
            if not len(stay):
                break
            words, finished, ids, log_prob = words[stay], finished[stay], ids[stay], log_prob[stay]
    else:
        active.put(ids, log_prob)
    length = (active.ids != PAD).sum(dim=-1).clamp(min=1)
    best = (active.log_prob / length**length_penalty).argsort(dim=1, descending=True, stable=True)[:, :n]
    chosen = active.ids.gather(1, best[..., None].expand(-1, -1, max_length))[..., : t + 1]
    return Generated(chosen.flatten(0, 1), active.log_prob.gather(1, best).flatten())
