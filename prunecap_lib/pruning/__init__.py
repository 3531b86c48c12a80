"""Which visual tokens stay? Scores say who matters, reductions turn many tokens into few."""

from .diversity import diversity_score
from .fuse import fuse_rest
from .merge import merge_similar, proportional_bias
from .predictor import PREDICTOR, TokenPredictor
from .reduce import keep_count, keep_top_k
from .relevance import relevance_score
from .schedule import Schedule
from .scores import ATTENTION_SCORES, SCORES, check_scorer, oracle_score, pilot_score, score_tokens
from .select import STORABLE, check_storable, prune_to_store, prune_tokens

__all__ = ["ATTENTION_SCORES", "PREDICTOR", "SCORES", "STORABLE", "Schedule", "TokenPredictor", "check_scorer",
           "check_storable", "diversity_score", "fuse_rest", "keep_count", "keep_top_k", "merge_similar",
           "oracle_score", "pilot_score", "proportional_bias", "prune_to_store", "prune_tokens", "relevance_score",
           "score_tokens"]
