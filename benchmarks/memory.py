"""Is the memory that `prunecap cost` tells the memory that training takes? Told, counted and measured side by side.

    python benchmarks/memory.py --json data/results/memory.json
    python benchmarks/memory.py --json data/results/memory.json --add --rows "ViT-S, bf16"

Each row runs in processes of its own: what fake tensors tell, the live tensors of a real training step, and by how
much the process grew (its largest resident set, less that before the step). The first must agree with the second
within 5%; the third also holds what operations take for themselves and what the allocator keeps back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace

import torch

from prunecap_lib import TrainConfig
from prunecap_lib.costs.forecast import training_memory
from prunecap_lib.costs.forecast.memory import measured_memory
from prunecap_lib.provenance import report_path, write_rows
from prunecap_lib.pruning import Schedule

WITHIN = 0.05
PRESET = TrainConfig.seed_preset(encoder="vit_small_patch16_224", batch_size=8, precision="fp32")
ROWS = {
    "ViT-S, fp32": PRESET,
    "ViT-S, bf16": replace(PRESET, precision="bf16"),
    "ViT-S frozen, fp32": replace(PRESET, freeze_encoder=True, batch_size=32),
    "ViT-S unfused, fp32": PRESET,
    "ViT-S, half kept thrice, fp32": replace(PRESET, schedule=Schedule((3, 6, 9), (0.5,) * 3, "norm_smallest")),
    "ConvNeXt pico, fp32": replace(PRESET, encoder="convnext_pico"),
    "Swin-T, fp32": replace(PRESET, encoder="swin_tiny_patch4_window7_224", scorer="grid"),
}
MIB = 2**20


def one(name: str, kind: str) -> dict:
    """One figure, in this process."""
    import resource
    start = time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    settings = dict(fused="unfused" not in name)
    size = training_memory(ROWS[name], device="cpu", **settings) if kind == "told" else \
        measured_memory(ROWS[name], **settings)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB on Linux
    return {"mib": size / MIB, "grown_mib": grown / 1024, "seconds": time.process_time() - start}


def fresh(name: str, kind: str) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--kind", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=report_path)
    parser.add_argument("--add", action="store_true", help="keep the other rows of that file")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--one", choices=ROWS, help="one figure of one row, in this process")
    parser.add_argument("--kind", choices=("told", "measured"), default="told")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.kind)))
        return
    rows = []
    for name in options.rows:
        config = ROWS[name]
        told, measured = fresh(name, "told"), fresh(name, "measured")
        off = told["mib"] / measured["mib"] - 1
        rows.append({"name": name, "batch_size": config.batch_size, "told_mib": round(told["mib"], 1),
                     "live_mib": round(measured["mib"], 1), "process_grew_mib": round(measured["grown_mib"], 1),
                     "told_against_live": round(off, 4), "seconds_to_tell": round(told["seconds"], 1)})
        print(f"{name:30} batch {config.batch_size:3}: told {told['mib']:6.0f} MiB, live {measured['mib']:6.0f} MiB "
              f"({off:+.1%}, {'within' if abs(off) <= WITHIN else 'MISSED'} {WITHIN:.0%}), process grew "
              f"{measured['grown_mib']:6.0f} MiB; told in {told['seconds']:.1f} s", flush=True)
    if options.json:
        write_rows(options.json, rows, same=("name",), add=options.add)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
