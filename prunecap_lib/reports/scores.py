"""How good are the captions of a split? Scores with an interval, and the controls that they must be far above."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from ..captioner import Caption, Captioner
from ..datasets.base import CaptionDataset, ImageId
from ..evaluation import bootstrap_interval, diversity, per_image_cider, run_signature, score_captions
from ..evaluation.baselines import constant_caption
from .captions import caption_split, processes, split_accuracy
from .files import provenance

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
    inside = {} if captioner.encoder.schedule is None else {
        "schedule": ("auto " if captioner.encoder.pays else "") + str(captioner.encoder.schedule)}
    started = time.perf_counter()
    captions = caption_split(captioner, dataset, batch_size=batch_size, cache_features=cache_features,
                             progress=progress, seed=seed, method=method, beam_size=beam_size,
                             max_length=max_length, **settings)
    seconds = time.perf_counter() - started
    accuracy = split_accuracy(captioner, dataset, batch_size=batch_size, seed=seed, cache_features=cache_features,
                              **settings)
    if not processes().is_main_process:
        return {}, captions
    return {
        "dataset": dataset.name, "split": dataset.split, "pictures": len(dataset), **settings, **inside,
        **score_split(dataset, {key: caption.text for key, caption in captions.items()}, metrics=metrics, seed=seed),
        "token_accuracy": round(accuracy, 4),
        "seconds": round(seconds, 2),
        "signature": run_signature(method=f"beam{beam_size}" if method == "beam" else method,
                                   max_length=max_length, **settings, **inside),
        "provenance": provenance() | {"seed": seed, "processes": processes().num_processes},
    }, captions


def score_split(dataset: CaptionDataset, texts: Mapping[ImageId, str], *, metrics: Sequence[str] = METRICS,
                seed: int = 0) -> dict:
    """Scores of a split's captions, whoever wrote them, image_id -> caption.

    With them a bootstrap interval for CIDEr-D, diversity, and for Scenes the exact attribute scores; and two
    controls. ``CIDEr_shuffled``: the same captions dealt to other pictures. A captioner that looks must fall far below
    its own score. ``CIDEr_constant``: one caption for all, of the split's own references the one most like all others.
    It has seen the answers: no captioner that does not look will do much better.
    """
    references = dataset.references()
    same = constant_caption(dataset.captions, seed=seed)

    def cider(told: Mapping[ImageId, str]) -> dict[ImageId, float]:
        return per_image_cider(references, told)

    per_image = list(cider(texts).values())
    found = {
        "scores": rounded(score_captions(references, texts, metrics=metrics)),
        "CIDEr_interval": [round(value, 4) for value in bootstrap_interval(per_image, seed=seed)],
        "CIDEr_shuffled": round(mean(cider(dealt_to_others(texts, seed)).values()), 4),
        "CIDEr_constant": round(mean(cider(dict.fromkeys(texts, same)).values()), 4),
        "constant_caption": same,
        "diversity": rounded(diversity(texts)),
    }
    if hasattr(dataset, "scenes"):
        from ..datasets.scenes import scene_accuracy
        found["scene_accuracy"] = rounded(scene_accuracy(dataset.scenes, texts))
    return found


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def dealt_to_others(captions: Mapping, seed: int = 0) -> dict:
    """The same captions, each given to another picture: a random cyclic shift of a random order."""
    keys = list(captions)
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    return {keys[i]: captions[keys[j]] for i, j in zip(order, order[1:] + order[:1], strict=True)}
