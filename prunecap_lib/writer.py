"""How does the decoder write one word more? Its layers on plain tensors, one new word for each beam.

The numbers are those of ``Decoder.forward``. What stays the same from word to word is done once: self-attention is
cached, the visual tokens are projected once a picture, and beams share them. With one word a caption the matrices
are so small that calling modules counts, so here are none.

Shapes: B pictures, R beams, M = B * R, S visual tokens, D width, V vocabulary, h heads, Dh head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import KVCache
from .decoder import Decoder, DecoderLayer, MemoryKV
from .errors import InputError

Affine = tuple[Tensor, Tensor]


def _affine(module: nn.Module) -> Affine:
    """Weight and bias of a matrix or a LayerNorm."""
    return module.weight, module.bias


class Writer:
    """A decoder in the middle of writing: what it has written so far, and what it looks at.

    Each step is ``step(words)``, then ``advance(parents)``. Weights are shared with the decoder, not copied.
    """

    def __init__(self, decoder: Decoder, memory_kv: MemoryKV, *, beams: int, max_length: int,
                 never: Sequence[int] = ()):
        """Args:
            memory_kv: ``decoder.project_memory``'s.
            beams, max_length: the most there will be.
            never: words whose logits are to be -inf.

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
        bias[list(never)] = float("-inf")
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
