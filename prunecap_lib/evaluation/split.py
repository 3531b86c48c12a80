"""How is a whole split captioned, by one process or by many? Each takes whole batches, and all get every caption.

A batch's captions can depend on its size: sums of floats are taken in another order. So a process takes batches as
they are in one process, and not a share of each; and a batch's random numbers depend on the seed and on its first
picture, not on what was captioned before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..captioner import Caption, Captioner
from ..datasets.base import CaptionDataset, ImageId
from ..distributed import gather_sorted, processes, seeded_rng
from ..features import FeatureCache
from ..provenance import provenance, run_signature
from ..text import pad_batch
from ..tokens import VisualTokens
from .metrics import METRICS, score_split
from .statistics import words_hit


def encoder_inputs(captioner: Captioner, dataset: CaptionDataset, batch_size: int, *, cache_features: bool = False,
                   progress: bool = False) -> Iterator[tuple[list[int], Tensor | VisualTokens]]:
    """Yield (positions, images or stored tokens), in order: this process's share of the batches."""
    from tqdm import tqdm
    here, cache = processes(), None
    if cache_features:
        with here.main_process_first():  # one builds, then all open
            cache = FeatureCache.open_or_build(dataset, captioner.encoder, progress=progress)
    chunks = torch.arange(len(dataset)).split(batch_size)[here.process_index :: here.num_processes]
    shown = progress and here.is_main_process
    for chunk in tqdm(chunks, disable=None if shown else True,  # None: where nobody looks, too
                      desc=f"{dataset.name} {dataset.split}"):
        positions = chunk.tolist()
        if cache is not None:
            yield positions, cache.tokens(positions).to(captioner.device)
        else:
            yield positions, captioner.preprocess([dataset.image(i) for i in positions])


@torch.inference_mode()
def encode_split(captioner: Captioner, dataset: CaptionDataset, *, batch_size: int = 64, cache_features: bool = False,
                 progress: bool = False, seed: int = 0, prune_ratio: float | None = None,
                 scorer: str | None = None) -> Iterator[tuple[list[int], VisualTokens]]:
    """Yield (positions, the tokens that were kept) of this process's batches: each picture is encoded once."""
    training = captioner.training
    for positions, images in encoder_inputs(captioner, dataset, batch_size, cache_features=cache_features,
                                            progress=progress):
        with seeded_rng(seed, positions[0]):
            captioner.eval()
            _, kept = captioner.encode_memory(images, prune_ratio, scorer)
            captioner.train(training)
            yield positions, kept


def caption_split(captioner: Captioner, dataset: CaptionDataset, *, method: str = "greedy", beam_size: int = 5,
                  max_length: int = 20, **settings) -> dict[ImageId, Caption]:
    """A caption for every picture: image_id -> Caption, in the data set's order.

    Of n processes, each captions every n-th batch, and all return the same: what one process returns.

    Args:
        method, beam_size, max_length: see ``Captioner.generate``.
        settings: go to ``encode_split``; its ``seed`` is of the scorer 'random'.
    """
    search = dict(method=method, beam_size=beam_size, max_length=max_length, prune_ratio=0.0)
    found = []
    for positions, kept in encode_split(captioner, dataset, **settings):
        found += zip(positions, captioner.generate(kept, **search), strict=True)
    return {dataset.image_ids[i]: caption for i, caption in gather_sorted(found)}


def evaluate(captioner: Captioner, dataset: CaptionDataset, *, method: str = "greedy", beam_size: int = 5,
             max_length: int = 20, prune_ratio: float | None = None, scorer: str | None = None,
             metrics: Sequence[str] = METRICS, batch_size: int = 64, cache_features: bool = False, seed: int = 0,
             progress: bool = False) -> tuple[dict, dict[ImageId, Caption]]:
    """Caption a split and score it. Returns (report, captions by image_id).

    The report carries what ``score_split`` finds, token accuracy (against each picture's first caption, the
    presentation's ACC), and how it was made. Of several processes only the main one scores: the others get all
    captions, and an empty report.
    """
    ratio = captioner.config.prune_ratio if prune_ratio is None else prune_ratio
    settings = dict(prune_ratio=ratio, scorer=scorer or captioner.config.scorer)
    inside = {} if captioner.encoder.schedule is None else {"schedule": str(captioner.encoder.schedule)}
    search = dict(method=method, beam_size=beam_size, max_length=max_length, prune_ratio=0.0)
    started = time.perf_counter()
    found, hits = [], []
    for positions, kept in encode_split(captioner, dataset, batch_size=batch_size, cache_features=cache_features,
                                        progress=progress, seed=seed, **settings):
        found += zip(positions, captioner.generate(kept, **search), strict=True)
        hits.append((positions[0], *first_captions_hit(captioner, dataset, positions, kept)))
    captions = {dataset.image_ids[i]: caption for i, caption in gather_sorted(found)}
    _, right, words = zip(*gather_sorted(hits), strict=True)
    seconds = time.perf_counter() - started
    if not processes().is_main_process:
        return {}, captions
    return {
        "dataset": dataset.name, "split": dataset.split, "pictures": len(dataset), **settings, **inside,
        **score_split(dataset, {id: caption.text for id, caption in captions.items()}, metrics=metrics, seed=seed,
                      progress=progress),
        "token_accuracy": round(sum(right) / sum(words), 4),
        "seconds": round(seconds, 2),
        "signature": run_signature(method=f"beam{beam_size}" if method == "beam" else method, max_length=max_length,
                                   **settings, **inside),
        "provenance": provenance() | {"seed": seed, "processes": processes().num_processes},
    }, captions


@torch.inference_mode()
def first_captions_hit(captioner: Captioner, dataset: CaptionDataset, positions: list[int],
                       kept: VisualTokens) -> tuple[int, int]:
    """(words hit, words) of these pictures' first captions, under teacher forcing."""
    ids = pad_batch([captioner.vocabulary.encode(dataset.captions[i][0], captioner.config.max_length - 2)
                     for i in positions]).to(captioner.device)
    return words_hit(captioner.decoder(ids[:, :-1], captioner.projection(kept.sequence)), ids[:, 1:])
