"""Where is the time that pruning should have saved? An encoder's operations, kind by kind, pruned and not.

    python benchmarks/profile_pruning.py --json data/results/profile_pruning.json

Rows of ``part`` "kinds" hold the milliseconds and the FLOPs of one kind of operation in one forward (torch's profiler;
the time that is left goes to "the rest": views, copies, starting operations). Rows of part "rows" hold the time of one
product of ``rows`` tokens with an MLP's first matrix, taken by turns over matrices that do not fit the cache together.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections import Counter
from statistics import median

import torch
from pruning import DTYPES, MAPS, VITS, places
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from prunecap_lib import build_encoder
from prunecap_lib.provenance import report_path, write_rows
from prunecap_lib.pruning import Schedule

KINDS = {
    "matrix products": ("aten::addmm", "aten::mm", "aten::mkldnn_linear"),
    "attention": ("aten::_scaled_dot_product_flash_attention_for_cpu", "aten::bmm", "aten::_softmax"),
    "convolutions and pooling": ("aten::mkldnn_convolution", "aten::convolution", "aten::avg_pool2d"),
    "norms, activations, sums": ("aten::native_layer_norm", "aten::native_group_norm", "aten::gelu", "aten::relu",
                                 "aten::add", "aten::mul", "aten::sub"),
}
CHOOSING, REST = "scores and gathering", "the rest"
ROWS = (1, 2, 5, 10, 20, 40, 60, 80, 100, 140, 197, 394, 788, 1576)


class Noted(Schedule):
    """The same schedule; a profiler sees how long it takes."""

    def reduce(self, *args):
        with record_function(CHOOSING):
            return super().reduce(*args)


def flops_by_kind(encoder: nn.Module, images: torch.Tensor) -> Counter:
    found = Counter()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder(images)
    for operation, flops in counter.get_flop_counts()["Global"].items():
        name = f"aten::{str(operation).split('.')[1]}"
        found[next(kind for kind, names in KINDS.items() if name in names)] += flops
    return found


@torch.inference_mode()
def milliseconds_by_kind(encoder: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Of one forward."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen, record_function("whole"):
        encoder(images)
    events = {event.key: event for event in seen.key_averages()}
    taken = {kind: sum(events[name].self_cpu_time_total for name in names if name in events) / 1e3
             for kind, names in KINDS.items()}
    taken[CHOOSING] = events[CHOOSING].cpu_time_total / 1e3 if CHOOSING in events else 0.0
    return taken | {REST: events["whole"].cpu_time_total / 1e3 - sum(taken.values())}


def kinds(name: str, dtype: str, batch: int, keep: float, repeats: int) -> list[dict]:
    """Rows of one setting: medians over forwards, unpruned and pruned by turns."""
    plain = build_encoder(name).eval()
    pruned = build_encoder(name, schedule=Noted(places(plain), (keep,) * 3, "norm_largest")).eval()
    images = torch.randn(batch, 3, plain.image_size, plain.image_size)
    both = (plain, pruned)
    flops = [flops_by_kind(encoder, images) for encoder in both]
    images = images.to(DTYPES[dtype])
    for encoder in both:
        encoder.to(DTYPES[dtype])
    runs = [[milliseconds_by_kind(encoder, images) for encoder in both] for _ in range(repeats + 2)][2:]
    taken = [{kind: round(median(run[which][kind] for run in runs), 3) for kind in runs[0][0]} for which in (0, 1)]
    return [{"part": "kinds", "encoder": name, "dtype": dtype, "batch": batch, "keep": keep, "kind": kind,
             "plain_ms": taken[0][kind], "pruned_ms": taken[1][kind], "plain_gflops": round(flops[0][kind] / 1e9, 3),
             "pruned_gflops": round(flops[1][kind] / 1e9, 3)} for kind in taken[0]]


@torch.inference_mode()
def product_rows(name: str, dtype: str, repeats: int) -> list[dict]:
    """Milliseconds of one matrix product for each number of tokens: median over 24 matrices and all repeats."""
    layer = build_encoder(name).blocks[0].mlp.fc1.to(DTYPES[dtype])
    layers = [copy.deepcopy(layer) for _ in range(24)]
    rows = []
    for count in ROWS:
        x, taken = torch.randn(count, layer.in_features, dtype=DTYPES[dtype]), []
        for _ in range(repeats):
            start = time.perf_counter()
            for each in layers:
                each(x)
            taken.append((time.perf_counter() - start) / len(layers))
        rows.append({"part": "rows", "encoder": name, "dtype": dtype, "rows": count,
                     "ms": round(1e3 * median(taken), 4)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=report_path)
    parser.add_argument("--add", action="store_true", help="keep the other rows of that file")
    parser.add_argument("--encoders", nargs="+", choices=(*VITS, *MAPS), default=[*VITS, *MAPS])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for name in options.encoders:
        for dtype in options.dtypes:
            rows += product_rows(name, dtype, options.repeats) if name in VITS else []
            for batch in (1, 8):
                found = kinds(name, dtype, batch, options.keep, options.repeats)
                print(f"{name}, {dtype}, batch {batch}: {sum(r['plain_ms'] for r in found):.1f} ms, pruned "
                      f"{sum(r['pruned_ms'] for r in found):.1f} ms")
                for row in found:
                    print("  {kind:26} {plain_ms:8.2f} ms -> {pruned_ms:8.2f} ms; {plain_gflops:7.2f} GFLOPs -> "
                          "{pruned_gflops:7.2f}".format_map(row), flush=True)
                rows += found
    if options.json:
        write_rows(options.json, rows, same=("part", "encoder", "dtype", "batch", "keep", "kind", "rows"),
                   add=options.add)


if __name__ == "__main__":
    main()
