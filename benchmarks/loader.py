"""How fast do pictures come? From their files as others read them, as we do, and from shards; one core, one thread.

    python benchmarks/loader.py --json data/results/loader.json

Needs COCO photographs (PRUNECAP_PHOTOS or --root) of 2017's train and val, of which 120 are taken.
(a) Pillow and torchvision as with an ImageFolder: open, convert, Resize(256), CenterCrop(224), ToTensor. Once with
    torchvision's bilinear default and once bicubic, as most encoders want it.
(b) our loader from the same files, exact (timm's evaluation transform, bicubic) and with fast_decode.
(c) our loader from shards of these files.
Ours end in a normalized batch; (a) is spared that. All take turns; ratios are of processor time within one turn. Then:
memory over many samples from shards, the share of a training step that waits for data, and how far pixels differ.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from prunecap_lib import TrainConfig
from prunecap_lib.datasets import CaptionDataset, PhotoDataset, open_dataset
from prunecap_lib.datasets.loading import ImageLoader, exact_pixels, fast_pixels
from prunecap_lib.datasets.shards import ShardSettings
from prunecap_lib.datasets.shards.build import build_shards
from prunecap_lib.preprocessing import Preprocessing
from prunecap_lib.provenance import provenance, report_path, write_json
from prunecap_lib.training.batches import Batches
from prunecap_lib.training.build import new_captioner
from prunecap_lib.training.objective import masked_logits_and_targets

PREPROCESSING = Preprocessing(224, crop_pct=0.875)  # bicubic, the middle 224 of 256
BATCH = 24
FROM_FILES, FROM_SHARDS, FLAT, WAIT = 1.4, 2.5, 0.05, 0.05  # what is to be reached


def photographs(root: str | None) -> PhotoDataset:
    """The pictures of both splits as one data set."""
    parts = [open_dataset("coco", split=split, root=root) for split in ("train", "val")]
    captions = {id: rows for part in parts for id, rows in zip(part.image_ids, part.captions, strict=True)}
    paths = {id: path for part in parts for id, path in zip(part.image_ids, part.paths, strict=True)}
    return PhotoDataset("coco", "train", captions, paths, source=parts[0].source, limit=120)


def as_image_folder(dataset: PhotoDataset, interpolation) -> Callable[[list[int]], Tensor]:
    transform = transforms.Compose([transforms.Resize(256, interpolation), transforms.CenterCrop(224),
                                    transforms.ToTensor()])

    def load(positions: list[int]) -> Tensor:
        pictures = []
        for i in positions:
            with dataset.paths[i].open("rb") as file:
                pictures.append(transform(Image.open(file).convert("RGB")))
        return torch.stack(pictures)

    return load


def as_ours(dataset: CaptionDataset, look) -> Callable[[list[int]], Tensor]:
    """What ``training.Batches`` does with pictures."""
    readable = ImageLoader(dataset, PREPROCESSING, look)
    return lambda positions: PREPROCESSING.normalize(readable(positions)[0])


def speeds(loaders: dict[str, Callable], n: int, turns: int) -> list[dict]:
    """Images a second of processor time of each loader, and ratios to the first."""
    chunks = [chunk.tolist() for chunk in torch.arange(n).split(BATCH)]
    seconds: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(turns + 1):
        for name, load in loaders.items():
            start = time.process_time()
            for chunk in chunks:
                load(chunk)
            if turn:  # the first one warms
                seconds[name].append(time.process_time() - start)
    first = seconds[next(iter(loaders))]
    rows = []
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(first, times, strict=True)]
        rows.append({"loader": name, "images_a_second_a_core": round(n / statistics.median(times), 1),
                     "ratio": round(statistics.median(ratios), 2),
                     "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)], "turns": turns})
    return rows


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def memory(dataset: CaptionDataset, samples: int) -> dict:
    """Resident memory while so many samples are read, in the shuffled order of training."""
    load, generator = as_ours(dataset, exact_pixels), torch.Generator().manual_seed(0)
    seen, found = 0, []
    while seen < samples:
        for chunk in dataset.order(generator).split(BATCH):
            load(chunk.tolist())
            seen += len(chunk)
        found.append((seen, resident_bytes()))
    after = [size for at, size in found if at > samples / 20]  # the first twentieth warms
    middle = statistics.median(after)
    return {"samples": seen, "median_MB": round(middle / 1e6, 1),
            "largest_deviation": round(max(abs(size - middle) for size in after) / middle, 4)}


def data_wait(root: Path, least: int) -> dict:
    """The share of a training run's time in which the step waits for its batch: one worker, one thread.

    Whole epochs, with the wait for each one's first batch, of at least so many steps in all.
    """
    config = TrainConfig(dataset="shards", root=str(root), encoder="vit_tiny_patch16_224", batch_size=BATCH, workers=1,
                         precision="fp32", progress=False)
    dataset = open_dataset("shards", split="train", root=root)
    torch.manual_seed(0)
    captioner = new_captioner(config, dataset.captions).train()
    batches, optimizer = Batches(dataset, captioner, config), torch.optim.AdamW(captioner.parameters(), lr=1e-4)
    waits, firsts, steps, epochs = [], [], [], 0
    while len(steps) < least:
        loader, first, start = batches.epoch(epochs), True, time.perf_counter()
        for images, ids in loader:
            waits.append(time.perf_counter() - start)
            if first:
                firsts.append(waits[-1])
                first = False
            loss = torch.nn.functional.cross_entropy(*masked_logits_and_targets(captioner, images, ids))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            now = time.perf_counter()
            steps.append(now - start)
            start = now
        epochs += 1
    return {"encoder": config.encoder, "batch_size": BATCH, "workers": 1, "steps": len(steps), "epochs": epochs,
            "seconds_a_step": round(statistics.mean(steps), 3), "share": round(sum(waits) / sum(steps), 4),
            "first_wait_of_an_epoch_s": round(statistics.median(firsts), 3)}


def differences(one: CaptionDataset, look, other: CaptionDataset, look_too) -> dict:
    """How far the pixels of two loaders are apart, in steps of 8 bits."""
    by_id = {id: i for i, id in enumerate(other.image_ids)}
    apart = torch.stack([look(one, i, PREPROCESSING).int() - look_too(other, by_id[id], PREPROCESSING).int()
                         for i, id in enumerate(one.image_ids)]).float()
    error = float(apart.square().mean())
    return {"mean": round(float(apart.abs().mean()), 4), "largest": int(apart.abs().max()),
            "share_above_1": round(float((apart.abs() > 1).float().mean()), 5),
            "psnr_dB": round(10 * math.log10(255**2 / error), 1) if error else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="COCO's folder")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--steps", type=int, default=100, help="at least, of training, for the wait for data")
    parser.add_argument("--json", type=report_path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = photographs(options.root)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        index = build_shards(files, folder, ShardSettings(256, 90, 20), progress=False, say=lambda _: None)
        writing = time.process_time() - start
        shards = open_dataset("shards", split="train", root=folder)
        modes = transforms.InterpolationMode
        rows = speeds({"a: Pillow, ImageFolder (bilinear)": as_image_folder(files, modes.BILINEAR),
                       "a: Pillow, ImageFolder (bicubic)": as_image_folder(files, modes.BICUBIC),
                       "b: files, exact": as_ours(files, exact_pixels),
                       "b: files, fast_decode": as_ours(files, fast_pixels),
                       "c: shards, exact": as_ours(shards, exact_pixels),
                       "c: shards, fast_decode": as_ours(shards, fast_pixels)}, len(files), options.turns)
        for row in rows:
            low, high = row["ratio_range"]
            print(f"{row['loader']:34} {row['images_a_second_a_core']:7.0f} images a second a core, "
                  f"{row['ratio']:5.2f}x ({low:.2f}–{high:.2f})", flush=True)
        flat = memory(shards, options.samples)
        print(f"memory over {flat['samples']:,} samples: {flat['median_MB']:.0f} MB ± {flat['largest_deviation']:.1%}",
              flush=True)
        wait = data_wait(Path(folder), options.steps)
        print(f"data wait: {wait['share']:.2%} of {wait['steps']} steps of {wait['seconds_a_step']:.2f} s")
        apart = {"files: fast_decode and exact": differences(files, fast_pixels, files, exact_pixels),
                 "shards: fast_decode and exact": differences(shards, fast_pixels, shards, exact_pixels),
                 "shards and files, both exact": differences(shards, exact_pixels, files, exact_pixels)}
        for name, one in apart.items():
            print(f"{name}: {one}")
    by_name = {row["loader"]: row["ratio"] for row in rows}
    reached = {"files": by_name["b: files, fast_decode"] >= FROM_FILES,
               "shards": by_name["c: shards, exact"] >= FROM_SHARDS,
               "memory": flat["largest_deviation"] <= FLAT, "wait": wait["share"] < WAIT}
    print("reached: " + ", ".join(f"{name} {'yes' if held else 'NO'}" for name, held in reached.items()))
    if options.json:
        written = sum(shard.bytes for shard in index.shards)
        write_json(options.json, {
            "rows": rows, "memory": flat, "data_wait": wait, "pixels": apart, "reached": reached,
            "pictures": len(files), "shard_bytes_a_picture": round(written / len(files)),
            "shards_written_a_second_a_core": round(len(files) / writing, 1),
            "limits": {"files": FROM_FILES, "shards": FROM_SHARDS, "memory": FLAT, "wait": WAIT},
            "provenance": provenance()})


if __name__ == "__main__":
    main()
