"""How good is a captioner? Captions of a whole split, the field's metrics through pycocoevalcap, and controls.

    report, captions = evaluate(captioner, dataset)
    score_captions({image_id: [reference, ...]}, {image_id: candidate})  # -> {"Bleu_1": ..., "CIDEr": ...}

Under ``accelerate launch`` or ``torchrun`` the processes share the pictures, and find what one process finds.
"""

from .ceiling import Ceiling, vocabulary_ceilings
from .cider import constant_caption
from .metrics import check_metrics, per_image_cider, score_captions, score_split, shuffled_captions
from .split import caption_split, encoder_inputs, evaluate
from .statistics import bootstrap_interval, diversity, mean, object_recall, ranking_auc, token_accuracy

__all__ = ["Ceiling", "bootstrap_interval", "caption_split", "check_metrics", "constant_caption", "diversity",
           "encoder_inputs", "evaluate", "mean", "object_recall", "per_image_cider", "ranking_auc", "score_captions",
           "score_split", "shuffled_captions", "token_accuracy", "vocabulary_ceilings"]
