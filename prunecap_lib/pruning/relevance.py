"""Which tokens did the words look at? Write the caption once, and add up the attention each token received.

The decoder's own cross-attention, after the fact: what ``pilot`` guesses from one look, this reads from all.
Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2" (FastV), rank tokens by received attention too,
in one early layer.
"""

from __future__ import annotations

from torch import Tensor


def relevance_score(weights: Tensor, written: Tensor, prefix_count: int = 0) -> Tensor:
    """Mean cross-attention that each token received from the words written, over layers and heads: [B, N].

    Args:
        weights: [layers, B, h, T, P+N], what ``Decoder.forward(..., need_weights=True)`` returns.
        written: bool [B, T], False for the padding after a caption's end.
        prefix_count: P, tokens that are looked at but get no score.
    """
    received = weights.float().mean(dim=(0, 2))[..., prefix_count:]                    # [B, T, N]
    return (received * written[..., None]).sum(dim=1) / written.sum(dim=1, keepdim=True)
