"""Does a run that is killed at any moment lose anything? kill -9, and again, and in the end the weights of a run that
nobody touched.

Every kill falls at a random moment of training or of writing a checkpoint; the same run is then started again. Prints
what each kill found. ``--disk-full`` (root only: it mounts a small tmpfs) also fills the disk while a checkpoint is
written.

    python stress/kills.py --times 20 --disk-full --json data/results/kills.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from prunecap_lib import Captioner, TrainConfig, train
from prunecap_lib.errors import CheckpointError
from prunecap_lib.provenance import provenance, report_path, write_json

CONFIG = TrainConfig(limit=32, batch_size=4, epochs=8, image_size=32, d_model=16, layers=1, heads=2, ffn=32,
                     val_limit=4, captions_per_image=2, dropout=0.2, scorer="random", augment=True, precision="fp32",
                     log_every=1, save_steps=1, progress=False)
FORK = multiprocessing.get_context("fork")  # a child that has imported everything is at work at once


def weights(folder: Path) -> str:
    """What a checkpoint's weights are, in 16 hex digits."""
    state = Captioner.load(folder / "checkpoint").state_dict()
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()[:16]


def saved_step(folder: Path) -> int:
    """The step of the checkpoint that a run would go on from; 0 where there is none."""
    for name in ("checkpoint", ".checkpoint.previous"):
        with suppress(FileNotFoundError):  # not there, or just being swapped by the run that is watched
            return json.loads((folder / name / "state.json").read_text())["step"]
    return 0


def in_child(config: TrainConfig) -> multiprocessing.Process:
    child = FORK.Process(target=train, args=(config,))
    child.start()
    return child


def kill_once(config: TrainConfig, chance: random.Random) -> dict:
    """Start the run, kill it at a random moment, and tell what was on disk then.

    Half of the kills wait for a checkpoint that is being written, and fall within the next hundredth of a second.
    """
    folder, before, child = config.folder, saved_step(config.folder), in_child(config)
    steps, writing = before + chance.choice((0, 0, 1, 2)), chance.random() < 0.5
    partial = folder / ".checkpoint.partial"
    while child.is_alive():
        if saved_step(folder) > steps and (partial.exists() or not writing):
            break
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, 0.01 if writing else 0.2))
    alive = child.is_alive()
    child.kill()
    child.join()
    left = [path.name for path in sorted(folder.iterdir()) if path.name.startswith(".")]
    return {"killed": alive, "from_step": before, "checkpoint": saved_step(folder), "left_behind": left}


def full_disk(folder: Path, config: TrainConfig) -> dict:
    """Write checkpoints to a disk that holds one but not two; then make it larger and go on."""
    disk = folder / "disk"
    disk.mkdir()
    config = replace(config, out=str(disk / "run"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], check=True)
    try:
        told = None
        try:
            train(config)
        except CheckpointError as error:
            told = str(error).replace(str(folder), "")
        kept = saved_step(config.folder)
        loads = weights(config.folder)
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        train(config)
        return {"message": told, "checkpoint": kept, "weights_then": loads, "weights": weights(config.folder)}
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=CONFIG.epochs, help="of eight steps, each of which is saved")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk-full", action="store_true")
    parser.add_argument("--json", type=report_path, help="write what was found here")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order: weights can then be compared to the last bit
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        config = replace(CONFIG, epochs=options.epochs, out=str(folder / "killed"))
        whole = in_child(replace(config, out=str(folder / "whole")))
        whole.join()
        expected, kills, ends = weights(folder / "whole"), [], []
        while sum(kill["killed"] for kill in kills) < options.times:
            kills.append(kill_once(config, chance))
            print(len(kills), kills[-1], flush=True)
            if not kills[-1]["killed"]:  # it was through: begin another run
                ends.append(weights(config.folder))
                config = replace(config, out=str(folder / f"killed-{len(ends)}"))
        last = in_child(config)
        last.join()
        if last.exitcode:
            raise SystemExit(f"a run that was killed could not go on: exit status {last.exitcode}")
        ends.append(weights(config.folder))
        report = {"kills": kills, "same_weights": [end == expected for end in ends]}
        if options.disk_full and os.geteuid() == 0:
            report["disk_full"] = full_disk(folder, config)
            report["disk_full"]["same_weights"] = report["disk_full"].pop("weights") == expected
    report["provenance"] = provenance() | {"seed": options.seed}
    if options.json:
        write_json(options.json, report)
    writing = sum(".checkpoint.partial" in kill["left_behind"] for kill in kills)
    print(f"{len(kills)} kills, {writing} of them while a checkpoint was written; the weights of the unbroken run: "
          f"{all(report['same_weights'])}", report.get("disk_full", ""))
    if not all(report["same_weights"]):
        raise SystemExit("the weights differ")


if __name__ == "__main__":
    main()
