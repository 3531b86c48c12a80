"""What if the dropped tokens leave a summary behind? They become one token, weighted by their scores.

Liang et al. 2022, "Not All Patches are What You Need" (EViT), section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..tokens import VisualTokens
from .reduce import best_first


def fuse_rest(tokens: VisualTokens, scores: Tensor, k: int) -> VisualTokens:
    """Keep the k best tokens and fuse the rest into one more: N becomes k + 1; k = N leaves all as they are.

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
