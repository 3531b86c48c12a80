"""How are a data set's pictures resized and packed into shards, so that a stop at any moment loses little?

One shard after another is written under a hidden name, read back, and renamed when it is whole and on the disk; then
its record (names, offsets, checksum) goes into ``.unfinished/``. The index is made of all records, at the end. The
same pictures and settings give the same bytes, so that a build that was killed ends like one that was not.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from ...errors import InputError, PictureError, PrunecapError
from ...files import Kind, check_output_folder, check_space, file_sha256, in_bytes, locked, write_text
from ...reading import read_bytes, read_json
from ..base import CaptionDataset
from ..loading import map_in_workers
from .index import INDEX, Index, LeftOut, Plan, Shard, ShardSettings, parse_index, split_folder


def is_split(folder: Path) -> bool:
    """Was a folder written by ``build_shards``, which may have been stopped?"""
    return just_begun(folder) or (folder / ".unfinished").is_dir() or {"format", "shards"} <= json.loads(
        read_bytes(folder / INDEX)).keys()


def just_begun(folder: Path) -> bool:
    return os.listdir(folder) in ([], [".lock"])


SPLIT = Kind("split in shards", is_split)
SHARDS = Kind("folder of shards", lambda folder: all(map(just_begun, folder.iterdir())) or any(
    SPLIT.owns(split) and not just_begun(split) for split in folder.iterdir()))
_AT_ONCE = 16  # pictures that a worker hands over together
_PROBES = 24  # pictures that the forecast is made from
_HEADERS = 2560  # bytes of a picture in a tar besides the JPEG: two headers, padding, the captions


def build_shards(dataset: CaptionDataset, out: str | Path, settings: ShardSettings | None = None, *,
                 workers: int = 0, max_unreadable: float = 0.001, progress: bool = True,
                 say: Callable[[str], None] = print) -> Index:
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
    settings = settings or ShardSettings()
    folder = check_output_folder(check_output_folder(out, SHARDS) / split_folder(dataset.split), SPLIT)
    plan = Plan(dataset.name, dataset.split, _source(dataset), len(dataset), settings)
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


def resize(image: Image.Image, side: int) -> Image.Image:
    """The shorter side becomes ``side`` and the longer keeps the proportion, rounded down; never enlarged."""
    short = min(image.size)
    if short <= side:
        return image
    return image.resize(tuple(side * length // short for length in image.size), Image.Resampling.BICUBIC)


def _build(dataset, folder: Path, plan: Plan, workers: int, max_unreadable: float, progress: bool, say) -> Index:
    from tqdm import tqdm

    size, work = plan.settings.per_shard, folder / ".unfinished"
    chunks = [chunk.tolist() for chunk in torch.arange(len(dataset)).split(size)]
    done = {k: shard for k, shard in _earlier(folder, plan).items() if _is_whole(folder, shard, dataset)}
    todo = [k for k in range(len(chunks)) if k not in done]
    if not todo and (folder / INDEX).exists():
        shutil.rmtree(work, ignore_errors=True)  # an earlier call may have been stopped while it did so
        say(f"{folder}: all {len(chunks)} shards are there and whole")
        return Index(plan, [done[k] for k in sorted(done)])
    left = sum(len(chunks[k]) for k in todo)
    needed = left * bytes_a_picture(dataset, plan.settings)
    check_space(folder, needed, f"shards {folder}: {left:,} pictures",
                "make room, name an --out on another disk, or choose a smaller --side or --quality")
    if left:
        say(f"{folder}: {left:,} pictures to write, about {in_bytes(needed)}")
    _start(folder, work, plan, done)
    samples = _samples(dataset, plan.settings, [i for k in todo for i in chunks[k]], workers)
    unreadable = sum(len(shard.unreadable) for shard in done.values())
    with tqdm(total=len(dataset), initial=len(dataset) - left, desc=f"shards {folder}", unit="picture",
              disable=not progress) as bar:
        for k in todo:
            with _ShardWriter(folder, k) as writer:
                for _ in chunks[k]:
                    i, data, about = next(samples)
                    bar.update()
                    sample = {"image_id": dataset.image_ids[i], "captions": dataset.captions[i], **about}
                    if data is not None:
                        writer.add(i, data, sample)
                        continue
                    unreadable += 1
                    say(f"left out: {about['why']}")
                    writer.unreadable.append(LeftOut(sample["image_id"], about["why"]))
                    _check_share(folder, unreadable, len(dataset), max_unreadable, about["why"])
            done[k] = writer.shard
            write_text(work / f"{k:05d}.json", json.dumps(asdict(writer.shard)))
    index = Index(plan, [done[k] for k in range(len(chunks))])
    _check_share(folder, unreadable, len(dataset), max_unreadable, index.unreadable[0].why if unreadable else "")
    write_text(folder / INDEX, index.to_json())
    shutil.rmtree(work)
    return index


class _ShardWriter:
    """One tar in the making; ``with`` ends in a renamed file and ``self.shard``, or in nothing."""

    def __init__(self, folder: Path, k: int):
        self.path, self.partial = folder / f"{k:05d}.tar", folder / f".{k:05d}.tar.partial"
        self.image_ids, self.captions, self.unreadable = [], [], []

    def __enter__(self) -> _ShardWriter:
        from webdataset import TarWriter

        self.file = self.partial.open("wb")
        self.tar = TarWriter(self.file, encoder=False, mtime=0)  # a fixed time: the same pictures, the same bytes
        return self

    def add(self, i: int, data: bytes, sample: dict) -> None:
        self.image_ids.append(sample["image_id"])
        self.captions.append(sample["captions"])
        text = json.dumps(sample, ensure_ascii=False).encode()
        self.tar.write({"__key__": f"{i:09d}", "jpg": data, "json": text})

    def __exit__(self, kind, *_) -> None:
        try:
            try:
                self.tar.close()
                self.file.flush()
                os.fsync(self.file.fileno())
            finally:
                self.file.close()
            if kind is None:
                # What the index says of the tar comes from the tar itself, read back.
                with tarfile.open(self.partial) as tar:
                    jpegs = [member for member in tar if member.name.endswith(".jpg")]
                self.shard = Shard(self.path.name, self.partial.stat().st_size, file_sha256(self.partial),
                                   self.image_ids, self.captions, [member.offset_data for member in jpegs],
                                   [member.size for member in jpegs], self.unreadable)
                self.partial.replace(self.path)
        except OSError:
            if kind is None:  # otherwise the first trouble is the one to tell of
                raise
        finally:
            self.partial.unlink(missing_ok=True)


class _Jpegs:
    """Lists of positions -> lists of (position, JPEG or None, what there is to say of the picture)."""

    def __init__(self, dataset: CaptionDataset, settings: ShardSettings):
        self.dataset, self.settings = dataset, settings

    def __getitem__(self, positions: list[int]) -> list[tuple[int, bytes | None, dict]]:
        return [(i, *self._one(i)) for i in positions]

    def _one(self, i: int) -> tuple[bytes | None, dict]:
        try:
            image = self.dataset.image(i)
        except PictureError as error:
            return None, {"why": str(error)}
        file = io.BytesIO()
        # Colours at full resolution: closer to the original than a higher quality that takes as many bytes.
        resize(image, self.settings.side).save(file, "JPEG", quality=self.settings.quality, subsampling=0)
        return file.getvalue(), {"width": image.width, "height": image.height}


def _samples(dataset, settings: ShardSettings, positions: list[int], workers: int) -> Iterator:
    """(position, JPEG or None, about it) for each position, in order."""
    lists = [positions[k : k + _AT_ONCE] for k in range(0, len(positions), _AT_ONCE)]
    for some in map_in_workers(_Jpegs(dataset, settings), lists, workers):
        yield from some


def _source(dataset: CaptionDataset) -> str:
    rows = json.dumps([dataset.image_ids, dataset.captions], ensure_ascii=False)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def _earlier(folder: Path, plan: Plan) -> dict[int, Shard]:
    """Shards that earlier calls say they have finished, by number. Raises InputError where the plan was another."""
    work, found = folder / ".unfinished", {}
    if (folder / INDEX).exists():
        index = parse_index(read_bytes(folder / INDEX, "shard index"), folder / INDEX)
        before, found = index.plan, {int(Path(shard.name).stem): shard for shard in index.shards}
    elif (work / "plan.json").exists():
        again = f"delete {work}, all shards are then written again"
        before = read_json(work / "plan.json", Plan, "plan of shards", again)
        found = {int(record.stem): read_json(record, Shard, "record of a shard", again)
                 for record in work.glob("[0-9]*.json") if record.stem.isdecimal()}
    else:
        return {}
    if before != plan:
        raise InputError(f"shards {folder}: made from something else ({'; '.join(before.differences(plan))}); give "
                         "the earlier settings, name another --out, or delete that folder")
    return found


def _is_whole(folder: Path, shard: Shard, dataset: CaptionDataset) -> bool:
    """Is the file what its record says, and are the pictures that it lacks still unreadable?"""
    path = folder / shard.name
    if not path.is_file() or path.stat().st_size != shard.bytes or file_sha256(path) != shard.sha256:
        return False
    at = {id: i for i, id in enumerate(dataset.image_ids)} if shard.unreadable else {}
    return all(one.image_id in at and _unreadable(dataset, at[one.image_id]) for one in shard.unreadable)


def _unreadable(dataset: CaptionDataset, i: int) -> bool:
    try:
        dataset.image(i)
    except PictureError:
        return True
    return False


def _start(folder: Path, work: Path, plan: Plan, done: dict[int, Shard]) -> None:
    """Put the records of what is whole where a stopped build leaves them, and only then drop the index."""
    write_text(work / "plan.json", json.dumps(asdict(plan)))
    for k, shard in done.items():
        write_text(work / f"{k:05d}.json", json.dumps(asdict(shard)))
    (folder / INDEX).unlink(missing_ok=True)
    for partial in folder.glob(".[0-9]*.tar.partial"):
        partial.unlink()


def _check_share(folder: Path, unreadable: int, pictures: int, most: float, why: str) -> None:
    if unreadable > most * pictures:
        raise InputError(f"shards {folder}: {unreadable} of {pictures} pictures cannot be read, more than the share of "
                         f"{most:g} that may be left out; the latest: {why}. Get them again, or give a larger "
                         "--max-unreadable")
