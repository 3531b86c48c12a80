"""What if similar tokens become one instead of some being dropped? Token Merging.

Bolya et al. 2023, "Token Merging: Your ViT But Faster" (ToMe), section 3: bipartite soft matching.

Shapes: B pictures, N visual tokens, P prefix tokens, Dk width of the metric.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..tokens import VisualTokens


def merge_similar(tokens: VisualTokens, r: int, metric: Tensor | None = None) -> VisualTokens:
    """Merge the r most similar pairs of tokens: N becomes N - r, and no cell is lost.

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
