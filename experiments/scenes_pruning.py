"""What does pruning cost a trained captioner? Every scorer at every ratio, without training again.

    python experiments/scenes_pruning.py scenes-vit scenes-convnext --out data/results/scenes_pruning.json
    PRUNECAP_PHOTOS=photos python experiments/scenes_pruning.py photos-lite0 --dataset flickr8k --split dev \\
        --method beam --out data/results/photos_pruning.json

Each picture is encoded once; its tokens are scored, pruned and captioned for every point of the sweep. Where a data
set knows its objects' masks (Scenes), two more rows use them: "objects_first" keeps the cells that hold objects as long
as they can be kept, "objects_last" drops them first. No scorer can know that much; they are limits.
"""

from __future__ import annotations

import argparse
from itertools import product

import torch
from tqdm.auto import tqdm

from prunecap_lib import Captioner, VisualTokens
from prunecap_lib.datasets import open_dataset
from prunecap_lib.datasets.scenes import ScenesDataset
from prunecap_lib.evaluation import bootstrap_interval, encoder_inputs, per_image_cider
from prunecap_lib.provenance import provenance, report_path, write_json
from prunecap_lib.pruning import ATTENTION_SCORES, SCORES, keep_count, keep_top_k, oracle_score

RANDOM_SEEDS = (0, 1, 2)


@torch.inference_mode()
def encode_split(captioner: Captioner, dataset, *, cache_features: bool) -> VisualTokens:
    """All pictures' tokens, with attention signals where the encoder has them."""
    scorer = None if cache_features else usable(captioner)[-1]
    return VisualTokens.cat([
        images if isinstance(images, VisualTokens) else captioner.encode(images, scorer=scorer)
        for _, images in encoder_inputs(captioner, dataset, 100, cache_features=cache_features, progress=True)])


def usable(captioner: Captioner) -> list[str]:
    """Scorers this encoder can serve, those that need attention last."""
    told = captioner.encoder.block_signals(captioner.encoder.depth)
    return [name for name in SCORES if name not in ATTENTION_SCORES] + [
        name for name in ATTENTION_SCORES if name in told]


def object_cover(dataset, grid: tuple[int, int]) -> torch.Tensor | None:
    """Share of each cell that objects cover, [n, H*W]; None where the data set has no masks."""
    if not isinstance(dataset, ScenesDataset):
        return None
    return torch.stack([torch.from_numpy(scene.token_mask(grid)).flatten() for scene in dataset.scenes])


def point(captioner: Captioner, dataset, ratio: float, prune, options, seeds=RANDOM_SEEDS[:1]) -> dict:
    """CIDEr-D at one ratio, mean over seeds, with a bootstrap interval over pictures.

    Args: prune: from picture numbers [B] and a generator to what is left of their tokens.
    """
    totals = {}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        captions = {}
        for chunk in torch.arange(len(dataset)).split(100):
            with torch.inference_mode():
                kept = prune(chunk, generator)
            found = captioner.generate(kept, method=options.method, beam_size=options.beam_size, prune_ratio=0.0)
            captions |= {dataset.image_ids[i]: c.text for i, c in zip(chunk.tolist(), found, strict=True)}
        for key, value in per_image_cider(dataset.references(), captions).items():
            totals[key] = totals.get(key, 0.0) + value / len(seeds)
    values = list(totals.values())
    low, high = bootstrap_interval(values, seed=0)
    return {"prune_ratio": ratio, "CIDEr": round(sum(values) / len(values), 4),
            "CIDEr_interval": [round(low, 4), round(high, 4)], "seeds": list(seeds)}


def sweep(captioner: Captioner, dataset, tokens: VisualTokens, options, name: str) -> dict:
    """Every point of one model: unpruned, by each scorer, and by the masks where there are some."""
    rows = {"unpruned": point(captioner, dataset, 0.0, lambda chunk, _: tokens.select(chunk), options),
            "scorers": {}, "masks": {}}
    for scorer, ratio in tqdm(list(product(usable(captioner), options.ratios)), desc=name):
        def prune(chunk, generator, scorer=scorer, ratio=ratio):
            return captioner.prune(tokens.select(chunk), ratio, scorer, generator)
        seeds = RANDOM_SEEDS if scorer == "random" else RANDOM_SEEDS[:1]
        rows["scorers"].setdefault(scorer, []).append(point(captioner, dataset, ratio, prune, options, seeds))
    if (cover := object_cover(dataset, tokens.grid)) is None:
        return rows
    for (row, sign), ratio in product({"objects_first": 1, "objects_last": -1}.items(), options.ratios):
        def prune(chunk, _, sign=sign, ratio=ratio):
            part = tokens.select(chunk)
            return keep_top_k(part, oracle_score(part, sign * cover[chunk]), keep_count(part.x.shape[1], ratio))
        rows["masks"].setdefault(row, []).append(point(captioner, dataset, ratio, prune, options))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="checkpoints")
    parser.add_argument("--out", type=report_path, required=True)
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
        models[name] = sweep(captioner, dataset, tokens, options, name)
    write_json(options.out, {"dataset": options.dataset, "split": options.split, "pictures": len(dataset),
                             "method": options.method, "models": models, "provenance": provenance()})


if __name__ == "__main__":
    main()
