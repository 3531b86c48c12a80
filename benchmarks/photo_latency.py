"""How long does one photograph take? From file to caption with the shipped photos-lite0, after loading.

    python benchmarks/photo_latency.py --json data/results/photo_latency.json

Photographs that scikit-image carries are written to JPEG files and captioned one at a time, as `prunecap caption`
does (beam 5, and greedy beside it), from opening the file to the text. The limit is 250 ms a photograph.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from skimage import data

from prunecap_lib import Captioner
from prunecap_lib.provenance import provenance, report_path, write_json

LIMIT_MS = 250
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def milliseconds(captioner: Captioner, path: Path, method: str) -> float:
    start = time.perf_counter()
    captioner.generate([path], method=method)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="photos-lite0")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=report_path)
    options = parser.parse_args()
    captioner, rows = Captioner.load(options.checkpoint), []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.jpg" for name in PHOTOGRAPHS]
        for name, path in zip(PHOTOGRAPHS, paths, strict=True):
            Image.fromarray(getattr(data, name)()).save(path, quality=90)
        for method in ("greedy", "beam"):
            milliseconds(captioner, paths[0], method)  # the first call warms caches
            times = [milliseconds(captioner, path, method) for _ in range(options.repeats) for path in paths]
            low, middle, high = statistics.quantiles(times, n=4)
            rows.append({"method": method, "photographs": len(times), "median_ms": round(middle, 1),
                         "quartiles_ms": [round(low, 1), round(high, 1)], "limit_ms": LIMIT_MS,
                         "threads": torch.get_num_threads()})
            print(f"{method:7} median {middle:.0f} ms (quartiles {low:.0f}–{high:.0f}), limit {LIMIT_MS} ms: "
                  f"{'held' if middle < LIMIT_MS else 'MISSED'}")
    if options.json:
        write_json(options.json, {"rows": rows, "provenance": provenance()})


if __name__ == "__main__":
    main()
