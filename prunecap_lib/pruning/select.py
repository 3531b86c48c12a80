"""Which tokens does the decoder get to look at? The K of N with the highest scores, chosen once."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import InputError
from ..tokens import VisualTokens
from .reduce import keep_count, keep_top_k
from .scores import SCORES, check_scorer, score_tokens

# Scores that the encoder's tokens alone decide, the same at every look: what they leave can be stored.
STORABLE = tuple(name for name in SCORES if name not in ("random", "pilot", "relevance"))


def check_storable(scorer: str) -> str:
    """Return ``scorer`` where tokens can be stored pruned by it; raise InputError naming the choices otherwise."""
    if check_scorer(scorer) not in STORABLE:
        raise InputError(f"scorer {scorer!r}: tokens pruned by it cannot be stored, for it asks the decoder, which "
                         f"learns, or chooses anew each time; choose one of {', '.join(STORABLE)}")
    return scorer


def prune_tokens(tokens: VisualTokens, prune_ratio: float, scorer: str, *, pilot=None, relevance=None,
                 generator: torch.Generator | None = None) -> VisualTokens:
    """Keep ceil((1 - r) N) of N tokens. The last three arguments are as in ``score_tokens``.

    Tokens that were stored pruned in this very way stay as they are. Raises InputError where they were stored pruned in
    another way, and for tokens of an encoder that trains a predictor: they are masked, and cannot be gathered.
    """
    if tokens.pruned is not None:
        if tokens.pruned != (scorer, prune_ratio):
            raise InputError(f"these tokens were stored pruned by {tokens.pruned[0]!r} at {tokens.pruned[1]}, and "
                             f"cannot be pruned by {scorer!r} at {prune_ratio}; encode the pictures again")
        return tokens
    N = tokens.x.shape[1]
    if (K := keep_count(N, prune_ratio)) == N:
        return tokens
    if tokens.keep_mask is not None:
        raise InputError(f"prune ratio {prune_ratio}: while a predictor inside the encoder trains, no tokens can go "
                         "before the decoder; train with prune_ratio 0, and prune there when the trained model "
                         "captions")
    scores = score_tokens(scorer, tokens, pilot=pilot, relevance=relevance, k=K, generator=generator)
    return keep_top_k(tokens, scores, K)


def prune_to_store(tokens: VisualTokens, prune_ratio: float, scorer: str) -> VisualTokens:
    """``prune_tokens``, and say in ``tokens.pruned`` that it was done."""
    return replace(prune_tokens(tokens, prune_ratio, check_storable(scorer)), pruned=(scorer, prune_ratio))
