"""How do N tokens become K? By keeping the highest scores, in picture order."""

from __future__ import annotations

import math

from torch import Tensor

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
