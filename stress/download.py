"""Does a download of COCO survive ``kill -9`` and a full disk, at moments nobody chose?

    python stress/download.py                        20 kills while it fetches, 20 while it unpacks
    python stress/download.py --disk /mnt/small      and a disk that fills up, 20 times, at random bytes
    python stress/download.py --photos photos/coco   with COCO's own pictures instead of noise

``--disk`` names the folder of a file system of its own with some 40 MB, e.g. ``mount -t tmpfs -o size=40m tmpfs DIR``.
After each blow no file may have a name that it does not deserve, and the next run must end in the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import bad_server
from prunecap_lib.datasets.download import CocoFiles, get_coco
from prunecap_lib.errors import InputError

QUICK = {"karpathy": True, "waits": (0, 0, 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--disk", type=Path)
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    files = real_coco(options.photos) if options.photos else bad_server.tiny_coco(train=2000, val=1000, kilobytes=3)
    server, coco = bad_server.serve(files, 2017)
    size = sum(map(len, server.files.values()))
    print(f"{len(files):,} files, {size / 1e6:.1f} MB of zips")
    with tempfile.TemporaryDirectory() as folder:
        kill_often(Path(folder), server, coco, files, options.times, size)
    if options.disk:
        with tempfile.TemporaryDirectory(dir=options.disk) as folder:
            fill_often(Path(folder) / "coco", coco, files, options.times, size)


def real_coco(root: Path) -> dict[str, bytes]:
    """Pictures and annotations of a COCO folder, or of a part of one, with a split of its own like Karpathy's."""
    files = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*2017*"))
             if path.is_file() and ("captions_text" not in path.name)}
    files |= {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.glob("*2017/*.jpg"))}
    entries = []
    for split in ("train", "val"):
        content = json.loads(files[f"annotations/captions_{split}2017.json"])
        captions = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            captions[annotation["image_id"]].append({"raw": annotation["caption"]})
        parts = ("train", "restval") if split == "train" else ("val", "test")
        entries += [{"cocoid": id, "split": parts[i % 2], "filepath": f"{split}2014",
                     "filename": f"COCO_{split}2014_{id:012d}.jpg", "sentences": captions[id]}
                    for i, id in enumerate(captions)]
    return files | {"dataset_coco.json": json.dumps({"images": entries}).encode()}


def kill_often(folder: Path, server, coco: CocoFiles, files: dict, times: int, size: int) -> None:
    server.rate = size // 2  # two seconds to fetch all of it
    rng, fetching, unpacking, runs = random.Random(0), 0, 0, 0
    while fetching < times or unpacking < times:
        root = folder / str(runs)
        runs += 1
        finished = False
        while not finished:
            child = run_in_child(root, coco)
            if fetching < times:
                time.sleep(rng.uniform(0, 2.2))
            else:  # unpacking takes a moment only: wait for one, then for a part of it
                wait_for(lambda child=child, root=root: list(root.glob(".prunecap/*/unpacked/*")) or ended(child))
                time.sleep(rng.uniform(0, 0.3))
            in_hand = list(root.glob(".prunecap/*/unpacked"))
            finished = ended(child)
            if not finished:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                unpacking += bool(in_hand)
                fetching += not in_hand
            deserved(root, files)
            if fetching >= times and unpacking >= times and not finished:
                break
        get_coco(root, coco, **QUICK)
        same(root, files)
        shutil.rmtree(root)
    print(f"killed {fetching} times while fetching, {unpacking} while unpacking, in {runs} runs: "
          "each ended in the same bytes")


def fill_often(root: Path, coco: CocoFiles, files: dict, times: int, size: int) -> None:
    """The check before the start must not see it: another program fills the disk meanwhile."""
    rng, ballast, full, tight = random.Random(0), root.parent / "ballast", 0, shutil.disk_usage
    try:
        for _ in range(times):
            shutil.rmtree(root, ignore_errors=True)
            free = tight(root.parent).free
            write(ballast, max(free - rng.randrange(2 * size), 0))
            shutil.disk_usage = lambda _: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)
            try:
                get_coco(root, coco, **QUICK)
            except InputError as error:
                assert "No space left" in str(error), error
                full += 1
            shutil.disk_usage = tight
            deserved(root, files)
            ballast.unlink()
            get_coco(root, coco, **QUICK)
            same(root, files)
    finally:
        shutil.disk_usage = tight
        ballast.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
    print(f"disk full {full} times of {times}: each next run ended in the same bytes")


def run_in_child(root: Path, coco: CocoFiles) -> int:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            get_coco(root, coco, **QUICK)
        finally:
            os._exit(0)
    return child


def ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True


def wait_for(condition) -> None:
    while not condition():
        time.sleep(0.001)


def write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - at)))


def visible(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
            if path.is_file() and ".prunecap" not in path.parts}


def deserved(root: Path, files: dict[str, bytes]) -> None:
    """Whatever has a name is what the name says, and a folder of pictures is there as a whole or not at all."""
    there = visible(root)
    assert all(files[name] == data for name, data in there.items())
    for folder in ("train2017/", "val2017/"):
        count = sum(name.startswith(folder) for name in there)
        assert count in (0, sum(name.startswith(folder) for name in files)), f"{folder}: {count}"


def same(root: Path, files: dict[str, bytes]) -> None:
    assert visible(root) == files
    left = {path.name for path in (root / ".prunecap").glob("[!.]*") if not path.name.endswith(".list")}
    assert left <= {"lock", "counted"}, left


if __name__ == "__main__":
    main()
