"""How good are the captions of a split? Scores with an interval, and the controls that they must be far above."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

import torch

from ..captioner import Caption, Captioner
from ..datasets.base import CaptionDataset, ImageId
from ..distributed import processes
from ..errors import UndefinedError
from ..provenance import provenance, run_signature
from .baselines import constant_caption
from .metrics import per_image_cider, score_captions
from .split import accuracy_of, by_id, captions_of, encode_split, words_hit
from .statistics import bootstrap_interval, diversity

METRICS = ("BLEU", "METEOR", "ROUGE_L", "CIDEr")


def evaluate(captioner: Captioner, dataset: CaptionDataset, *, method: str = "greedy", beam_size: int = 5,
             max_length: int = 20, prune_ratio: float | None = None, scorer: str | None = None,
             metrics: Sequence[str] = METRICS, batch_size: int = 64, cache_features: bool = False, seed: int = 0,
             progress: bool = False) -> tuple[dict, dict[ImageId, Caption]]:
    """Caption a split and score it. Returns (report, captions by image_id).

    The report carries what ``score_split`` finds, token accuracy, and how it was made. Of several processes only the
    main one scores: the others get all captions, and an empty report.
    """
    ratio = captioner.config.prune_ratio if prune_ratio is None else prune_ratio
    settings = dict(prune_ratio=ratio, scorer=scorer or captioner.config.scorer)
    inside = {} if captioner.encoder.schedule is None else {"schedule": str(captioner.encoder.schedule)}
    started = time.perf_counter()
    found, hits = [], []
    for positions, kept in encode_split(captioner, dataset, batch_size=batch_size, cache_features=cache_features,
                                         progress=progress, seed=seed, **settings):
        found += captions_of(captioner, positions, kept, method=method, beam_size=beam_size, max_length=max_length)
        hits.append(words_hit(captioner, dataset, positions, kept))
    captions, accuracy = by_id(dataset, found), accuracy_of(hits)
    seconds = time.perf_counter() - started
    if not processes().is_main_process:
        return {}, captions
    return {
        "dataset": dataset.name, "split": dataset.split, "pictures": len(dataset), **settings, **inside,
        **score_split(dataset, {key: caption.text for key, caption in captions.items()}, metrics=metrics, seed=seed,
                      progress=progress),
        "token_accuracy": round(accuracy, 4),
        "seconds": round(seconds, 2),
        "signature": run_signature(method=f"beam{beam_size}" if method == "beam" else method,
                                   max_length=max_length, **settings, **inside),
        "provenance": provenance() | {"seed": seed, "processes": processes().num_processes},
    }, captions


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
             | {name: None for name in metrics if name in undefined},
             **cider, "diversity": rounded(diversity(texts))}
    undefined |= {name: f"no caption has {n} words" for n, name in enumerate(("distinct_1", "distinct_2"), 1)
                  if name not in found["diversity"]}
    if hasattr(dataset, "scenes"):
        from ..datasets.scenes import ATTRIBUTES, scene_accuracy
        found["scene_accuracy"] = rounded(scene_accuracy(dataset.scenes, texts))
        undefined |= {name: "no scene of these has one" for name in ATTRIBUTES if name not in found["scene_accuracy"]}
    return found | ({"undefined": undefined} if undefined else {})


def cider_scores(references: Mapping[ImageId, Sequence[str]], texts: Mapping[ImageId, str], seed: int) -> dict:
    """``score_split``'s interval and controls. Raises UndefinedError where CIDEr-D is not defined."""
    same = constant_caption(list(references.values()), seed=seed)

    def values(told: Mapping[ImageId, str]) -> list[float]:
        return list(per_image_cider(references, told).values())

    return {"CIDEr_interval": [round(value, 4) for value in bootstrap_interval(values(texts), seed=seed)],
            "CIDEr_shuffled": round(mean(values(shuffled_captions(texts, seed))), 4),
            "CIDEr_constant": round(mean(values(dict.fromkeys(texts, same))), 4),
            "constant_caption": same}


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def mean(values) -> float:
    values = list(values)
    if not values:
        raise UndefinedError("a mean of no values is asked for; give at least one")
    return sum(values) / len(values)


def shuffled_captions(captions: Mapping, seed: int = 0) -> dict:
    """The same captions, each given to another picture: a random cyclic shift of a random order."""
    keys = list(captions)
    if len(keys) < 2:
        raise UndefinedError("captions are dealt to other pictures, and there is no other; give at least two")
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    return {keys[i]: captions[keys[j]] for i, j in zip(order, order[1:] + order[:1], strict=True)}
