"""What would explain a largest batch that grows from 48 to 128? Every way to set up the presentation's training.

    python experiments/largest_batch.py --out data/results/largest_batch.json
    python experiments/largest_batch.py --out data/results/largest_batch.json --add

Nothing is trained and no GPU is needed: ``costs.forecast.largest_batch`` estimates each from a step without numbers.
A few seconds a setting, some minutes in all; with ``--add`` it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import torch

from prunecap_lib import TrainConfig
from prunecap_lib.costs.forecast import largest_batch
from prunecap_lib.provenance import report_path, write_rows
from prunecap_lib.pruning import Schedule

CARD = 24 * 2**30
ENCODERS = {"vit_base_patch16_224": (3, 6, 9), "convnext_base": (9, 18, 27)}  # and after which blocks tokens go

SAME = ("encoder", "image_size", "frozen", "precision", "fused", "pruned")


def ways(after: tuple[int, ...], frozen: bool) -> dict[str, dict]:
    """Where tokens go. The score inside looks at no attention, so that it never asks for weights itself."""
    inside = {f"inside, keep {rate}": dict(schedule=Schedule(after, (rate,) * 3, "norm_smallest"), prune_ratio=0.0)
              for rate in ((0.5,) if frozen else (0.7, 0.5, 0.3))}
    return {"none": dict(prune_ratio=0.0), "before the decoder, 30%": dict(prune_ratio=0.3), **inside}


def settings() -> Iterator[tuple[dict, TrainConfig]]:
    """What a row is about, and its training. The trained ones first; frozen, attention keeps nothing either way."""
    for frozen, encoder in product((False, True), ENCODERS):
        attends = encoder.startswith("vit") and not frozen
        for side, precision, fused in product((384, 224), ("fp32", "bf16"), (True, False) if attends else (True,)):
            for way, changes in ways(ENCODERS[encoder], frozen).items():
                about = {"encoder": encoder, "image_size": side, "frozen": frozen, "precision": precision,
                         "fused": fused, "pruned": way}
                yield about, replace(TrainConfig.seed_preset(encoder=encoder, image_size=side, freeze_encoder=frozen,
                                                             precision=precision), **changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=report_path, required=True)
    parser.add_argument("--add", action="store_true", help="keep the file's rows, and ask for those that it lacks")
    parser.add_argument("--share", type=int, nargs=2, default=(1, 1), metavar=("I", "N"),
                        help="with --add: the I-th of N processes that share the work")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = []
    if options.add and Path(options.out).exists():
        known = [{key: row[key] for key in SAME} for row in json.loads(Path(options.out).read_text())["rows"]]
    rows = []
    first, every = options.share
    for about, config in islice(settings(), first - 1, None, every):
        if about not in known:
            rows.append(about | {"batch": largest_batch(config, CARD, fused=about["fused"])})
            print(*rows[-1].values(), flush=True)
            write_rows(options.out, rows if not options.add else rows[-1:], same=SAME, add=options.add)


if __name__ == "__main__":
    main()
