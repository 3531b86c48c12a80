"""How good is a captioner? Captions of a whole split, the field's metrics through pycocoevalcap, and controls.

    report, captions = evaluate(captioner, dataset)
    score_captions({image_id: [reference, ...]}, {image_id: candidate})  # -> {"Bleu_1": ..., "CIDEr": ...}

Under ``accelerate launch`` or ``torchrun`` the processes share the pictures, and find what one process finds.
"""

from .ceiling import Ceiling, vocabulary_ceilings
from .metrics import check_metrics, per_image_cider, score_captions
from .scores import evaluate, mean, score_split, shuffled_captions
from .split import EncoderInputs, caption_split, split_accuracy
from .statistics import bootstrap_interval, diversity, object_recall, ranking_auc, token_accuracy

__all__ = ["Ceiling", "EncoderInputs", "bootstrap_interval", "caption_split", "check_metrics", "diversity", "evaluate",
           "mean", "object_recall", "per_image_cider", "ranking_auc", "score_captions", "score_split",
           "shuffled_captions", "split_accuracy", "token_accuracy", "vocabulary_ceilings"]
