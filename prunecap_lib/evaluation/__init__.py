"""How good is a caption? Metrics of the field through pycocoevalcap, and what says how a number was made.

    score_captions({image_id: [reference, ...]}, {image_id: candidate})  # -> {"Bleu_1": ..., "CIDEr": ...}
"""

from .ceiling import Ceiling, vocabulary_ceilings
from .metrics import check_metrics, per_image_cider, score_captions
from .signature import run_signature
from .statistics import bootstrap_interval, diversity, object_recall, ranking_auc, token_accuracy

__all__ = ["Ceiling", "bootstrap_interval", "check_metrics", "diversity", "object_recall", "per_image_cider",
           "ranking_auc", "run_signature", "score_captions", "token_accuracy", "vocabulary_ceilings"]
