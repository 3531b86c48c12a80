"""How does one token look at others? Multi-head attention, and the cache that makes writing fast.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(Dh)) V        (Vaswani et al. 2017, equation 1)

Shapes: B pictures, R rows (captions or beams) per picture, T words, S tokens looked at, h heads,
Dh = D / h width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLOPS_PER_LOAD = 16
"""How many multiplications a processor does in the time in which it reads one number from memory, roughly."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float | None = None,
           need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention.

    Args:
        q: [B, h, T, Dh]. k, v: [B, h, S, Dh].
        mask: broadcastable to [B, h, T, S]: boolean, True = may attend; or float, added to the scores.
        scale: of the products; by default 1 / sqrt(Dh).
        need_weights: also return the weights [B, h, T, S].

    The fused kernel never holds the weights, so asking for them costs the explicit product. The explicit
    product also serves training in bf16 on a CPU, where the fused kernel's backward pass is the slower one.
    """
    if mask is not None and mask.dtype != torch.bool:  # the fused kernel reads a float32 mask as if it were float64
        mask = mask.to(torch.promote_types(mask.dtype, q.dtype))
    slow_backward = q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if not need_weights and not slow_backward:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale), None
    scores = q @ k.transpose(-2, -1) * (scale or 1 / math.sqrt(q.shape[-1]))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1)
    return weights.to(v.dtype) @ v, weights if need_weights else None


def attend_with_policy(q: Tensor, k: Tensor, v: Tensor, policy: Tensor, *,
                need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
    """Attention in training, where a token that was dropped is still there and counts for nothing.

        weight of j = p_j exp(s_j) / sum over l of p_l exp(s_l)        (Rao et al. 2021, section 3.3)

    Args:
        q: [B, h, T, Dh]. k, v: [B, h, S, Dh].
        policy: broadcastable to [B, h, T, S], each 0 or 1. Multiplied instead of masked, so that a gradient tells
            what keeping a token would have changed.

    Where nothing is kept the result is zero. The paper's code adds a small number to every weight, dropped ones
    included; here a dropped token weighs exactly nothing, and its absence changes no result.
    """
    scores = (q @ k.transpose(-2, -1)).float() / math.sqrt(q.shape[-1])
    weights = policy * (scores - scores.detach().amax(dim=-1, keepdim=True)).exp()
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return weights.to(v.dtype) @ v, weights if need_weights else None


def policy_with_self(policy: Tensor) -> Tensor:
    """Who sees whom among tokens of which some were dropped: policy [B, T] -> [B, 1, T, T], rows look at columns.

    Everyone sees those kept, and itself: a dropped token's row must not be empty, and what it holds reaches no one.
    """
    itself = torch.eye(policy.shape[1], dtype=policy.dtype, device=policy.device)
    return policy[:, None, None, :] * (1 - itself) + itself


class KVCache:
    """Keys and values of the words written so far, for every beam, that are never moved or copied.

    Each step fills the next slots, one a beam: [B, h, slots, Dh], with room for ``max_length`` steps of ``rows``
    beams taken once. When a beam continues another beam's caption, nothing is reordered: ``mask``
    [B, 1, R, slots], added to the scores, is 0 for the slots of each beam's own line of ancestors and -inf for
    the others. While there is one beam it sees every slot and needs no mask.
    """

    def __init__(self, rows: int, max_length: int):
        self.slots = rows * max_length
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.mask: Tensor | None = None
        self.step = self.filled = 0

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add this step's keys and values [B, h, R, Dh]; return all so far and the mask over them."""
        B, h, R, Dh = k.shape
        end = self.filled + R
        if layer == len(self.keys):
            self.keys.append(k.new_empty(B, h, self.slots, Dh))
            self.values.append(k.new_empty(B, h, self.slots, Dh))
        if layer == 0 and R > 1:
            self._see_itself(k)
        self.keys[layer][:, :, self.filled : end] = k
        self.values[layer][:, :, self.filled : end] = v
        mask = None if self.mask is None else self.mask[..., :end]
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end], mask

    def _see_itself(self, k: Tensor) -> None:
        """Each beam's new slot is its own."""
        B, _, R, _ = k.shape
        if self.mask is None:
            self.mask = k.new_full((B, 1, R, self.slots), float("-inf"))
        self.mask[..., self.filled : self.filled + R].diagonal(dim1=2, dim2=3).zero_()

    def advance(self, parents: Tensor | None = None) -> None:
        """End a step. ``parents`` [B, R]: which beam each of the next R beams continues (None: itself).

        Their number may change: all beams of a picture begin as one.
        """
        self.step += 1
        self.filled += 1 if self.mask is None else self.mask.shape[2]
        if parents is None or parents.shape[1] == 1:
            return
        if self.mask is None:
            self.mask = self.keys[0].new_full((len(parents), 1, 1, self.slots), float("-inf"))
            self.mask[..., : self.filled] = 0
        self.mask = self.mask.gather(2, parents[:, None, :, None].expand(-1, -1, -1, self.slots))

    def keep_pictures(self, pictures: Tensor) -> None:
        """Go on with some pictures only; the others' captions are finished."""
        for cached in (self.keys, self.values):
            for layer, old in enumerate(cached):
                cached[layer] = new = old.new_empty(len(pictures), *old.shape[1:])
                new[:, :, : self.filled] = old[pictures, :, : self.filled]
        if self.mask is not None:
            self.mask = self.mask[pictures]


class SelfAttention(nn.Module):
    """Words look at words. One matrix projects queries, keys and values together."""

    def __init__(self, d_model: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, D] -> q, k, v, each [B, h, T, Dh]."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, need_weights: bool = False):
        """x [B, T, D], mask broadcastable to [B, h, T, T] -> (y [B, T, D], weights [B, h, T, T] | None)."""
        q, k, v = self.project(x)
        y, weights = attend(q, k, v, mask, need_weights=need_weights)
        return self.out(y.transpose(1, 2).flatten(2)), weights


class CrossAttention(nn.Module):
    """Words look at visual tokens. Keys and values are projected once a picture, then reused.

    The R captions or beams of one picture sit side by side on the query axis, so they share the
    picture's keys and values and none is copied.

    A query times a key is q . (W m) = (W^T q) . m: the key matrix can act on the query instead of on the
    memory, and the value matrix on the mean that comes out. That costs more for each word and saves the
    projection of S tokens, so it pays where few words look (DeepSeek-AI 2024, section 2.1.2, does it to
    keep a smaller cache).
    """

    def __init__(self, d_model: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    def project_memory(self, memory: Tensor, n_queries: int | None = None) -> tuple[Tensor, Tensor]:
        """memory [B, S, D] -> keys and values, each [B, h, S, Dh]; or memory itself, twice.

        ``n_queries`` is the number of queries that each picture will answer one by one, where it is known. So few
        that projecting would cost more multiplications than it saves get the memory itself; for a few pictures
        at a time it must save much, because each look then reads the key and value matrices again.
        """
        B, S, D = memory.shape
        n = n_queries
        if n is not None and B * (S * D - n * (D + S * (self.heads - 1))) > FLOPS_PER_LOAD * n * D:
            return memory, memory
        return tuple(project(memory).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                     for project in (self.key, self.value))

    def forward(self, x: Tensor, memory_kv: tuple[Tensor, Tensor], *, policy: Tensor | None = None,
                need_weights: bool = False):
        """x [B, R*T, D] and ``project_memory``'s -> (y [B, R*T, D], weights [B, h, R*T, S] | None).

        ``policy`` [B, S]: which tokens are still there, where none was gathered (see ``attend_with_policy``).
        """
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)               # [B, h, R*T, Dh]
        if policy is None:
            y, weights = attend(q, *memory_kv, need_weights=need_weights)
        else:
            y, weights = attend_with_policy(q, *memory_kv, policy[:, None, None], need_weights=need_weights)
        return self.out(y.transpose(1, 2).flatten(2)), weights

    def absorb_key(self, q: Tensor) -> Tensor:
        """q [M, h, Dh] -> [M, h, D]: times memory it gives what q gives times the keys.

        Up to the key's bias, which adds the same to every token's score and so changes no weight.
        """
        return torch.bmm(q.transpose(0, 1), self.key.weight.unflatten(0, (self.heads, -1))).transpose(0, 1)

    def attend_memory(self, q: Tensor, memory: Tensor) -> Tensor:
        """Queries carried back: q [B, R, h, Dh], memory [B, S, D] -> [B, R, h, Dh], what projected keys give."""
        B, R, h, Dh = q.shape
        q, k = self.absorb_key(q.flatten(0, 1)), memory[:, None]                       # [M, h, D], [B, 1, S, D]
        y = F.scaled_dot_product_attention(q.reshape(B, 1, R * h, -1), k, k, scale=1 / math.sqrt(Dh))
        value = self.value.weight.unflatten(0, (h, Dh)).transpose(1, 2)                # [h, D, Dh]
        y = torch.bmm(y.reshape(B * R, h, -1).transpose(0, 1), value).transpose(0, 1)  # [M, h, Dh]
        return y.unflatten(0, (B, R)) + self.value.bias.unflatten(0, (h, Dh))
