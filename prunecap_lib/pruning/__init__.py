"""Which visual tokens stay? Scores say who matters, reductions turn many tokens into few."""

from .predictor import PREDICTOR, TokenPredictor
from .reduce import check_ratio, fuse_rest, keep_count, keep_top_k, merge_similar, proportional_bias
from .schedule import Schedule
from .scores import (
    ATTENTION_SCORES,
    SCORES,
    check_scorer,
    diversity_score,
    oracle_score,
    pilot_score,
    relevance_score,
    score_tokens,
)
from .select import STORABLE, check_storable, prune_to_store, prune_tokens

__all__ = ["ATTENTION_SCORES", "PREDICTOR", "SCORES", "STORABLE", "Schedule", "TokenPredictor", "check_ratio",
           "check_scorer", "check_storable", "diversity_score", "fuse_rest", "keep_count", "keep_top_k",
           "merge_similar", "oracle_score", "pilot_score", "proportional_bias", "prune_to_store", "prune_tokens",
           "relevance_score", "score_tokens"]
