"""What would explain a largest batch that grows from 48 to 128? Every way to set up the presentation's training.

    python tools/measure_batches.py --out data/results/largest_batch.json
    python tools/measure_batches.py --out data/results/largest_batch.json --add --encoders convnext_base

Nothing is trained and no GPU is needed: ``costs.largest_batch`` estimates each from a training step without numbers.
About ten seconds a setting.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import torch

from prunecap_lib import TrainConfig
from prunecap_lib.costs import largest_batch
from prunecap_lib.pruning import Schedule
from prunecap_lib.reports import write_rows

CARD = 24 * 2**30
ENCODERS = {"vit_base_patch16_224": (3, 6, 9), "convnext_base": (9, 18, 27)}  # and after which blocks tokens go


def ways(after: tuple[int, ...]) -> dict[str, dict]:
    """Where tokens go. The score inside looks at no attention, so that it never asks for weights itself."""
    inside = {f"inside, keep {rate}": dict(schedule=Schedule(after, (rate,) * 3, "norm_smallest"), prune_ratio=0.0)
              for rate in (0.7, 0.5, 0.3)}
    return {"none": dict(prune_ratio=0.0), "before the decoder, 30%": dict(prune_ratio=0.3), **inside}


def settings(encoders: list[str]) -> Iterator[tuple[dict, TrainConfig]]:
    """What a row is about, and its training."""
    for encoder in encoders:
        attends = encoder.startswith("vit")
        for frozen, side, precision, fused, (way, changes) in product(
                (False, True), (224, 384), ("bf16", "fp32"), (True, False) if attends else (True,),
                ways(ENCODERS[encoder]).items()):
            config = replace(TrainConfig.seed_preset(encoder=encoder, image_size=side, freeze_encoder=frozen,
                                                     precision=precision), **changes)
            yield {"encoder": encoder, "image_size": side, "frozen": frozen, "precision": precision, "fused": fused,
                   "pruned": way}, config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--add", action="store_true", help="keep the file's rows about other encoders")
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for about, config in settings(options.encoders):
        rows.append(about | {"batch": largest_batch(config, CARD, fused=about["fused"])})
        print(*rows[-1].values(), flush=True)
    write_rows(options.out, rows, same=tuple(about), add=options.add)


if __name__ == "__main__":
    main()
