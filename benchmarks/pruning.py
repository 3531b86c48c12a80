"""How much of the operations that pruning inside a ViT saves arrives as time?

    python benchmarks/pruning.py --json data/results/pruning_speed.json

A ViT at 224 px loses tokens after a quarter, a half and three quarters of its blocks, each time down to ``keep`` of
those still there (DynamicViT's places). ``bound`` is the FLOPs of the unpruned encoder over those of the pruned one:
the speed-up if every operation took the same time. ``measured`` is the median time of the unpruned encoder over that
of the pruned one, timed by turns; ``share`` is measured / bound. Weights are random: time does not depend on them.

``way`` is "keep" (the best are gathered, the rest is gone), "merge" (Token Merging down to the same counts), or
"mask": nothing is gathered, the dropped tokens are only hidden from attention, as in training with masks. Its bound
is 1: it shows what pruning without removing saves.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from statistics import median, quantiles

import torch
from torch import nn

from prunecap_lib import build_encoder
from prunecap_lib.costs import count_flops
from prunecap_lib.pruning import Schedule
from prunecap_lib.reports import provenance, write_json

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
HEADER = "             encoder dtype batch  keep    way  plain ms  pruned ms  measured  quartiles  bound  share"
LINE = ("{encoder:>20} {dtype:>5} {batch:>5} {keep:>5} {way:>6} {plain_ms:>9.1f} {pruned_ms:>10.1f} {measured:>8.2f}x "
        "{low:.2f}-{high:.2f} {bound:>6.2f} {share:>6.0%}")


class Masked(nn.Module):
    """The same schedule without removing anything: dropped tokens are hidden as keys."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.schedule = encoder, encoder.schedule

    def forward(self, images):
        encoder = self.encoder
        x = encoder.embed(images)
        seen = torch.ones(len(x), 1, 1, x.shape[1], dtype=torch.bool)
        for number, block in enumerate(encoder.blocks, 1):
            x, _ = block(x, mask=seen)
            if rate := self.schedule.rate_after(number):
                norm = x.float().norm(dim=-1).masked_fill(~seen[:, 0, 0], -1)
                norm[:, 0] = torch.inf  # the class token stays
                k = round(rate * int(seen[0].sum()))
                seen = torch.zeros_like(seen).scatter(3, norm.topk(k).indices[:, None, None], True)
        return encoder.norm(x)


def pruned(name: str, keep: float, way: str) -> nn.Module:
    encoder = build_encoder(name).eval()
    depth = len(encoder.blocks)
    encoder.schedule = Schedule((depth // 4, depth // 2, 3 * depth // 4), (keep,) * 3, scorer="norm_largest",
                                reduction="merge" if way == "merge" else "keep")
    return Masked(encoder) if way == "mask" else encoder


@torch.inference_mode()
def time_by_turns(plain: nn.Module, other: nn.Module, images: torch.Tensor, repeats: int) -> dict:
    taken = {"plain": [], "pruned": []}
    for repeat in range(repeats + 1):
        for name, module in (("plain", plain), ("pruned", other)):
            start = time.perf_counter()
            module(images)
            if repeat:  # the first one warms up
                taken[name].append(1e3 * (time.perf_counter() - start))
    low, _, high = quantiles([p / o for p, o in zip(taken["plain"], taken["pruned"], strict=True)], n=4)
    middle = {f"{name}_ms": round(median(times), 2) for name, times in taken.items()}
    return {"measured": round(middle["plain_ms"] / middle["pruned_ms"], 3), "low": round(low, 3),
            "high": round(high, 3), **middle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write rows, settings and provenance here")
    parser.add_argument("--encoders", nargs="+", default=["vit_small_patch16_224"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--keep", nargs="+", type=float, default=[0.7, 0.5, 0.3])
    parser.add_argument("--ways", nargs="+", choices=("keep", "merge", "mask"), default=["keep", "merge", "mask"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    print(HEADER)
    for name, dtype, batch in product(args.encoders, args.dtypes, args.batches):
        plain = build_encoder(name).eval()
        images = torch.randn(batch, 3, plain.image_size, plain.image_size)
        flops = count_flops(plain, images[:1])
        plain, images = plain.to(DTYPES[dtype]), images.to(DTYPES[dtype])
        for keep, way in product(args.keep, args.ways):
            other = pruned(name, keep, way)
            bound = 1.0 if way == "mask" else flops / count_flops(other, images[:1].float())
            row = {"encoder": name, "dtype": dtype, "batch": batch, "keep": keep, "way": way, "bound": round(bound, 3),
                   **time_by_turns(plain, other.to(DTYPES[dtype]), images, args.repeats)}
            rows.append(row | {"share": round(row["measured"] / bound, 3)})
            print(LINE.format_map(rows[-1]), flush=True)
    if args.json:
        write_json(args.json, {"rows": rows, "settings": {key: value for key, value in vars(args).items()
                                                          if key != "json"}, "provenance": provenance()})


if __name__ == "__main__":
    main()
