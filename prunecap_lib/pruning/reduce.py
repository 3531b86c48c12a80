"""How do N tokens become K? Drop those with the lowest scores, fuse them into one, or merge the most similar.

Shapes: B pictures, N visual tokens, P prefix tokens, Dk width of the metric.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..tokens import VisualTokens


def check_ratio(prune_ratio: float) -> float:
    """Return ``prune_ratio`` where it lies in [0, 1); raise InputError otherwise (NaN included)."""
    if not 0 <= prune_ratio < 1:
        raise InputError(f"prune ratio {prune_ratio} is outside [0, 1): it is the share of tokens removed; "
                         "0 keeps all, 0.3 removes 30%")
    return prune_ratio


def keep_count(n: int, prune_ratio: float) -> int:
    """K = ceil((1 - r) N), at least one token for any r < 1.

    The ninth decimal is rounded away first: 0.3 * 10 is 3.0000000000000004 in floating point.
    """
    return max(1, math.ceil(round((1 - check_ratio(prune_ratio)) * n, 9)))


def best_first(tokens: VisualTokens, scores: Tensor, k: int) -> Tensor:
    """Positions of all tokens by falling score, [B, N]; ties go to the lowest index.

    Raises InputError for a NaN score, or where k of N cannot be kept.
    """
    N = tokens.x.shape[1]
    if not 1 <= k <= N:
        raise InputError(f"cannot keep {k} of {N} tokens; choose between 1 and {N}")
    if scores.isnan().any():
        raise InputError("a pruning score is NaN; look at the encoder's output or choose another scorer, and in "
                         "training lower --lr")
    # topk promises no order among equals; a stable sort does
    return scores.sort(dim=1, descending=True, stable=True).indices


def keep_top_k(tokens: VisualTokens, scores: Tensor, k: int) -> VisualTokens:
    """Keep the k tokens with the highest scores, in ascending order of their cells.

    Args: scores [B, N]. Ties go to the lowest index. Raises InputError for a NaN score or a bad k.
    """
    return tokens.keep(best_first(tokens, scores, k)[:, :k].sort(dim=1).values)


def fuse_rest(tokens: VisualTokens, scores: Tensor, k: int) -> VisualTokens:
    """Keep the k best tokens and fuse the rest into one more: N becomes k + 1; k = N leaves all as they are.

    Liang et al. 2022, "Not All Patches are What You Need" (EViT), section 3.3.

    The fused token is the rest's average weighted by their scores, for which the paper takes attention weights
    (its code leaves out the division by their sum, so that its token is shorter). It stands at the cell of the
    best of the rest, and carries all their cells (``VisualTokens.group``).

    Args: scores [B, N]. A score of zero or below weighs nothing; where none of the rest is above zero, all
    of them weigh the same. Ties go to the lowest index.

    Raises InputError for a bad k, and for a score that is NaN or +infinite.
    """
    order = best_first(tokens, scores, k)
    if k == order.shape[1]:
        return tokens
    if scores.isposinf().any():
        raise InputError("a pruning score is infinite and cannot weigh a token; look at the encoder's output or "
                         "choose another scorer")
    leader = torch.arange(order.shape[1], device=order.device).expand_as(order)
    leader = leader.scatter(1, order[:, k:], order[:, k : k + 1].expand(-1, order.shape[1] - k))
    return tokens.merge(leader, scores.clamp(min=0), k + 1)


def merge_similar(tokens: VisualTokens, r: int, metric: Tensor | None = None) -> VisualTokens:
    """Merge the r most similar pairs of tokens: N becomes N - r, and no cell is lost.

    Bolya et al. 2023, "Token Merging: Your ViT But Faster" (ToMe), section 3: bipartite soft matching.

    Tokens alternate between two sets. Each token of the first (positions 0, 2, ...) finds the most similar of
    the second (1, 3, ...); the r best of these pairs merge into the average of their features, weighted by how
    many cells each carries (``VisualTokens.size``). Several may join one token. Prefix tokens take no part,
    also not in the alternation (the original counts the class token as position 0).

    Args:
        r: pairs to merge, at most N // 2.
        metric: [B, N, Dk], what is compared, by cosine; inside a ViT the paper takes the keys, mean over
            heads. Default: the features.

    Ties go to the lowest index. No gradient flows through the choice of pairs. Raises InputError for a bad r
    or metric.
    """
    B, N = tokens.index.shape
    metric = tokens.x if metric is None else metric
    if not 0 <= r <= N // 2:
        raise InputError(f"cannot merge {r} of {N} tokens at once; each pair takes one token of either half, so "
                         f"choose r between 0 and {N // 2}, or merge in several steps")
    if metric.shape[:2] != (B, N):
        raise InputError(f"metric has shape {list(metric.shape)}, but there are [{B}, {N}] visual tokens; give one "
                         "row for each of them and none for prefix tokens")
    if r == 0:
        return tokens
    with torch.no_grad():
        first, second = (F.normalize(metric[:, start::2], dim=-1) for start in (0, 1))
        # rounded: equal tokens may differ in the last bit of their products
        similarity = (first @ second.mT).float().round(decimals=6)                     # [B, ceil(N/2), N//2]
        best = similarity.max(dim=-1)
        if best.values.isnan().any():
            raise InputError("a similarity between tokens is NaN; look at the encoder's output")
        joins = best.values.sort(dim=1, descending=True, stable=True).indices[:, :r]
        leader = torch.arange(N, device=joins.device).expand(B, N)
        leader = leader.scatter(1, 2 * joins, 2 * best.indices.gather(1, joins) + 1)
    return tokens.merge(leader, tokens.size, N - r)


def proportional_bias(tokens: VisualTokens) -> Tensor:
    """What to add to attention scores so that a token of s cells counts as s tokens: log s, [B, 1, 1, P+N].

    Prefix tokens come first, as in ``VisualTokens.sequence``, and get 0. Proportional attention is equation 1
    of the paper.
    """
    return F.pad(tokens.size.log(), (tokens.prefix_count, 0))[:, None, None]
