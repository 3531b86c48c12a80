"""How many steps more does a frozen-encoder captioner take from stored features than from the pictures?

    PRUNECAP_PHOTOS=photos python benchmarks/features.py --json data/results/features.json

Both take the same steps by turns: end to end (decode the JPEG, encode, learn) and from the feature cache (read, learn).
The ratio depends on how much there is to learn in a step, so each encoder is taken with five captions a picture (as the
shipped models were trained) and with one (as in the seed preset). With --dataset scenes, drawn Scenes take the place of
photographs; they lie in memory decoded, and the ratio is lower by what decoding costs. An encoder whose weights are not
at hand has random ones: that is as fast.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import torch

from prunecap_lib import TrainConfig
from prunecap_lib.costs.forecast.memory import precision_on
from prunecap_lib.costs.forecast.shapes import autocast
from prunecap_lib.datasets import open_dataset
from prunecap_lib.errors import MissingFileError
from prunecap_lib.features import FeatureCache
from prunecap_lib.provenance import provenance, report_path, write_json
from prunecap_lib.training.batches import Batch, Batches
from prunecap_lib.training.build import new_captioner, parameter_groups
from prunecap_lib.training.objective import objective

TARGET = 8
SHIPPED = dict(image_size=224, freeze_encoder=True, d_model=256, layers=2, heads=4, ffn=1024, dropout=0.2,
               label_smoothing=0.1, lr=2e-3, min_count=5, batch_size=64)
RUNS = {
    "photos-lite0": TrainConfig(encoder="tf_efficientnet_lite0@last_stage", encoder_weights="package", view="whole",
                                **SHIPPED),
    "photos-vit-small": TrainConfig(encoder="vit_small_patch14_dinov2",
                                    encoder_weights="vit_small_patch14_224_fp16.safetensors", **SHIPPED),
    "seed preset": TrainConfig.seed_preset(freeze_encoder=True, batch_size=32),
}


def endless(batches: Batches) -> Iterator:
    return chain.from_iterable(batches.epoch(epoch) for epoch in count())


def step(captioner, optimizer, batches: Iterator, config: TrainConfig) -> tuple[float, float]:
    """Seconds to load a batch, and to learn from it."""
    started = time.perf_counter()
    images, ids = next(batches)
    loaded = time.perf_counter()
    with autocast(precision_on(config, "cpu"), "cpu"):
        loss, _, _ = objective(captioner, Batch(images, ids), config)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(captioner.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad()
    return loaded - started, time.perf_counter() - loaded


def measure(name: str, config: TrainConfig, dataset, rounds: int) -> dict:
    torch.manual_seed(0)
    try:
        captioner = new_captioner(config, dataset.captions).train()
        weights = "pretrained" if config.encoder_weights else "random"
    except MissingFileError:
        captioner, weights = new_captioner(replace(config, encoder_weights=None), dataset.captions).train(), "random"
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config.weight_decay), lr=config.lr)
    pictures, cached = Batches(dataset, captioner, config), Batches(dataset, captioner, config)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        cached.features = FeatureCache.open_or_build(dataset, captioner.encoder, Path(folder) / "features",
                                                     progress=False)
        built = time.perf_counter() - started
        sides = {"end_to_end": endless(pictures), "cached": endless(cached)}
        for side in sides.values():
            step(captioner, optimizer, side, config)  # the first step allocates
        times = {side: [] for side in sides}
        for _ in range(rounds):
            for side, batches in sides.items():
                times[side].append(step(captioner, optimizer, batches, config))
    whole = {side: [load + learn for load, learn in pairs] for side, pairs in times.items()}
    ratios = [slow / fast for slow, fast in zip(whole["end_to_end"], whole["cached"], strict=True)]
    undecoded = [slow / fast for (_, slow), fast in zip(times["end_to_end"], whole["cached"], strict=True)]
    return {"run": name, "encoder": config.encoder, "precision": precision_on(config, "cpu"), "weights": weights,
            "dataset": dataset.name,
            "batch_size": config.batch_size, "captions_per_image": config.captions_per_image, "rounds": rounds,
            "steps_per_second": {side: round(1 / statistics.median(seconds), 3) for side, seconds in whole.items()},
            "load_seconds": {side: round(statistics.median(load for load, _ in pairs), 4)
                             for side, pairs in times.items()},
            "ratio": round(statistics.median(ratios), 2), "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
            "ratio_without_decoding": round(statistics.median(undecoded), 2), "target": TARGET,
            "build_pictures_per_second": round(len(dataset) / built, 1), "threads": torch.get_num_threads()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=["scenes", "flickr8k", "coco"], default="flickr8k")
    parser.add_argument("--photos", help="its folder; default: PRUNECAP_PHOTOS")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=report_path)
    options = parser.parse_args()
    rows = []
    for name in options.runs:
        config = RUNS[name]
        dataset = open_dataset(options.dataset, split="train", root=options.photos, limit=2 * config.batch_size,
                               size=config.image_size)
        for captions in sorted({config.captions_per_image, 1}, reverse=True):
            row = measure(name, replace(config, captions_per_image=captions), dataset, options.rounds)
            rows.append(row)
            speeds = row["steps_per_second"]
            print(f"{name:17} {captions} captions a picture: {speeds['end_to_end']:.2f} steps a second end to end, "
                  f"{speeds['cached']:.2f} cached: {row['ratio']:.1f}x ({row['ratio_range'][0]:.1f} to "
                  f"{row['ratio_range'][1]:.1f}; target {TARGET}x: "
                  f"{'reached' if row['ratio'] >= TARGET else 'MISSED'})", flush=True)
    if options.json:
        write_json(options.json, {"rows": rows, "provenance": provenance()})


if __name__ == "__main__":
    main()
