"""How good is a captioner on a whole split? Captions, scores, controls, and where the figures come from."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch

from .captioner import Caption, Captioner
from .checkpoint import versions
from .datasets.base import CaptionDataset
from .datasets.features import FeatureCache
from .evaluation import (
    bootstrap_interval,
    diversity,
    per_image_cider,
    run_signature,
    score_captions,
    token_accuracy,
)
from .files import write_text
from .text import pad_batch


def provenance() -> dict:
    """Command, versions, date and machine type: what a measured figure must carry."""
    program = Path(sys.argv[0])
    # a script of the project is named with its folder, an installed command by its name alone
    start = ["python", f"{program.parent.name}/{program.name}"] if program.suffix == ".py" else [program.name]
    return {"command": shlex.join([*start, *sys.argv[1:]]), "versions": versions(),
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
                       + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")}


def write_json(path: str | Path, report: dict) -> None:
    """Write a report as JSON, whole or not at all."""
    write_text(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def write_rows(path: str | Path, rows: list[dict], *, same: Sequence[str], add: bool = False) -> None:
    """Write measured rows with their provenance, one for each run that they came from.

    Args:
        same: keys that say what a row is about.
        add: keep the rows of that file that are about something else.
    """
    def about(row: dict) -> tuple:
        return tuple(str(row.get(key)) for key in same)

    path, run, new = Path(path), provenance(), {about(row) for row in rows}
    old = json.loads(path.read_text(encoding="utf-8")) if add and path.exists() else {"rows": [], "runs": []}
    found = [(row, old["runs"][row["run"]]) for row in old["rows"] if about(row) not in new]
    found += [(row, run) for row in rows]
    runs = [run for i, (_, run) in enumerate(found) if run not in [earlier for _, earlier in found[:i]]]
    write_json(path, {"rows": [row | {"run": runs.index(run)} for row, run in found], "runs": runs})


class Looks:
    """What the captioner gets of picture i: stored features, or the picture itself."""

    def __init__(self, captioner: Captioner, dataset: CaptionDataset, *, cache_features: bool = False,
                 progress: bool = False):
        self.captioner, self.dataset = captioner, dataset
        self.cache = FeatureCache.open_or_build(dataset, captioner.encoder, progress=progress) if cache_features \
            else None

    def batches(self, batch_size: int, progress: bool = False):
        """Yield (positions, images or tokens), in order."""
        from tqdm import tqdm
        chunks = torch.arange(len(self.dataset)).split(batch_size)
        for chunk in tqdm(chunks, disable=not progress, desc=f"{self.dataset.name} {self.dataset.split}"):
            positions = chunk.tolist()
            if self.cache is not None:
                yield positions, self.cache.tokens(positions).to(self.captioner.device)
            else:
                yield positions, self.captioner.preprocess([self.dataset.image(i) for i in positions])


def caption_split(captioner: Captioner, dataset: CaptionDataset, *, batch_size: int = 64,
                  cache_features: bool = False, progress: bool = False, seed: int = 0,
                  **settings) -> dict[int | str, Caption]:
    """A caption for every picture: image_id -> Caption. ``settings`` go to ``Captioner.generate``."""
    generator = torch.Generator().manual_seed(seed)  # the random scorer's noise
    looks = Looks(captioner, dataset, cache_features=cache_features, progress=progress)
    captions = {}
    for positions, images in looks.batches(batch_size, progress):
        found = captioner.generate(images, generator=generator, **settings)
        captions |= {dataset.image_ids[i]: caption for i, caption in zip(positions, found, strict=True)}
    return captions


@torch.inference_mode()
def split_accuracy(captioner: Captioner, dataset: CaptionDataset, *, batch_size: int = 64, seed: int = 0,
                   cache_features: bool = False, prune_ratio: float | None = None,
                   scorer: str | None = None) -> float:
    """Token accuracy under teacher forcing, against each picture's first caption (the presentation's ACC)."""
    generator = torch.Generator().manual_seed(seed)
    hits = total = 0
    for positions, images in Looks(captioner, dataset, cache_features=cache_features).batches(batch_size):
        ids = pad_batch([captioner.vocabulary.encode(dataset.captions[i][0], captioner.config.max_length - 2)
                         for i in positions]).to(captioner.device)
        words = int((ids[:, 1:] != 0).sum())
        memory, _ = captioner.look(images, prune_ratio, scorer, generator)
        logits = captioner.decoder(ids[:, :-1], memory)
        hits, total = hits + token_accuracy(logits, ids[:, 1:]) * words, total + words
    return hits / total


def evaluate(captioner: Captioner, dataset: CaptionDataset, *, method: str = "greedy", beam_size: int = 5,
             max_length: int = 20, prune_ratio: float | None = None, scorer: str | None = None,
             metrics: Sequence[str] = ("BLEU", "METEOR", "ROUGE_L", "CIDEr"), batch_size: int = 64,
             cache_features: bool = False, seed: int = 0, progress: bool = False) -> tuple[dict, dict]:
    """Caption a split and score it. Returns (report, captions by image_id).

    The report carries the scores, a bootstrap interval for CIDEr-D, the CIDEr-D of the same captions dealt
    to other pictures (a captioner that looks must fall far below its own score), token accuracy, diversity,
    and for Scenes the exact attribute scores.
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
    references, texts = dataset.references(), {key: caption.text for key, caption in captions.items()}
    per_image = per_image_cider(references, texts)
    report = {
        "dataset": dataset.name, "split": dataset.split, "pictures": len(dataset), **settings, **inside,
        "scores": {key: round(value, 4) for key, value in
                   score_captions(references, texts, metrics=metrics).items()},
        "CIDEr_interval": [round(value, 4) for value in
                           bootstrap_interval(list(per_image.values()), seed=seed)],
        "CIDEr_shuffled": round(mean(per_image_cider(references, dealt_to_others(texts, seed)).values()), 4),
        "token_accuracy": round(split_accuracy(captioner, dataset, batch_size=batch_size, seed=seed,
                                               cache_features=cache_features, **settings), 4),
        "diversity": {key: round(value, 4) for key, value in diversity(texts).items()},
        "seconds": round(seconds, 2),
        "signature": run_signature(method=f"beam{beam_size}" if method == "beam" else method,
                                   max_length=max_length, **settings, **inside),
        "provenance": provenance() | {"seed": seed},
    }
    if hasattr(dataset, "scenes"):
        from .datasets.scenes import scene_accuracy
        report["scene_accuracy"] = {key: round(value, 4) for key, value in
                                    scene_accuracy(dataset.scenes, texts).items()}
    return report, captions


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def dealt_to_others(captions: dict, seed: int = 0) -> dict:
    """The same captions, each given to another picture: a random cyclic shift of a random order."""
    keys = list(captions)
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).tolist()
    return {keys[i]: captions[keys[j]] for i, j in zip(order, order[1:] + order[:1], strict=True)}
