"""Which visual tokens matter? Each function gives every token a score, [B, N]; higher stays longer.

``random`` and ``grid`` know nothing of the picture: they are the baselines that every other score has to
beat. Whether long vectors hold the objects or short ones must be tried, for each encoder. ``key_norm`` keeps the
longest keys; in language models the short ones are looked at most (Devoto et al. 2024, "A Simple and Effective L2
Norm-Based Strategy for KV Cache Compression", keeps those).

Shapes: B pictures, N tokens, P prefix tokens, C channels, h heads, T words, (H, W) grid.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..tokens import SIGNALS, VisualTokens

ATTENTION_SCORES = SIGNALS  # the encoder's last attention block must show its weights and keys
SCORES = ("random", "grid", "norm_largest", "norm_smallest", "cls_attention", "attention_received", "key_norm",
          "pilot", "relevance", "diversity")


def check_scorer(scorer: str, *more: str) -> str:
    """Return ``scorer`` where it is known, or one of ``more``; raise InputError naming the choices otherwise."""
    if scorer not in SCORES + more:
        raise InputError(f"scorer {scorer!r} is unknown; choose one of {', '.join(SCORES + more)}")
    return scorer


def random_score(tokens: VisualTokens, generator: torch.Generator | None = None) -> Tensor:
    """Uniform noise. Published methods often fail to beat it."""
    return torch.rand(tokens.x.shape[:2], generator=generator).to(tokens.x.device)


@lru_cache(maxsize=32)
def _spread_order(H: int, W: int) -> tuple[int, ...]:
    """Cells of a grid so ordered that every beginning of the list is spread out evenly.

    Each next cell is the emptiest: where the sum of Gaussian bumps (sigma one cell) over the cells chosen before
    is least; ties take the lowest index (the void-filling half of Ulichney 1993, "The void-and-cluster method").
    Distances wrap around the edges. Without that the order fills the picture's border first, where seldom is a thing.
    """
    rows, columns = np.indices((H, W)).reshape(2, -1)  # numpy's, which no mode of torch that counts or fakes can touch
    down, across = (np.abs(np.subtract.outer(where, where)) for where in (rows, columns))
    squared = np.minimum(down, H - down) ** 2 + np.minimum(across, W - across) ** 2
    bump = np.exp(-squared / 2)
    order = [(H // 2) * W + W // 2]
    filled = bump[order[0]].copy()
    while len(order) < H * W:
        filled[order[-1]] = np.inf
        order.append(int(filled.round(9).argmin()))  # rounded: equal sums differ in the last bit
        filled += bump[order[-1]]
    return tuple(order)


def grid_score(tokens: VisualTokens) -> Tensor:
    """Spread the kept cells evenly over the picture, whatever it shows."""
    order = torch.tensor(_spread_order(*tokens.grid))
    score = torch.empty(len(order))
    score[order] = torch.arange(len(order), 0, -1).float()
    return score.to(tokens.x.device)[tokens.index]


def norm_score(tokens: VisualTokens) -> Tensor:
    """Length of the feature vector, ||x||_2. Whether long or short vectors hold the objects depends on the encoder."""
    return torch.linalg.vector_norm(tokens.x, dim=-1, dtype=torch.promote_types(tokens.x.dtype, torch.float32))


def oracle_score(tokens: VisualTokens, cover: Tensor) -> Tensor:
    """What a score could know at best of where the objects lie: the share of each token's cell that they cover.

    No picture to be captioned comes with masks, so this is no scorer to prune by but a limit to hold others against.
    Cells that are covered alike (the empty ones, above all) are spread over the picture as by ``grid_score``, and not
    taken from the top down.

    Args: cover [B, H*W]. With ``-cover`` the objects go first. Returns [B, N], float64.
    """
    return cover.to(tokens.index.device).double().gather(1, tokens.index) + 1e-9 * grid_score(tokens).double()


def pilot_score(features: Tensor, query: Tensor, prefix_count: int = 0) -> Tensor:
    """Ask the first cross-attention layer once, with the query of ``<bos>``.

    Args:
        features: [B, P+N, C], what the projection's linear layer would see.
        query: [h, C], the ``<bos>`` query carried back through key and projection matrices and scaled.
        prefix_count: P, tokens that take part in the softmax but get no score.

    Returns [B, N]: attention weights, mean over heads.
    """
    weights = (features @ query.T).softmax(dim=1).mean(dim=-1)
    return weights[:, prefix_count:]


def diversity_score(tokens: VisualTokens, k: int | None = None) -> Tensor:
    """The order in which tokens are chosen so that they are least alike: N for the first, N - 1 for the second, ...

    Alvar et al. 2025, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models": keep the K tokens
    whose smallest distance is largest (a max-min diversity problem), by a greedy search. Distance is 1 - cosine
    similarity. The first token is the one farthest from its nearest neighbour; each
    next one is farthest from the nearest of those chosen. Ties go to the lowest index.

    Args: k: stop when so many are chosen, the others get 0; default: order all. The first K are the same.

    Returns [B, N].

    Costs O(N^2 C) for the distances and then O(N K), one step after another. A picture with a NaN gets NaN
    scores.
    """
    B, N = tokens.index.shape
    unit, pictures = F.normalize(tokens.x.detach().float(), dim=-1), torch.arange(B, device=tokens.x.device)
    # rounded: equal tokens may differ in the last bit of their products
    distance = (1 - unit @ unit.mT).float().round(decimals=6)                          # [B, N, N]
    distance.diagonal(dim1=1, dim2=2).fill_(float("inf"))
    nearest, score = distance.amin(dim=-1), torch.zeros(B, N, device=distance.device)
    unknown = nearest.isnan().any(dim=1, keepdim=True)
    for step in range(N if k is None else k):
        chosen = nearest.argmax(dim=1)                                                 # [B]
        score[pictures, chosen] = float(N - step)
        nearest = distance[pictures, chosen] if step == 0 else torch.minimum(nearest, distance[pictures, chosen])
        nearest = nearest.masked_fill(score > 0, float("-inf"))
    return score.masked_fill(unknown, float("nan"))


def relevance_score(weights: Tensor, written: Tensor, prefix_count: int = 0) -> Tensor:
    """Mean cross-attention that each token received from the words written, over layers and heads: [B, N].

    What ``pilot`` guesses from one look, this reads from all, after the caption has been written once. Chen et al.
    2024, "An Image is Worth 1/2 Tokens After Layer 2" (FastV), rank tokens by received attention too, in one early
    layer.

    Args:
        weights: [layers, B, h, T, P+N], what ``Decoder.attention_weights`` returns.
        written: bool [B, T], False for the padding after a caption's end.
        prefix_count: P, tokens that are looked at but get no score.
    """
    received = weights.float().mean(dim=(0, 2))[..., prefix_count:]                    # [B, T, N]
    return (received * written[..., None]).sum(dim=1) / written.sum(dim=1, keepdim=True)


def _signal(tokens: VisualTokens, name: str) -> Tensor:
    value = getattr(tokens, name)
    if value is None:
        raise InputError(f"scorer {name!r}: this encoder gives no such signal (no class token, or no attention "
                         "at all); use 'pilot', 'grid' or a norm score")
    return value


@torch.no_grad()
def score_tokens(scorer: str, tokens: VisualTokens, *, pilot=None, relevance=None, k: int | None = None,
                 generator: torch.Generator | None = None) -> Tensor:
    """Scores [B, N] by a scorer's name.

    Args:
        pilot, relevance: functions from tokens to scores; the captioner brings them, for they need the decoder.
        k: how many tokens will be kept, where it is known: ``diversity`` then orders no more.
        generator: source of ``random``'s noise, on the CPU.

    No gradient flows through a score: which tokens stay is not differentiable.
    """
    match check_scorer(scorer):
        case "random":
            return random_score(tokens, generator)
        case "grid":
            return grid_score(tokens)
        case "norm_largest":
            return norm_score(tokens)
        case "norm_smallest":
            return -norm_score(tokens)
        case "pilot":
            return pilot(tokens)
        case "relevance":
            return relevance(tokens)
        case "diversity":
            return diversity_score(tokens, k)
        case name:
            return _signal(tokens, name)
