"""What is pruning inside the encoder worth once the captioner has got used to it?

    python experiments/scenes_finetuned.py --out data/results/scenes_finetuned.json
    python experiments/scenes_finetuned.py --out data/results/scenes_finetuned.json --add --only "none long" "half long"

A shipped Scenes captioner is fine-tuned for two epochs under a schedule, with its unpruned self as the teacher: once
for each scorer and each share of tokens that is left in the end; once ("half") with a schedule that takes at most half
of the encoder's FLOPs; and once without a schedule ("none"), to tell what two more epochs alone do. Those at half of
the FLOPs are made again with all the pictures and the learning rate that the shipped model itself was trained with
("long"), beside a random choice. Then it captions the test split, greedily and with no token dropped before the
decoder. "before" is the same pruning without any fine-tuning. A run that is there already is not made again: the
command can be stopped and repeated, and several may run at once with different ``--only``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from prunecap_lib import Captioner, TrainConfig, build_encoder, train
from prunecap_lib.costs import count_flops, schedule_for_flops
from prunecap_lib.datasets import open_dataset
from prunecap_lib.evaluation import bootstrap_interval, caption_split, mean, per_image_cider
from prunecap_lib.files import write_text
from prunecap_lib.provenance import report_path, write_rows
from prunecap_lib.pruning import Schedule

LEFT = (0.3, 0.5)
"""Share of the tokens that is left after the last reduction."""
PLANS = {  # after which blocks tokens go, and what takes at most half of the encoder's FLOPs
    "scenes-vit": ((1, 2, 3), dict(reduction="merge")),
    "scenes-convnext": ((2,), dict(scorer="predictor")),
}
SHORT, LONG = dict(limit=12_000, lr=3e-4), dict(limit=24_000, lr=1e-3)
SCORERS = ("predictor", "random", "grid")
RANDOM_SEEDS = (0, 1, 2)


def schedules(model: str) -> dict[str, Schedule | None]:
    """A name for each run -> its schedule: equal rates after each block, whose product is what is left."""
    after, half = PLANS[model]
    named = {f"{scorer} {left}": Schedule(after, (round(left ** (1 / len(after)), 4),) * len(after), scorer=scorer)
             for left in LEFT for scorer in SCORERS}
    encoder = build_encoder(Captioner.load(model).config.encoder)
    halves = {name: schedule_for_flops(encoder, 0.5, after=after, **how)
              for name, how in {"half": half, "half random": dict(scorer="random")}.items()}
    return {"none": None, "half": halves["half"]} | named | {"none long": None} | {
        f"{name} long": schedule for name, schedule in halves.items()}


def config_of(model: str, name: str, schedule: Schedule | None, limit: int | None) -> TrainConfig:
    """Two epochs from the shipped checkpoint; its own settings but for pruning. ``limit``: fewer pictures.

    The ratio loss counts five times what the paper gives it: two epochs are short, and with the paper's weight the
    predictor still kept far more tokens in training than it may keep afterwards.
    """
    own = Captioner.load(model).config
    same = {key: value for key, value in asdict(own).items() if key in ("encoder", "d_model", "layers", "heads", "ffn",
                                                                        "dropout", "positions", "tie_weights")}
    size = (LONG if name.endswith("long") else SHORT) | ({} if limit is None else {"limit": limit})
    return TrainConfig(dataset="scenes", start=model, schedule=schedule, prune_ratio=0.0, epochs=2, ratio_weight=10.0,
                       captions_per_image=2, batch_size=64, val_limit=200, progress=sys.stderr.isatty(),
                       out=f"runs/finetuned/{model}/{name.replace(' ', '-')}", **size, **same)


def scored(captioner: Captioner, dataset) -> dict:
    """CIDEr-D on the split with a bootstrap interval over pictures, and each picture's own."""
    drawn = captioner.encoder.schedule is not None and captioner.encoder.schedule.scorer == "random"
    seeds = RANDOM_SEEDS if drawn else RANDOM_SEEDS[:1]
    total = dict.fromkeys(dataset.image_ids, 0.0)
    for seed in seeds:
        torch.manual_seed(seed)  # inside an encoder the random scorer draws torch's own numbers
        captions = caption_split(captioner, dataset, prune_ratio=0.0)
        found = per_image_cider(dataset.references(), {key: caption.text for key, caption in captions.items()})
        total = {key: total[key] + value / len(seeds) for key, value in found.items()}
    values = list(total.values())
    interval = [round(x, 4) for x in bootstrap_interval(values, seed=0)]
    return {"CIDEr": round(mean(values), 4), "CIDEr_interval": interval,
            "per_picture": [round(value, 4) for value in values], "seeds": list(seeds)}


def row(model: str, name: str, schedule: Schedule | None, limit: int | None, dataset) -> dict:
    """Fine-tune, score, and say what it costs."""
    config = config_of(model, name, schedule, limit)
    start = Captioner.load(model)
    start.encoder.set_schedule(schedule)
    learned = schedule is not None and schedule.scorer == "predictor"
    before = None if learned else scored(start, dataset)  # a fresh predictor knows nothing
    captioner = train(config).captioner.eval()
    side = captioner.config.image_size
    pixels = torch.zeros(1, 3, side, side)
    flops = count_flops(captioner.encoder, pixels)
    with captioner.encoder.unpruned():
        whole = count_flops(captioner.encoder, pixels)
    return {"model": model, "name": name, "training_pictures": config.limit, "epochs": config.epochs, "lr": config.lr,
            "seed": config.seed, "scorer": schedule.scorer if schedule else None,
            "reduction": schedule.reduction if schedule else None,
            "schedule": str(schedule) if schedule else None,
            "tokens_left": schedule.counts(start.encoder.grid[0] * start.encoder.grid[1])[-1] if schedule else None,
            "encoder_flops_share": round(flops / whole, 4), "before": before, "after": scored(captioner, dataset),
            "test_pictures": len(dataset)}


def compare(rows: list[dict]) -> None:
    """Give each row "against": its gain over others of its model, picture by picture, with a bootstrap interval."""
    found = {(r["model"], r["name"]): r for r in rows}
    for (model, name), one in found.items():
        rivals = ["none long", "half random long"] if name.endswith("long") else [
            "none", *(name.replace("predictor", rival) for rival in ("random", "grid"))]
        one["against"] = {}
        for rival in rivals:
            if rival == name or (other := found.get((model, rival))) is None:
                continue
            gain = [a - b for a, b in zip(one["after"]["per_picture"], other["after"]["per_picture"], strict=True)]
            one["against"][rival] = {"difference": round(mean(gain), 4),
                                     "interval": [round(x, 4) for x in bootstrap_interval(gain, seed=0)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--only", nargs="+", help="some runs only, like 'none' or 'grid 0.3'; default: all")
    parser.add_argument("--limit", type=int, help="training pictures (default 12000; long runs 24000)")
    parser.add_argument("--test-limit", type=int, help="test pictures (default: all 1,000)")
    parser.add_argument("--out", type=report_path, help="write all rows found and their comparison here")
    parser.add_argument("--add", action="store_true", help="keep the other rows of that file")
    options = parser.parse_args()
    rows = []
    for model in options.models:
        dataset = open_dataset("scenes", split="test", limit=options.test_limit)
        for name, schedule in schedules(model).items():
            if options.only and name not in options.only:
                continue
            kept = Path(config_of(model, name, schedule, options.limit).out) / "row.json"
            if not kept.exists():
                found = row(model, name, schedule, options.limit, dataset)
                write_text(kept, json.dumps(found))
                print(model, name, {k: v["CIDEr"] for k in ("before", "after") if (v := found[k])}, flush=True)
            rows.append(json.loads(kept.read_text(encoding="utf-8")))
    if options.out:
        compare(rows)
        for found in rows:
            for when in ("before", "after"):
                if found[when]:
                    del found[when]["per_picture"]
        write_rows(options.out, rows, same=("model", "name"), add=options.add)


if __name__ == "__main__":
    main()
