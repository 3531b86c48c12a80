"""How are a data set's pictures resized and packed into shards, so that a stop at any moment loses little?

One shard after another is written; then its record (names, offsets, checksum) goes into ``.unfinished/``. The index is
made of all records, at the end. The same pictures and settings give the same bytes, so that a build that was killed
ends like one that was not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path

import torch
from PIL import Image

from ...errors import InputError, PictureError, PrunecapError
from ...files import Kind, check_output_folder, check_space, file_sha256, in_bytes, locked, write_text
from ...reading import read_bytes, read_json
from ..base import CaptionDataset
from ..loading import map_in_workers
from . import INDEX, Index, LeftOut, Plan, Shard, ShardSettings, parse_index, split_folder


def _is_split(folder: Path) -> bool:
    """Was a folder written by ``build_shards``, which may have been stopped?"""
    return _just_begun(folder) or (folder / ".unfinished").is_dir() or {"format", "shards"} <= json.loads(
        read_bytes(folder / INDEX)).keys()


def _just_begun(folder: Path) -> bool:
    return os.listdir(folder) in ([], [".lock"])


SPLIT = Kind("split in shards", _is_split)
SHARDS = Kind("folder of shards", lambda folder: all(map(_just_begun, folder.iterdir())) or any(
    SPLIT.owns(split) and not _just_begun(split) for split in folder.iterdir()))
_AT_ONCE = 16  # pictures that a worker hands over together
_PROBES = 24  # pictures that the forecast is made from
_HEADERS = 2560  # bytes of a picture in a tar besides the JPEG: two headers, padding, the captions


def build_shards(dataset: CaptionDataset, out: str | Path, settings: ShardSettings | None = None, *, workers: int = 0,
                 max_unreadable: float = 0.001, progress: bool = True, say: Callable[[str], None] = print) -> Index:
    """Write a split into ``out/SPLIT``, or go on where an earlier call was stopped; returns the index.

    Shards that are there are read and compared with their checksums; what is damaged is written again, and so is a
    shard with pictures that were unreadable and now are not.

    Args:
        workers: processes that decode, resize and encode; the calling one writes.
        max_unreadable: share of the pictures that may be left out because they cannot be read.
        say: takes what is worth a line (the forecast of the size, pictures left out).

    Raises: InputError where ``out/SPLIT`` holds something else, or shards of something else, where too many pictures
        cannot be read, and where the disk is or gets too full.
    """
    folder = check_output_folder(check_output_folder(out, SHARDS) / split_folder(dataset.split), SPLIT)
    rows = json.dumps([dataset.image_ids, dataset.captions], ensure_ascii=False)
    plan = Plan(dataset.name, dataset.split, hashlib.sha256(rows.encode()).hexdigest()[:16], len(dataset),
                settings or ShardSettings())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", say):
            return _build(dataset, folder, plan, workers, max_unreadable, progress, say)
    except PrunecapError:  # a picture or folder that names itself
        raise
    except OSError as error:
        raise InputError(f"shards {folder}: {error.strerror or error}; make room or see to the permissions, and run "
                         "the same command again: it goes on where it stopped") from error


def bytes_a_picture(dataset: CaptionDataset, settings: ShardSettings) -> float:
    """About how much of a shard one picture takes: the mean of a few, spread over the data set."""
    some = torch.linspace(0, len(dataset) - 1, min(_PROBES, len(dataset))).round().long().tolist()
    sizes = [len(data) for _, data, _ in _Jpegs(dataset, settings)[some] if data is not None]
    return _HEADERS + (sum(sizes) / len(sizes) if sizes else 0.0)


def _build(dataset, folder: Path, plan: Plan, workers: int, max_unreadable: float, progress: bool, say) -> Index:
    from tqdm import tqdm

    work, jpegs = folder / ".unfinished", _Jpegs(dataset, plan.settings)
    size = plan.settings.per_shard
    chunks = [range(at, min(at + size, len(dataset))) for at in range(0, len(dataset), size)]
    done = {k: shard for k, shard in _earlier(folder, plan).items() if _is_whole(folder / shard.name, shard, jpegs)}
    todo = [k for k in range(len(chunks)) if k not in done]
    if not todo and (folder / INDEX).exists():
        shutil.rmtree(work, ignore_errors=True)  # an earlier call may have been stopped while it did so
        say(f"{folder}: all {len(chunks)} shards are there and whole")
        return Index(**vars(plan), shards=[done[k] for k in sorted(done)])
    left = sum(len(chunks[k]) for k in todo)
    needed = left * bytes_a_picture(dataset, plan.settings)
    check_space(folder, needed, f"shards {folder}: {left:,} pictures",
                "make room, name an --out on another disk, or choose a smaller --side or --quality")
    if left:
        say(f"{folder}: {left:,} pictures to write, about {in_bytes(needed)}")
    _start(folder, work, plan, done)
    groups = [chunks[k][at : at + _AT_ONCE] for k in todo for at in range(0, len(chunks[k]), _AT_ONCE)]
    left_out = [one for shard in done.values() for one in shard.unreadable]
    with tqdm(total=len(dataset), initial=len(dataset) - left, desc=f"shards {folder}", unit="picture",
              disable=not progress) as bar:
        def counted(samples: Iterable[tuple[int, bytes | None, dict]]) -> Iterator[tuple[int, bytes | None, dict]]:
            for i, data, sample in samples:
                bar.update()
                if data is None:
                    say(f"left out: {sample['why']}")
                    left_out.append(LeftOut(**sample))
                    _check_share(folder, left_out, len(dataset), max_unreadable)
                yield i, data, sample

        samples = counted(chain.from_iterable(map_in_workers(jpegs, groups, workers)))
        for k in todo:
            done[k] = _write_shard(folder / f"{k:05d}.tar", islice(samples, len(chunks[k])))
            write_text(work / f"{k:05d}.json", json.dumps(asdict(done[k])))
    _check_share(folder, left_out, len(dataset), max_unreadable)
    index = Index(**vars(plan), shards=[done[k] for k in range(len(chunks))])
    write_text(work / INDEX, index.to_json())
    (work / INDEX).replace(folder / INDEX)
    shutil.rmtree(work)
    return index


def _write_shard(path: Path, samples: Iterable[tuple[int, bytes | None, dict]]) -> Shard:
    """Write one tar under a hidden name, and rename it when it is whole and on the disk."""
    from webdataset import TarWriter

    partial, written, unreadable = path.with_name(f".{path.name}.partial"), [], []
    try:
        with partial.open("wb") as file:
            with TarWriter(file, encoder=False, mtime=0) as tar:  # a fixed time: the same pictures, the same bytes
                for i, data, sample in samples:
                    if data is None:
                        unreadable.append(LeftOut(**sample))
                        continue
                    written.append(sample)
                    text = json.dumps(sample, ensure_ascii=False).encode()
                    tar.write({"__key__": f"{i:09d}", "jpg": data, "json": text})
            file.flush()
            os.fsync(file.fileno())
        with tarfile.open(partial) as tar:  # what the index says of it is read back
            jpegs = [member for member in tar if member.name.endswith(".jpg")]
        ids, captions = ([sample[key] for sample in written] for key in ("image_id", "captions"))
        shard = Shard(path.name, partial.stat().st_size, file_sha256(partial), ids, captions,
                      [member.offset_data for member in jpegs], [member.size for member in jpegs], unreadable)
        partial.replace(path)
        return shard
    finally:
        partial.unlink(missing_ok=True)


class _Jpegs:
    """Lists of positions -> lists of (position, JPEG or None, what there is to say of the picture)."""

    def __init__(self, dataset: CaptionDataset, settings: ShardSettings):
        self.dataset, self.settings = dataset, settings

    def __getitem__(self, positions: list[int]) -> list[tuple[int, bytes | None, dict]]:
        return [(i, *self.one(i)) for i in positions]

    def one(self, i: int) -> tuple[bytes | None, dict]:
        id, side = self.dataset.image_ids[i], self.settings.side
        try:
            image = self.dataset.image(i)
        except PictureError as error:
            return None, {"image_id": id, "why": str(error)}
        sample = {"image_id": id, "captions": self.dataset.captions[i], "width": image.width, "height": image.height}
        if (short := min(image.size)) > side:  # the longer side keeps the proportion, rounded down
            image = image.resize(tuple(side * length // short for length in image.size), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        # Colours at full resolution: closer to the original than a higher quality that takes as many bytes.
        image.save(file, "JPEG", quality=self.settings.quality, subsampling=0)
        return file.getvalue(), sample


def _earlier(folder: Path, plan: Plan) -> dict[int, Shard]:
    """Shards that earlier calls say they have finished, by number. Raises InputError where the plan was another."""
    work = folder / ".unfinished"
    if (folder / INDEX).exists():
        before = parse_index(read_bytes(folder / INDEX, "shard index"), folder / INDEX)
        found = dict(enumerate(before.shards))
    elif (work / "plan.json").exists():
        again = f"delete {work}, all shards are then written again"
        before = read_json(work / "plan.json", Plan, "plan of shards", again)
        found = {int(record.stem): read_json(record, Shard, "record of a shard", again)
                 for record in work.glob("[0-9]*.json") if record.stem.isdecimal()}
    else:
        return {}
    if differences := before.differences(plan):
        raise InputError(f"shards {folder}: made from something else ({differences}); give the earlier settings, name "
                         "another --out, or delete that folder")
    return found


def _is_whole(path: Path, shard: Shard, jpegs: _Jpegs) -> bool:
    """Is the file what its record says, and are the pictures that it lacks still unreadable?"""
    if not path.is_file() or path.stat().st_size != shard.bytes or file_sha256(path) != shard.sha256:
        return False
    at = {id: i for i, id in enumerate(jpegs.dataset.image_ids)} if shard.unreadable else {}
    return all(one.image_id in at and jpegs.one(at[one.image_id])[0] is None for one in shard.unreadable)


def _start(folder: Path, work: Path, plan: Plan, done: dict[int, Shard]) -> None:
    """Put the records of what is whole where a stopped build leaves them, and only then drop the index."""
    write_text(work / "plan.json", json.dumps(asdict(plan)))
    for k, shard in done.items():
        write_text(work / f"{k:05d}.json", json.dumps(asdict(shard)))
    (folder / INDEX).unlink(missing_ok=True)
    for partial in folder.glob(".[0-9]*.tar.partial"):
        partial.unlink()


def _check_share(folder: Path, left_out: list[LeftOut], pictures: int, most: float) -> None:
    if len(left_out) > most * pictures:
        raise InputError(f"shards {folder}: {len(left_out)} of {pictures} pictures cannot be read, more than the share "
                         f"of {most:g} that may be left out; the latest: {left_out[-1].why}. Get them again, or give a "
                         "larger --max-unreadable")
