"""What does pruning cost a trained captioner? Every scorer at every ratio, without training again.

    python tools/measure_pruning.py scenes-vit scenes-convnext --out data/results/scenes_pruning.json
    PRUNECAP_PHOTOS=photos python tools/measure_pruning.py photos-lite0 --dataset flickr8k --split dev \\
        --method beam --out data/results/photos_pruning.json

Each picture is encoded once; its tokens are scored, pruned and captioned for every point of the sweep.
"""

from __future__ import annotations

import argparse

import torch
from tqdm.auto import tqdm

from prunecap_lib import Captioner, VisualTokens
from prunecap_lib.datasets import open_dataset
from prunecap_lib.errors import InputError
from prunecap_lib.evaluation import bootstrap_interval, per_image_cider
from prunecap_lib.pruning import ATTENTION_SCORES, SCORES
from prunecap_lib.reports import Looks, provenance, write_json

RANDOM_SEEDS = (0, 1, 2)


@torch.inference_mode()
def encode_split(captioner: Captioner, dataset, *, cache_features: bool) -> VisualTokens:
    """All pictures' tokens, with attention signals where the encoder has them."""
    scorer = None if cache_features else usable(captioner)[-1]
    parts = [images if isinstance(images, VisualTokens) else captioner.encode(images, scorer=scorer)
             for _, images in Looks(captioner, dataset, cache_features=cache_features).batches(100, progress=True)]
    return VisualTokens.join(parts)


def usable(captioner: Captioner) -> list[str]:
    """Scorers this encoder can serve, those that need attention last."""
    plain = [name for name in SCORES if name not in ATTENTION_SCORES]
    try:
        size = captioner.config.image_size
        tokens = captioner.encode(torch.zeros(1, 3, size, size), scorer="attention_received")
    except InputError:
        return plain
    return plain + [name for name in ATTENTION_SCORES if getattr(tokens, name) is not None]


def point(captioner: Captioner, dataset, tokens: VisualTokens, ratio: float, scorer: str, options) -> dict:
    """CIDEr-D at one ratio, mean over seeds for the random scorer, with a bootstrap interval over pictures."""
    seeds = RANDOM_SEEDS if scorer == "random" and ratio else RANDOM_SEEDS[:1]
    totals = {}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        captions = {}
        for chunk in torch.arange(len(dataset)).split(100):
            found = captioner.generate(tokens.pictures(chunk), method=options.method, beam_size=options.beam_size,
                                       prune_ratio=ratio, scorer=scorer, generator=generator)
            captions |= {dataset.image_ids[i]: c.text for i, c in zip(chunk.tolist(), found, strict=True)}
        for key, value in per_image_cider(dataset.references(), captions).items():
            totals[key] = totals.get(key, 0.0) + value / len(seeds)
    values = list(totals.values())
    low, high = bootstrap_interval(values, seed=0)
    return {"prune_ratio": ratio, "CIDEr": round(sum(values) / len(values), 4),
            "CIDEr_interval": [round(low, 4), round(high, 4)], "seeds": list(seeds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="checkpoints")
    parser.add_argument("--out", required=True)
    parser.add_argument("--dataset", default="scenes")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--method", choices=("greedy", "beam"), default="greedy")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--ratios", type=float, nargs="+", default=(0.1, 0.3, 0.5, 0.7, 0.9))
    options = parser.parse_args()
    models = {}
    for name in options.names:
        captioner = Captioner.load(name)
        dataset = open_dataset(options.dataset, split=options.split, limit=options.limit,
                               size=captioner.config.image_size)
        tokens = encode_split(captioner, dataset, cache_features=captioner.config.frozen_encoder)
        models[name] = {"unpruned": point(captioner, dataset, tokens, 0.0, "grid", options), "scorers": {}}
        jobs = [(scorer, ratio) for scorer in usable(captioner) for ratio in options.ratios]
        for scorer, ratio in tqdm(jobs, desc=name):
            models[name]["scorers"].setdefault(scorer, []).append(
                point(captioner, dataset, tokens, ratio, scorer, options))
    write_json(options.out, {"dataset": options.dataset, "split": options.split, "pictures": len(dataset),
                             "method": options.method, "models": models, "provenance": provenance()})


if __name__ == "__main__":
    main()
