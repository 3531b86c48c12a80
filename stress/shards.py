"""Does writing shards survive `kill -9` at any moment? Kills it at random ones, lets it go on, compares every byte.

    python stress/shards.py --kills 20

A process writes shards and is killed after a random share of the time that an unbroken build takes. The next one goes
on in the same folder. Whenever one finishes, all files must be those of the unbroken build, byte for byte.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from prunecap_lib.datasets import CaptionDataset
from prunecap_lib.datasets.scenes import ScenesDataset
from prunecap_lib.datasets.shards import ShardSettings
from prunecap_lib.datasets.shards.build import build_shards


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by name; hidden locks are left out."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def write(dataset: CaptionDataset, out: Path, settings: ShardSettings, workers: int) -> None:
    build_shards(dataset, out, settings, workers=workers, progress=False, say=lambda _: None)


def torture(dataset: CaptionDataset, folder: Path, settings: ShardSettings, *, kills: int, workers: int = 0,
            seed: int = 0) -> tuple[int, int]:
    """Kill the build so many times. Returns how often a build finished, and how often it went on with earlier shards.

    Raises AssertionError where a finished build differs from the unbroken one.
    """
    fork, chance = multiprocessing.get_context("fork"), random.Random(seed)
    start = time.perf_counter()
    write(dataset, folder / "unbroken", settings, workers)
    usual, expected = time.perf_counter() - start, contents(folder / "unbroken")
    out, killed, finished, resumed = folder / "0", 0, 0, 0
    while True:
        resumed += bool(list(out.rglob("*.tar")))
        process = fork.Process(target=write, args=(dataset, out, settings, workers))
        process.start()
        if killed < kills:
            process.join(chance.uniform(0, usual))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
        process.join()
        if process.exitcode == -signal.SIGKILL:
            continue
        assert process.exitcode == 0, f"a build that went on ended with status {process.exitcode}"
        assert contents(out) == expected, f"{out} differs from the unbroken build"
        finished += 1
        if killed == kills:
            return finished, resumed
        out = folder / str(finished)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finished, resumed = torture(ScenesDataset("train", options.pictures, 64), Path(folder),
                                    ShardSettings(64, 90, 25), kills=options.kills, workers=options.workers,
                                    seed=options.seed)
    print(f"killed {options.kills} times, went on with earlier shards {resumed} times; all {finished} builds that "
          "finished have the bytes of the unbroken one")


if __name__ == "__main__":
    main()
