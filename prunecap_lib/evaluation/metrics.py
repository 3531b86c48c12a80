"""How near are captions to what people wrote? BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE, by pycocoevalcap.

All count Penn Treebank words without punctuation. Sources: Papineni et al. 2002 (BLEU), Denkowski and Lavie 2014
(METEOR), Lin 2004 (ROUGE-L), Vedantam et al. 2015 (CIDEr-D), Anderson et al. 2016 (SPICE). The scores of a split come
with an interval, and with the controls that they must be far above.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import torch

from ..datasets.base import CaptionDataset, ImageId
from ..datasets.scenes import ATTRIBUTES, scene_accuracy
from ..errors import InputError, UndefinedError
from . import java
from .cider import check_document_frequencies, constant_caption
from .statistics import bootstrap_interval, diversity, mean

METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr")


def score_captions(references: Mapping[ImageId, Sequence[str]], candidates: Mapping[ImageId, str], *,
                   metrics: Sequence[str] = METRICS) -> dict[str, float]:
    """Corpus scores of one caption a picture: Bleu_1 to Bleu_4, METEOR, ROUGE_L, CIDEr (CIDEr-D), SPICE.

    Args:
        references: human captions by image id; at least one each.
        candidates: the caption to score by image id. Only these pictures are scored, and CIDEr's word weights come
            from their references alone: compare it only between runs on the same pictures. An empty caption counts as
            one that says nothing.
        metrics: of "BLEU", "METEOR", "ROUGE_L", "CIDEr", "SPICE"; METEOR takes ten seconds a thousand pictures, SPICE
            needs Stanford CoreNLP, the others are quick.

    Raises: UndefinedError for CIDEr of a single picture; InputError for ids or captions that do not fit;
        MissingFileError without Java, or without CoreNLP for SPICE; PrunecapError where one of the Java programs fails.
    """
    check_metrics(metrics)
    return tokenized_scores(*_tokenized(references, candidates), metrics)


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises InputError for a metric that does not exist; MissingFileError where its programs are not there."""
    known = (*METRICS, "SPICE")
    if wrong := [name for name in metrics if name not in known]:
        raise InputError(f"no metric {wrong[0]!r}; choose of {', '.join(known)}")
    import pycocoevalcap  # noqa: F401  where the extra is missing, that is said now
    java.java_folder()  # the tokenizer's
    if "SPICE" in metrics:
        java.check_spice()


def tokenized_scores(truth: dict, candidates: dict, metrics: Sequence[str]) -> dict[str, float]:
    """``score_captions`` of captions that are tokenized already: {id: [reference, ...]} and {id: [candidate]}."""
    scores: dict[str, float] = {}
    for name in metrics:
        if name == "BLEU":
            from pycocoevalcap.bleu.bleu import Bleu
            values, _ = Bleu(4).compute_score(truth, candidates, verbose=0)
            scores |= {f"Bleu_{n}": float(value) for n, value in enumerate(values, start=1)}
        elif name == "ROUGE_L":
            from pycocoevalcap.rouge.rouge import Rouge
            scores[name] = float(Rouge().compute_score(truth, candidates)[0])
        elif name == "CIDEr":
            scores[name] = float(_cider(truth, candidates)[0])
        elif name == "METEOR":
            scores[name] = java.meteor(truth, candidates)[0]
        else:
            scores[name] = java.spice(truth, candidates)
    return scores


def per_image_cider(references: Mapping[ImageId, Sequence[str]],
                    candidates: Mapping[ImageId, str]) -> dict[ImageId, float]:
    """CIDEr-D of each picture; their mean is the corpus score. Arguments and errors as ``score_captions``."""
    truth, candidates = _tokenized(references, candidates)
    return dict(zip(truth, map(float, _cider(truth, candidates)[1]), strict=True))


def _cider(truth: dict, candidates: dict):
    from pycocoevalcap.cider.cider import Cider
    check_document_frequencies(list(truth.values()))
    return Cider().compute_score(truth, candidates)


def _tokenized(references, candidates) -> tuple[dict, dict]:
    """Both as pycocoevalcap takes them: {id: [tokenized reference, ...]} and {id: [tokenized candidate]}."""
    if not candidates:
        raise InputError("there is no caption to score; give at least one")
    for id, caption in candidates.items():
        if id not in references:
            kind = "; ids of one side are numbers and of the other text" if str(id) in map(str, references) else ""
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
    tokenized, truth = {}, {}
    for id in ids:
        tokenized[id] = [next(flat)]
        truth[id] = [next(flat) for _ in references[id]]
    return truth, tokenized


def score_split(dataset: CaptionDataset, texts: Mapping[ImageId, str], *, metrics: Sequence[str] = METRICS,
                seed: int = 0, progress: bool = False) -> dict:
    """Scores of a split's captions, whoever wrote them, image_id -> caption. ``progress``: say that it takes a while.

    With them a bootstrap interval for CIDEr-D, diversity, and for Scenes the exact attribute scores; and two
    controls. ``CIDEr_shuffled``: the same captions dealt to other pictures. A captioner that looks must fall far below
    its own score. ``CIDEr_constant``: one caption for all, of the split's own references the one most like all others.
    It has seen the answers: no captioner that does not look will do much better.

    What is not defined on this split is None or left out, and ``undefined`` says why, by name: CIDEr of one picture.
    """
    if progress and sys.stderr.isatty():
        print(f"scoring {len(texts):,} captions: {', '.join(metrics)}, and controls", file=sys.stderr)
    references, undefined = dataset.references(), {}
    try:
        cider = cider_scores(references, texts, seed)
    except UndefinedError as error:
        undefined["CIDEr"] = str(error)
        cider = dict.fromkeys(("CIDEr_interval", "CIDEr_shuffled", "CIDEr_constant", "constant_caption"))
    defined = [name for name in metrics if name not in undefined]
    found = {"scores": rounded(score_captions(references, texts, metrics=defined))
             | {name: None for name in metrics if name in undefined}, **cider, "diversity": rounded(diversity(texts))}
    undefined |= {name: f"no caption has {n} words" for n, name in enumerate(("distinct_1", "distinct_2"), 1)
                  if name not in found["diversity"]}
    if dataset.scenes is not None:
        found["scene_accuracy"] = rounded(scene_accuracy(dataset.scenes, texts))
        undefined |= {name: "no scene of these has one" for name in ATTRIBUTES if name not in found["scene_accuracy"]}
    return found | ({"undefined": undefined} if undefined else {})


def cider_scores(references: Mapping[ImageId, Sequence[str]], texts: Mapping[ImageId, str], seed: int) -> dict:
    """``score_split``'s interval and controls. Raises UndefinedError where CIDEr-D is not defined."""
    same = constant_caption(list(references.values()), seed=seed)

    def values(captions: Mapping[ImageId, str]) -> list[float]:
        return list(per_image_cider(references, captions).values())

    return {"CIDEr_interval": [round(value, 4) for value in bootstrap_interval(values(texts), seed=seed)],
            "CIDEr_shuffled": round(mean(values(shuffled_captions(texts, seed))), 4),
            "CIDEr_constant": round(mean(values(dict.fromkeys(texts, same))), 4),
            "constant_caption": same}


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def shuffled_captions(captions: Mapping, seed: int = 0) -> dict:
    """The same captions, each given to another picture: a random cyclic shift of a random order."""
    keys = list(captions)
    if len(keys) < 2:
        raise UndefinedError("captions are dealt to other pictures, and there is no other; give at least two")
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    return {keys[i]: captions[keys[j]] for i, j in zip(order, order[1:] + order[:1], strict=True)}
