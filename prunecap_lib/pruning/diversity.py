"""Which tokens are least alike? Each next token is the one farthest from all chosen before.

Alvar et al. 2025, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models": keep the K
tokens whose smallest distance is largest (a max-min diversity problem), by a greedy search.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tokens import VisualTokens


def diversity_score(tokens: VisualTokens, k: int | None = None) -> Tensor:
    """The order in which tokens are chosen, as a score [B, N]: N for the first, N - 1 for the second, ...

    Distance is 1 - cosine similarity. The first token is the one farthest from its nearest neighbour; each
    next one is farthest from the nearest of those chosen. Ties go to the lowest index.

    Args: k: stop when so many are chosen, the others get 0; default: order all. The first K are the same.

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
