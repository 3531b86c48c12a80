"""Which visual tokens stay? Scores say who matters, reductions turn many tokens into few."""

from .reduce import keep_count, keep_top_k
from .scores import ATTENTION_SCORES, SCORES, check_scorer, pilot_score, score_tokens

__all__ = ["ATTENTION_SCORES", "SCORES", "check_scorer", "keep_count", "keep_top_k", "pilot_score", "score_tokens"]
