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
    merge      the same by ``Schedule.tome``, in every block but the last
    keep like tome    the best are gathered, as many after each block as ``merge`` leaves

``choosing`` is the share of the pruned encoder's time that goes into scores and gathering: the median time inside
``Schedule.reduce``, and what it costs that attention shows its weights, where the scorer asks for them.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import replace
from itertools import product
from statistics import median, quantiles
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunecap_lib import VisualTokens, build_encoder
from prunecap_lib.costs import count_flops
from prunecap_lib.provenance import report_path, write_rows
from prunecap_lib.pruning import Schedule, merge_similar, proportional_bias

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
VITS = ("vit_small_patch16_224", "vit_base_patch16_224")
MAPS = ("convnext_tiny", "swin_tiny_patch4_window7_224", "poolformer_s12")
SCORERS = ("norm_largest", "cls_attention", "attention_received")
RATES, R = (0.7, 0.5, 0.3), 16
SAME = ("part", "encoder", "image_size", "dtype", "batch", "keep", "way", "scorer")  # what a row is about
LINE = ("{encoder:>28} {image_size} {dtype} {batch:>3} {way:>14} {what:>24} {measured:>6.2f}x ({low:.2f}-{high:.2f}) "
        "of {bound:>5.2f}x {share:>5.0%}{more}")


class Timed(Schedule):
    """Notes how long it takes to score and gather."""

    taken: ClassVar[list[float]] = []

    def reduce(self, tokens: VisualTokens, *more) -> VisualTokens:
        start = time.perf_counter()
        tokens = super().reduce(tokens, *more)
        tokens.sequence  # noqa: B018  what the next block reads is gathered, too
        self.taken.append(time.perf_counter() - start)
        return tokens


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
            tokens = replace(tokens, x=x[:, 1:], prefix=x[:, :1])
            tokens = merge_similar(tokens, min(self.r, (T - 1) // 2), k.mean(dim=1)[:, 1:])
            x, mask = tokens.sequence, proportional_bias(tokens).to(x.dtype)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return encoder.norm(x)


def places(encoder: nn.Module) -> tuple[int, int, int]:
    depth = encoder.depth
    return depth // 4, depth // 2, 3 * depth // 4


def follow(encoder: nn.Module, schedule: Schedule) -> nn.Module:
    """The same encoder, with the same weights in the same memory, under a schedule."""
    other = copy.copy(encoder)
    other._modules = dict(encoder._modules)  # what a schedule adds is the other's alone
    other.set_schedule(schedule)
    return other


def top_k(encoder: nn.Module, rates: tuple[float, ...], scorer: str = "norm_largest") -> dict:
    """(way, keep, scorer) -> encoder; the best are kept at each rate."""
    return {("keep", rate, scorer): follow(encoder, Schedule(places(encoder), (rate,) * 3, scorer)) for rate in rates}


def scored(encoder: nn.Module) -> dict:
    return {key: other for scorer in SCORERS for key, other in top_k(encoder, (0.5,), scorer).items()}


def peers(encoder: nn.Module) -> dict:
    merging = Schedule.tome(R, tokens=encoder.grid[0] * encoder.grid[1], depth=encoder.depth)
    half = Schedule(places(encoder), (0.5,) * 3, "norm_largest")
    return {("keep", 0.5, "norm_largest"): follow(encoder, half), ("mask", 0.5, "norm_largest"): Masked(encoder, half),
            ("tome", None, ""): Tome(encoder, R), ("merge", None, ""): follow(encoder, merging),
            ("keep like tome", None, "norm_largest"):
                follow(encoder, Schedule(merging.after, merging.keep, "norm_largest"))}


PARTS = {  # part -> encoders, sides of the picture, batches, what is compared
    "keep": (VITS, (224,), (1, 8, 32), lambda encoder: top_k(encoder, RATES)),
    "scorers": (VITS, (224,), (1, 8), scored),
    "peers": (VITS, (224,), (1, 8), peers),
    "tokens": (VITS[:1], (64, 112, 384), (1, 8), lambda encoder: top_k(encoder, RATES)),
    "maps": (MAPS, (224,), (1, 8), lambda encoder: top_k(encoder, RATES)),
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


@torch.inference_mode()
def choosing(encoder: nn.Module, images: Tensor, repeats: int = 5) -> float:
    """Seconds of one forward that go into scores and gathering."""
    schedule = encoder.schedule
    timed = follow(encoder, Timed(schedule.after, schedule.keep, schedule.scorer))
    Timed.taken.clear()
    for _ in range(repeats + 1):
        timed(images)
    per_run = [sum(Timed.taken[i:i + 3]) for i in range(3, len(Timed.taken), 3)]
    surcharge = 0.0
    if schedule.needs_weights:
        N, P = encoder.grid[0] * encoder.grid[1], encoder.prefix_tokens
        for left in (N, *schedule.counts(N)[:-1]):
            x = torch.randn(len(images), P + left, encoder.channels, dtype=images.dtype)
            tokens = VisualTokens(x[:, P:], torch.arange(left).expand(len(x), left), encoder.grid, x[:, :P])
            block = encoder.blocks[0]
            taken = time_by_turns(lambda x, block=block: block(x), {"shown": lambda x, block=block, tokens=tokens: (
                encoder._with_signals(tokens, *block(x, need_weights=True), None, (schedule.scorer,)))}, x, seconds=1)
            surcharge += median(more - less for more, less in zip(taken["shown"], taken["plain"], strict=True))
    return median(per_run) + surcharge


def quartiles(values: list[float]) -> tuple[float, float, float]:
    return tuple(round(value, 4) for value in quantiles(values, n=4, method="inclusive"))


def measure(part: str, name: str, side: int, dtype: str, batch: int, seconds: float):
    """Rows of one part, encoder, dtype and batch."""
    plain = build_encoder(name, image_size=side).eval()
    others = PARTS[part][3](plain)
    images = torch.randn(batch, 3, plain.image_size, plain.image_size)
    flops = count_flops(plain, images[:1])
    bounds = {key: 1.0 if key[0] == "mask" else flops / count_flops(other, images[:1]) for key, other in others.items()}
    for encoder in (plain, *others.values()):
        encoder.to(DTYPES[dtype])
    images = images.to(DTYPES[dtype])
    taken = time_by_turns(plain, others, images, seconds)
    for (way, keep, scorer), other in others.items():
        times = taken[way, keep, scorer]
        low, middle, high = quartiles([p / o for p, o in zip(taken["plain"], times, strict=True)])
        bound = bounds[way, keep, scorer]
        row = {"part": part, "encoder": name, "image_size": side, "dtype": dtype, "batch": batch, "keep": keep,
               "way": way, "scorer": scorer, "r": R if keep is None else None, "bound": round(bound, 3),
               "measured": middle, "low": low, "high": high, "share": round(middle / bound, 3), "turns": len(times),
               "plain_ms": round(1e3 * median(taken["plain"]), 2), "pruned_ms": round(1e3 * median(times), 2)}
        if part == "scorers":
            row["choosing"] = round(choosing(other, images) / median(times), 4)
        yield row


def line(row: dict) -> str:
    what = f"keep {row['keep']} {row['scorer']}" if row["keep"] else f"r {row['r']} {row['scorer']}"
    more = f", choosing {row['choosing']:.1%}" if "choosing" in row else ""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=report_path, help="write rows, settings and provenance here")
    parser.add_argument("--add", action="store_true", help="keep the other rows of that file")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--encoders", nargs="+", choices=(*VITS, *MAPS), default=[*VITS, *MAPS])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=15, help="of turns for each encoder, dtype and batch")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows = []
    for part in args.parts:
        encoders, sides, batches, _ = PARTS[part]
        asked = ([one for one in mine if one in theirs] for mine, theirs in
                 ((encoders, args.encoders), (sides, sides), (args.dtypes, DTYPES), (batches, args.batches)))
        for case in product(*asked):
            for row in measure(part, *case, args.seconds):
                rows.append(row)
                print(line(row), flush=True)
    print("\n".join(compared(rows)))
    if args.json:
        write_rows(args.json, rows, same=SAME, add=args.add)


if __name__ == "__main__":
    main()
