"""How does a picture become a sentence? A Transformer decoder that looks at visual tokens.

Pre-norm layers (Xiong et al. 2020): x + SelfAttention(LN(x)), x + CrossAttention(LN(x)), x + FFN(LN(x)).
The original order (post-norm) needs a longer warm-up and gains nothing here.

Training computes all words of a caption at once (``Decoder``); writing computes one word more at each step
(``IncrementalDecoder``).

Shapes: B pictures, R rows (captions or beams) per picture, M = B * R, T words, S = P + K visual tokens, D width,
V vocabulary, h heads, Dh head width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import CrossAttention, KVCache, SelfAttention
from .devices import checkpointed
from .errors import InputError
from .masks import causal_mask, padding_mask
from .text import BOS

MemoryKV = list[tuple[Tensor, Tensor]]
Affine = tuple[Tensor, Tensor]


def sinusoidal_positions(length: int, width: int) -> Tensor:
    """Sines and cosines of 2T wavelengths, [length, width] (Vaswani et al. 2017, section 3.5)."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(length)[:, None] * rate
    table = torch.zeros(length, width)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table


class WordEmbedding(nn.Module):
    """Word embedding plus position embedding, learned or sinusoidal."""

    def __init__(self, vocab_size: int, d_model: int, max_length: int, positions: str = "learned",
                 dropout: float = 0.0):
        super().__init__()
        if positions not in ("learned", "sinusoidal"):
            raise InputError(f"positions {positions!r} is unknown; use 'learned' or 'sinusoidal'")
        self.words = nn.Embedding(vocab_size, d_model)
        nn.init.normal_(self.words.weight, std=d_model**-0.5)
        if positions == "learned":
            self.positions = nn.Parameter(torch.randn(max_length, d_model) * 0.02)
        else:
            # scaled to the size of a fresh word embedding, so that neither drowns the other
            self.register_buffer("positions", sinusoidal_positions(max_length, d_model) * d_model**-0.5,
                                 persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [..., T] -> [..., T, D]."""
        T = ids.shape[-1]
        if T > len(self.positions):
            raise InputError(f"a caption of {T} tokens is longer than the decoder's "
                             f"max_length {len(self.positions)}; cut it or build a longer decoder")
        return self.dropout(self.words(ids) + self.positions[:T])


class DecoderLayer(nn.Module):
    """Masked self-attention, cross-attention, feed-forward network; each with its own LayerNorm.

    Dropout falls on each sublayer's output, as in the original (section 5.4); none inside.
    """

    def __init__(self, d_model: int, heads: int, ffn: int, dropout: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.self_attention = SelfAttention(d_model, heads)
        self.norm2 = nn.LayerNorm(d_model)
        self.cross_attention = CrossAttention(d_model, heads)
        self.norm3 = nn.LayerNorm(d_model)
        self.ffn = nn.Sequential(nn.Linear(d_model, ffn), nn.GELU(), nn.Linear(ffn, d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory_kv, mask: Tensor, need_weights: bool = False, policy: Tensor | None = None):
        """x [B, R, T, D], mask [B*R, 1, T, T], policy [B, S] | None -> (x, cross weights [B, h, R*T, S] | None)."""
        B, R, T, D = x.shape
        y, _ = self.self_attention(self.norm1(x.flatten(0, 1)), mask)
        x = (x + self.dropout(y).view(B, R, T, D)).flatten(1, 2)
        y, weights = self.cross_attention(self.norm2(x), memory_kv, policy=policy, need_weights=need_weights)
        x = x + self.dropout(y)
        x = x + self.dropout(self.ffn(self.norm3(x)))
        return x.view(B, R, T, D), weights


class Decoder(nn.Module):
    """Words so far and visual tokens in, scores of the next word out.

    Attributes: grad_checkpointing: are layers computed again for the backward pass (``devices.checkpointed``)?
    """

    grad_checkpointing: bool = False

    def __init__(self, vocab_size: int, *, d_model: int = 512, layers: int = 2, heads: int = 4, ffn: int = 2048,
                 dropout: float = 0.1, max_length: int = 40, positions: str = "learned", tie_weights: bool = True):
        """Args:
            max_length: longest row of ids, ``<bos>`` included.
            tie_weights: the output layer reuses the word embedding (Press & Wolf 2017).
        """
        super().__init__()
        if d_model % heads:
            raise InputError(f"d_model {d_model} is not divisible by {heads} heads; choose another pair")
        self.max_length = max_length
        self.embedding = WordEmbedding(vocab_size, d_model, max_length, positions, dropout)
        self.layers = nn.ModuleList(DecoderLayer(d_model, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, vocab_size)
        if tie_weights:
            self.output.weight = self.embedding.words.weight
        nn.init.zeros_(self.output.bias)

    def project_memory(self, memory: Tensor, n_queries: int | None = None) -> MemoryKV:
        """memory [B, S, D] -> each layer's keys and values, once a picture; ``n_queries``: see CrossAttention."""
        return [layer.cross_attention.project_memory(memory, n_queries) for layer in self.layers]

    def forward(self, ids: Tensor, memory: Tensor, *, policy: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Teacher forcing.

        Args:
            ids: [B*R, T] with ``<bos>`` first; rows of one picture are neighbours.
            memory: [B, S, D] projected visual tokens.
            policy: [B, S], 0 or 1: which of them may be looked at (while a predictor trains; None: all).
            at: bool [B*R, T], the positions whose logits are wanted: in training half of a batch is padding,
                and the output layer is the largest matrix of all.

        Returns: logits [B*R, T, V], or [M, V] at the M positions of ``at``; position t predicts word t+1.
        """
        x, _ = self._run_layers(ids, memory, policy)
        return self.output(self.norm(x if at is None else x[at]))

    def attention_weights(self, ids: Tensor, memory: Tensor) -> Tensor:
        """How much each word looks at each token where ``forward`` computes its logits: [layers, B*R, h, T, S]."""
        return torch.stack(self._run_layers(ids, memory, need_weights=True)[1])

    def _run_layers(self, ids: Tensor, memory: Tensor, policy: Tensor | None = None,
                    need_weights: bool = False) -> tuple[Tensor, list[Tensor]]:
        """What the last layer gives, [B*R, T, D], and where asked each layer's cross-attention [B*R, h, T, S]."""
        B, (rows, T) = len(memory), ids.shape
        if rows % B:
            raise InputError(f"{rows} captions do not share out over {B} pictures; give the same number to each")
        mask = causal_mask(T, ids.device) & padding_mask(ids)
        x = self.embedding(ids).view(B, rows // B, T, -1)
        collected = []
        for layer, memory_kv in zip(self.layers, self.project_memory(memory), strict=True):
            x, weights = checkpointed(self.grad_checkpointing, layer, x, memory_kv, mask, need_weights, policy)
            if need_weights:
                # [B, h, R*T, S] -> [B*R, h, T, S]
                collected.append(weights.unflatten(2, (rows // B, T)).transpose(1, 2).flatten(0, 1))
        return x.flatten(0, 1), collected

    def first_query(self) -> Tensor:
        """The first cross-attention layer's query at ``<bos>``: [h, Dh], the same for every picture.

        Before the first look nothing depends on the picture. Attention over a single word is that word's
        value, so no mask, no softmax and no dropout is needed.
        """
        layer = self.layers[0]
        x = (self.embedding.words.weight[BOS] + self.embedding.positions[0])[None]
        value = layer.self_attention.qkv(layer.norm1(x)).chunk(3, dim=-1)[2]
        x = x + layer.self_attention.out(value)
        return layer.cross_attention.query(layer.norm2(x)).view(layer.cross_attention.heads, -1)


def _affine(module: nn.Module) -> Affine:
    """Weight and bias of a matrix or a LayerNorm."""
    return module.weight, module.bias


class IncrementalDecoder:
    """A decoder that writes one word more at each call, the same numbers as ``Decoder.forward``'s.

    What stays the same from word to word is computed once: self-attention's keys and values are cached, the visual
    tokens are projected once a picture, and beams share them. With one word a caption the matrices are so small that
    calling modules counts, so here are none.

    Each step is ``step(words)``, then ``advance(parents)``. Weights are shared with the decoder, not copied.
    """

    def __init__(self, decoder: Decoder, memory_kv: MemoryKV, *, beams: int, max_length: int,
                 suppress: Sequence[int] = ()):
        """Args:
            memory_kv: ``decoder.project_memory``'s.
            beams, max_length: the most there will be.
            suppress: words whose logits are to be -inf.

        Raises InputError for a max_length that the decoder has no positions for.
        """
        if not 1 <= max_length <= decoder.max_length:
            raise InputError(f"max_length {max_length} is outside 1..{decoder.max_length}, what this decoder was "
                             "built for")
        self.cache, self.memory_kv = KVCache(beams, max_length), memory_kv
        self.words, self.positions = decoder.embedding.words.weight, decoder.embedding.positions
        self.layers = [_LayerStep(layer) for layer in decoder.layers]
        self.norm = _affine(decoder.norm)
        bias = decoder.output.bias.detach().clone()
        bias[list(suppress)] = float("-inf")
        self.output = decoder.output.weight, bias

    def step(self, words: Tensor) -> Tensor:
        """The last words [B, R] (``<bos>`` at first) -> logits of the next, [B, R, V]."""
        x = F.embedding(words.flatten(), self.words) + self.positions[self.cache.step]  # [M, D]
        for i, layer in enumerate(self.layers):
            x = layer(x, words.shape, self.memory_kv[i], self.cache, i)
        x = torch.layer_norm(x, x.shape[1:], *self.norm)
        return F.linear(x, *self.output).view(*words.shape, -1)

    def advance(self, parents: Tensor | None = None) -> None:
        """End a step. ``parents`` [B, R]: which beam each of the next beams continues (None: itself)."""
        self.cache.advance(parents)

    def keep_pictures(self, pictures: Tensor) -> None:
        """Go on with some pictures only, by position; the others' captions are finished."""
        self.memory_kv = [(k[pictures], v[pictures]) for k, v in self.memory_kv]
        self.cache.keep_pictures(pictures)


class _LayerStep:
    """``DecoderLayer`` for one word of each beam, without dropout."""

    def __init__(self, layer: DecoderLayer):
        words, picture = layer.self_attention, layer.cross_attention
        self.heads = words.heads
        self.norm1, self.norm2, self.norm3 = map(_affine, (layer.norm1, layer.norm2, layer.norm3))
        self.qkv, self.out = _affine(words.qkv), _affine(words.out)
        self.query, self.look_out = _affine(picture.query), _affine(picture.out)
        self.fc1, self.fc2 = _affine(layer.ffn[0]), _affine(layer.ffn[-1])
        self.picture = picture

    def __call__(self, x: Tensor, beams: tuple[int, int], memory_kv: tuple[Tensor, Tensor], cache: KVCache,
                 number: int) -> Tensor:
        """x [M, D] -> [M, D]."""
        M, D = x.shape
        (B, R), h = beams, self.heads
        y = torch.layer_norm(x, (D,), *self.norm1)
        q, k, v = F.linear(y, *self.qkv).view(B, R, 3, h, D // h).permute(2, 0, 3, 1, 4).unbind()
        k, v, mask = cache.append(number, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)                     # [B, h, R, Dh]
        x = x + F.linear(y.transpose(1, 2).reshape(M, D), *self.out)
        y = torch.layer_norm(x, (D,), *self.norm2)
        q = F.linear(y, *self.query).view(B, R, h, D // h)
        k, v = memory_kv
        if k.dim() == 3:
            y = self.picture.attend_memory(q, k)
        else:
            y = F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2)  # [B, R, h, Dh]
        x = x + F.linear(y.reshape(M, D), *self.look_out)
        y = torch.layer_norm(x, (D,), *self.norm3)
        return x + F.linear(F.gelu(F.linear(y, *self.fc1)), *self.fc2)
