"""How near are captions to what people wrote? BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE, by pycocoevalcap.

All count Penn Treebank words without punctuation. Sources: Papineni et al. 2002 (BLEU), Denkowski and Lavie
2014 (METEOR), Lin 2004 (ROUGE-L), Vedantam et al. 2015 (CIDEr-D), Anderson et al. 2016 (SPICE).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import InputError
from . import java
from .cider import check_document_frequencies

METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr", "SPICE")
_ImageId = int | str


def score_captions(references: Mapping[_ImageId, Sequence[str]], candidates: Mapping[_ImageId, str], *,
                   metrics: Sequence[str] = ("BLEU", "METEOR", "ROUGE_L", "CIDEr")) -> dict[str, float]:
    """Corpus scores of one caption a picture: Bleu_1 to Bleu_4, METEOR, ROUGE_L, CIDEr (CIDEr-D), SPICE.

    Args:
        references: human captions by image id; at least one each.
        candidates: the caption to score by image id. Only these pictures are scored, and CIDEr's word weights
            come from their references alone: compare it only between runs on the same pictures. An empty
            caption counts as one that says nothing.
        metrics: of "BLEU", "METEOR", "ROUGE_L", "CIDEr", "SPICE"; the first and third to fourth are quick,
            METEOR takes ten seconds a thousand pictures, SPICE needs Stanford CoreNLP.

    Raises: UndefinedError for CIDEr of a single picture; InputError for ids or captions that do not fit;
        MissingFileError without Java, or without CoreNLP for SPICE; PrunecapError where one of the Java programs fails.
    """
    check_metrics(metrics)
    return tokenized_scores(*_tokenized(references, candidates), metrics)


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises InputError for a metric that does not exist; MissingFileError where its programs are not there."""
    wrong = [name for name in metrics if name not in METRICS]
    if wrong:
        raise InputError(f"no metric {wrong[0]!r}; choose of {', '.join(METRICS)}")
    import pycocoevalcap  # noqa: F401  where the extra lacks, it is told now
    java.java_folder()  # the tokenizer's
    if "SPICE" in metrics:
        java.check_spice()


def tokenized_scores(truth: dict, told: dict, metrics: Sequence[str]) -> dict[str, float]:
    """``score_captions`` of captions that are tokenized already: {id: [reference, ...]} and {id: [candidate]}."""
    scores: dict[str, float] = {}
    for name in metrics:
        if name == "BLEU":
            from pycocoevalcap.bleu.bleu import Bleu

            values, _ = Bleu(4).compute_score(truth, told, verbose=0)
            scores |= {f"Bleu_{n}": float(value) for n, value in enumerate(values, start=1)}
        elif name == "ROUGE_L":
            from pycocoevalcap.rouge.rouge import Rouge

            scores[name] = float(Rouge().compute_score(truth, told)[0])
        elif name == "CIDEr":
            scores[name] = float(_cider(truth, told)[0])
        elif name == "METEOR":
            scores[name] = java.meteor(truth, told)[0]
        else:
            scores[name] = java.spice(truth, told)[0]
    return scores


def per_image_cider(references: Mapping[_ImageId, Sequence[str]],
                    candidates: Mapping[_ImageId, str]) -> dict[_ImageId, float]:
    """CIDEr-D of each picture; their mean is the corpus score. Arguments and errors as ``score_captions``."""
    truth, told = _tokenized(references, candidates)
    return dict(zip(truth, map(float, _cider(truth, told)[1]), strict=True))


def _cider(truth: dict, told: dict):
    from pycocoevalcap.cider.cider import Cider

    check_document_frequencies(list(truth.values()))
    return Cider().compute_score(truth, told)


def _tokenized(references, candidates) -> tuple[dict, dict]:
    """Both as pycocoevalcap takes them: {id: [tokenized reference, ...]} and {id: [tokenized candidate]}."""
    if not candidates:
        raise InputError("there is no caption to score; give at least one")
    for id, caption in candidates.items():
        if id not in references:
            kind = "; ids of one side are numbers and of the other text" if (
                str(id) in map(str, references)) else ""
            raise InputError(f"candidate of image {id!r} has no references; check that both are of the same "
                             f"split{kind}")
        if not isinstance(caption, str):
            raise InputError(f"candidate of image {id!r} must be one text, not {type(caption).__name__}")
        texts = references[id]
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"references of image {id!r} must be a list of at least one text")
    ids = list(candidates)
    # One call for all: starting Java costs more than the work.
    flat = iter(java.ptb_tokenize([text for id in ids for text in (candidates[id], *references[id])]))
    told, truth = {}, {}
    for id in ids:
        told[id] = [next(flat)]
        truth[id] = [next(flat) for _ in references[id]]
    return truth, told
