"""What does self-critical training add to a captioner, and do its captions stay sentences?

    PRUNECAP_PHOTOS=photos python experiments/self_critical.py --out data/results/self_critical.json

The shipped photos-lite0 (frozen encoder, stored features, 30% of the tokens pruned) goes through a second stage on
Flickr8k's 6,000 training photographs: with the end of a caption counted as a word of the reward ("standard"), without
it ("no-eos"), against the greedy caption instead of the other samples ("greedy"), and with a third of the learning
rate ("slow"). Before and after, it captions the 1,000 dev photographs greedily and with five beams. A run that is there
already is not made again, and one that was stopped goes on: the command can be repeated, and gives all runs found.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from prunecap_lib import Captioner, TrainConfig, train
from prunecap_lib.datasets import open_dataset
from prunecap_lib.evaluation import bootstrap_interval, caption_split, diversity, mean, per_image_cider, score_captions
from prunecap_lib.files import write_text
from prunecap_lib.provenance import provenance, report_path, write_json
from prunecap_lib.text import tokenize
from prunecap_lib.training.self_critical import reward_signature

START = "photos-lite0"
RUNS = {"standard": {}, "no-eos": dict(reward_eos=False), "greedy": dict(baseline="greedy"), "slow": dict(lr=1e-4)}
SETTINGS = dict(dataset="flickr8k", encoder="tf_efficientnet_lite0@last_stage", encoder_weights="package",
                freeze_encoder=True, cache_features=True, d_model=256, layers=2, heads=4, ffn=1024, dropout=0.0,
                batch_size=64, epochs=3, lr=3e-4, val_limit=1000, caption_limit=None, log_every=10)
SEARCHES = {"greedy": dict(method="greedy"), "beam5": dict(method="beam", beam_size=5)}
LOOSE_ENDS = frozenset("a an the with in on of and to at by for from into onto over under near through while as is are "
                       "its his her their".split())
"""Words that leave a sentence open. People end captions so, too, now and then: "a dog looks on"."""


def config_of(run: str, epochs: int, limit: int | None) -> TrainConfig:
    changes = RUNS[run] | dict(epochs=epochs, limit=limit, out=f"runs/self_critical/{run}")
    return TrainConfig(start=START, objective="self_critical", **SETTINGS | changes)


def open_ended(captions: Iterable[str]) -> int:
    """How many of these captions stop in the middle?"""
    return sum(tokenize(caption)[-1:] == [word] for caption in captions for word in LOOSE_ENDS)


def scored(captioner: Captioner, dataset) -> dict[str, dict]:
    """CIDEr-D and the look of the captions, for each search; "per_picture" and "captions" too."""
    found = {}
    for name, search in SEARCHES.items():
        texts = {key: caption.text for key, caption in
                 caption_split(captioner, dataset, cache_features=True, **search).items()}
        values = list(per_image_cider(dataset.references(), texts).values())
        found[name] = {"CIDEr": round(mean(values), 4),
                       "CIDEr_interval": [round(x, 4) for x in bootstrap_interval(values, seed=0)],
                       "Bleu_4": round(score_captions(dataset.references(), texts, metrics=["BLEU"])["Bleu_4"], 4),
                       "diversity": {key: round(value, 4) for key, value in diversity(texts).items()},
                       "open_ended": open_ended(texts.values()),
                       "last_words": Counter(tokenize(text)[-1] for text in texts.values()
                                             if tokenize(text)).most_common(5),
                       "per_picture": [round(value, 4) for value in values], "captions": list(texts.values())}
    return found


def kept(path: Path, make) -> dict:
    """What ``make()`` gives, made once and then read from ``path``."""
    if not path.exists():
        write_text(path, json.dumps(make()))
    return json.loads(path.read_text(encoding="utf-8"))


def row(config: TrainConfig, dataset) -> dict:
    """One run: trained, scored, and what its log says of the samples' rewards and of the loss on given words."""
    result = train(config)
    said = reward_signature(eos=config.reward_eos, baseline=config.baseline, samples=config.samples)
    return {"reward": said, "config": asdict(result.config), "seconds": result.history[-1]["seconds"],
            "rewards": [[line["step"], line["reward"]] for line in result.history if "reward" in line],
            "val_loss": [[line["step"], line["val_loss"]] for line in result.history if "val_loss" in line],
            "after": scored(result.captioner.eval(), dataset)}


def against(before: dict, after: dict) -> dict:
    """The gain picture by picture, with a bootstrap interval over pictures."""
    gains = {}
    for search in SEARCHES:
        gain = [b - a for a, b in zip(before[search]["per_picture"], after[search]["per_picture"], strict=True)]
        gains[search] = {"difference": round(mean(gain), 4),
                         "interval": [round(x, 4) for x in bootstrap_interval(gain, seed=0)],
                         "captions_changed": sum(a != b for a, b in zip(before[search]["captions"],
                                                                        after[search]["captions"], strict=True))}
    return gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--limit", type=int, help="training pictures (default: all 6,000)")
    parser.add_argument("--out", type=report_path, help="write all runs found here")
    options = parser.parse_args()
    dataset, folder = open_dataset("flickr8k", split="dev"), Path("runs/self_critical")
    before = kept(folder / "before.json", lambda: scored(Captioner.load(START), dataset))
    rows = []
    for run in RUNS:
        config, path = config_of(run, options.epochs, options.limit), folder / run / "row.json"
        if run in options.runs or path.exists():
            found = kept(path, lambda config=config: row(config, dataset))
            rows.append({"run": run, **found, "gain": against(before, found["after"])})
            print(run, json.dumps(rows[-1]["gain"]), flush=True)
    if options.out:
        examples = range(0, len(dataset), len(dataset) // 8)
        for report in (before, *(found["after"] for found in rows)):
            for one in report.values():
                del one["per_picture"]
                one["captions"] = {str(dataset.image_ids[i]): one["captions"][i] for i in examples}
        people = [caption for captions in dataset.captions for caption in captions]
        write_json(options.out, {"start": START, "dataset": "flickr8k", "split": "dev", "pictures": len(dataset),
                                 "before": before, "rows": rows, "people_open_ended": open_ended(people) / len(people),
                                 "provenance": provenance()})


if __name__ == "__main__":
    main()
