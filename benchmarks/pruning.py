"""How much of the operations that pruning inside an encoder saves arrives as time?

    python benchmarks/pruning.py --json data/results/pruning.json
    python benchmarks/pruning.py --json data/results/pruning.json --add --encoders vit_base_patch16_224 --dtypes fp32

The whole takes about a quarter of an hour; with ``--add`` a part is measured again and the file's other rows stay.

Tokens go after a quarter, a half and three quarters of the blocks, each time down to ``keep`` of those still there
(DynamicViT's places). ``bound`` is the FLOPs of the unpruned encoder over those of the pruned one: the speed-up if
every operation took the same time. ``measured`` is the median of the unpruned encoder's time over the pruned one's,
taken by turns, with its quartiles; ``share`` is measured / bound. Weights are random: time does not depend on them.

``way`` says what becomes of the tokens:
    keep       the best by ``scorer`` are gathered, the rest is gone
    mask       peer: the same tokens are hidden from attention, and nothing is removed. Its bound is 1
    tome       peer: Token Merging as its paper has it, r tokens in every block between attention and MLP
    merge      Token Merging as ``Schedule.merging`` has it
    keep like tome    the best are gathered, as many after each block as ``merge`` leaves

``choosing`` is the share of the pruned encoder's time that goes into scores and gathering: what it takes more than one
that keeps the first tokens as they come, by a slice.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn

from prunecap_lib import VisualTokens, build_encoder
from prunecap_lib.costs import count_flops
from prunecap_lib.pruning import Schedule, merge_similar, proportional_bias
from prunecap_lib.pruning.reduce import keep_count
from prunecap_lib.reports import provenance, write_json

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
VITS = ("vit_small_patch16_224", "vit_base_patch16_224")
MAPS = ("convnext_tiny", "swin_tiny_patch4_window7_224", "poolformer_s12")
SCORERS = ("norm_largest", "cls_attention", "attention_received")
RATES, R = (0.7, 0.5, 0.3), 16
LINE = ("{encoder:>28} {dtype} {batch:>3} {way:>14} {what:>24} {measured:>6.2f}x ({low:.2f}-{high:.2f}) of {bound:>5.2f}x"
        " {share:>5.0%}{more}")


class First(Schedule):
    """Keeps as many, at no cost: the first ones, whoever they are."""

    def reduce(self, tokens: VisualTokens, rate: float, *_) -> VisualTokens:
        k = keep_count(tokens.x.shape[1], 1 - rate)
        return replace(tokens, x=tokens.x[:, :k], index=tokens.index[:, :k])


class Masked(nn.Module):
    """Peer: the schedule's tokens, by their norm, hidden as keys; every one of them is computed to the end."""

    def __init__(self, encoder: nn.Module, schedule: Schedule):
        super().__init__()
        self.encoder, self.schedule = encoder, schedule

    def forward(self, images: Tensor) -> Tensor:
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


class Tome(nn.Module):
    """Peer: Bolya et al. 2023, section 3. In every block r tokens merge after its attention, by its keys."""

    def __init__(self, encoder: nn.Module, r: int):
        super().__init__()
        self.encoder, self.r = encoder, r

    def forward(self, images: Tensor) -> Tensor:
        encoder = self.encoder
        x = encoder.embed(images)
        tokens, mask = VisualTokens.full(x[:, 1:], encoder.grid, x[:, :1]), None
        for block in encoder.blocks:
            B, T, C = x.shape
            qkv = block.attn.qkv(block.norm1(x)).view(B, T, 3, block.attn.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = x + block.ls1(block.attn.proj(y.transpose(1, 2).reshape(B, T, C)))
            tokens = tokens.with_x(x[:, 1:], x[:, :1])
            tokens = merge_similar(tokens, min(self.r, (T - 1) // 2), k.mean(dim=1)[:, 1:])
            x, mask = tokens.sequence, proportional_bias(tokens).to(x.dtype)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return encoder.norm(x)


def places(encoder: nn.Module) -> tuple[int, int, int]:
    depth = len(encoder.blocks)
    return depth // 4, depth // 2, 3 * depth // 4


def follow(encoder: nn.Module, schedule: Schedule) -> nn.Module:
    """The same encoder, with the same weights in the same memory, under a schedule."""
    other = copy.copy(encoder)
    other.schedule = schedule
    return other


def top_k(encoder: nn.Module, rates: tuple[float, ...], scorer: str = "norm_largest") -> dict:
    """way, settings -> encoder: for each rate the best are kept, or the first."""
    made = {}
    for rate in rates:
        kept = Schedule(places(encoder), (rate,) * 3, scorer)
        made["keep", rate, scorer] = follow(encoder, kept)
        made["first", rate, ""] = follow(encoder, First(kept.after, kept.keep, "norm_largest"))
    return made


def scored(encoder: nn.Module) -> dict:
    return {key: other for scorer in SCORERS for key, other in top_k(encoder, (0.5,), scorer).items()}


def peers(encoder: nn.Module) -> dict:
    merging = Schedule.merging(R, tokens=encoder.grid[0] * encoder.grid[1], depth=len(encoder.blocks))
    half = Schedule(places(encoder), (0.5,) * 3, "norm_largest")
    return {("keep", 0.5, "norm_largest"): follow(encoder, half), ("mask", 0.5, "norm_largest"): Masked(encoder, half),
            ("tome", None, ""): Tome(encoder, R), ("merge", None, ""): follow(encoder, merging),
            ("keep like tome", None, "norm_largest"):
                follow(encoder, Schedule(merging.after, merging.keep, "norm_largest"))}


def maps(encoder: nn.Module) -> dict:
    return top_k(encoder, RATES, "norm_largest")


PARTS = {  # part -> encoders, batches, what is compared
    "keep": (VITS, (1, 8, 32), lambda encoder: top_k(encoder, RATES)),
    "scorers": (VITS, (1, 8), scored),
    "peers": (VITS, (1, 8), peers),
    "maps": (MAPS, (1, 8), maps),
}


@torch.inference_mode()
def time_by_turns(plain: nn.Module, others: dict, images: Tensor, seconds: float, most: int = 41) -> dict:
    """Seconds of every run: "plain" and the others' keys -> list. At least five turns, and then until time is over."""
    taken = {name: [] for name in ("plain", *others)}
    start = time.perf_counter()
    turn = 0
    while turn < 6 or (turn <= most and time.perf_counter() - start < seconds):
        for name, module in {"plain": plain, **others}.items():
            begin = time.perf_counter()
            module(images)
            if turn:  # the first one warms up
                taken[name].append(time.perf_counter() - begin)
        turn += 1
    return taken


def quartiles(values: list[float]) -> tuple[float, float, float]:
    return tuple(round(value, 4) for value in quantiles(values, n=4, method="inclusive"))


def measure(part: str, name: str, dtype: str, batch: int, seconds: float):
    """Rows of one part, encoder, dtype and batch."""
    plain = build_encoder(name).eval()
    others = PARTS[part][2](plain)
    images = torch.randn(batch, 3, plain.image_size, plain.image_size)
    flops = count_flops(plain, images[:1])
    bounds = {key: 1.0 if key[0] == "mask" else flops / count_flops(other, images[:1]) for key, other in others.items()}
    plain, images = plain.to(DTYPES[dtype]), images.to(DTYPES[dtype])  # the others hold the same weights
    taken = time_by_turns(plain, others, images, seconds)
    for (way, keep, scorer), times in ((key, taken[key]) for key in others):
        if way == "first":
            continue
        low, middle, high = quartiles([p / o for p, o in zip(taken["plain"], times, strict=True)])
        bound = bounds[way, keep, scorer]
        row = {"part": part, "encoder": name, "dtype": dtype, "batch": batch, "keep": keep, "way": way,
               "scorer": scorer, "r": R if keep is None else None, "bound": round(bound, 3), "measured": middle,
               "low": low, "high": high, "share": round(middle / bound, 3), "turns": len(times),
               "plain_ms": round(1e3 * median(taken["plain"]), 2), "pruned_ms": round(1e3 * median(times), 2)}
        if free := taken.get(("first", keep, "")):
            row["choosing"] = quartiles([1 - f / t for f, t in zip(free, times, strict=True)])
        yield row


def line(row: dict) -> str:
    what = f"keep {row['keep']} {row['scorer']}" if row["keep"] else f"r {row['r']} {row['scorer']}"
    more = f", choosing {row['choosing'][1]:.1%}" if "choosing" in row else ""
    return LINE.format_map(row | {"what": what, "more": more})


def compared(rows: list[dict]) -> list[str]:
    """Ours against each peer: ratio of times in the same run."""
    found = []
    for row in rows:
        if row["part"] == "peers" and row["way"] in ("mask", "tome"):
            others = {other["way"]: other for other in rows if other["part"] == "peers" and all(
                other[key] == row[key] for key in ("encoder", "dtype", "batch"))}
            for ours in ("keep",) if row["way"] == "mask" else ("merge", "keep like tome"):
                if ours in others:
                    found.append(f"{row['encoder']} {row['dtype']} batch {row['batch']}: {ours} is "
                                 f"{others[ours]['measured'] / row['measured']:.2f} times as fast as {row['way']}")
    return found


def identity(row: dict) -> tuple:
    return tuple(row.get(key) for key in ("part", "encoder", "dtype", "batch", "keep", "way", "scorer"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write rows, settings and provenance here")
    parser.add_argument("--add", action="store_true", help="keep the other rows of that file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--encoders", nargs="+", choices=(*VITS, *MAPS), default=[*VITS, *MAPS])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=30, help="of turns for each encoder, dtype and batch")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    old = json.loads(args.json.read_text()) if args.add and args.json.exists() else {"rows": [], "runs": []}
    rows = []
    for part in args.parts:
        encoders, batches, _ = PARTS[part]
        for name in (name for name in encoders if name in args.encoders):
            for dtype in args.dtypes:
                for batch in (batch for batch in batches if batch in args.batches):
                    for row in measure(part, name, dtype, batch, args.seconds):
                        rows.append(row)
                        print(line(row), flush=True)
    print("\n".join(compared(rows)))
    if args.json:
        new = {identity(row) for row in rows}
        rows = [row for row in old["rows"] if identity(row) not in new] + rows
        write_json(args.json, {"rows": rows, "runs": [*old["runs"], provenance()]})


if __name__ == "__main__":
    main()
