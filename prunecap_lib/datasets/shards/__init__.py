"""Pictures and captions in tar files (WebDataset's format): written once, read from a folder or over HTTP.

A split is a folder: tars ``00000.tar``, ``00001.tar``, … of at most ``per_shard`` pictures each, and ``index.json``,
which is written last. In a tar a picture is two members, ``KEY.jpg`` and ``KEY.json`` (its id and captions); the index
repeats ids and captions, so that opening a data set reads one file, and says at which byte of which tar each JPEG
begins. ``build`` writes all this, ``dataset`` reads it, ``cache`` fetches it; here it is described and checked.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from ...errors import InputError
from ...ranges import Count, JpegQuality, Natural, PerShard, Side, check_ranges
from ...reading import parse_json
from ..base import StoredId, check_ids

INDEX = "index.json"
FORMAT = 1
BLOCK = 512  # bytes of a tar's header and its unit
WINDOW = 8  # shards whose pictures are shuffled together


@dataclass(frozen=True)
class ShardSettings:
    """How pictures are stored: whatever changes this, changes every byte."""

    side: Side = 256  # pixels of the shorter side; smaller pictures keep their size
    quality: JpegQuality = 90  # of the JPEGs; colours keep their full resolution
    per_shard: PerShard = 1000  # pictures

    def __post_init__(self):
        check_ranges(self, "shards: {}".format)


@dataclass(frozen=True)
class LeftOut:
    """A picture that is in no shard."""

    image_id: StoredId
    why: str


@dataclass(frozen=True)
class Shard:
    """One tar and what lies in it, by position: ``offsets[k]``, ``lengths[k]`` are the bytes of ``image_ids[k]``."""

    # A name leads to a file, and an index may come from a server.
    name: Annotated[str, Meta(pattern=r"^\d{5,9}\.tar$")]
    bytes: Natural
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    image_ids: list[StoredId] = field(repr=False)
    captions: list[Annotated[list[str], Meta(min_length=1)]] = field(repr=False)
    offsets: list[Natural] = field(repr=False)
    lengths: list[Count] = field(repr=False)
    unreadable: list[LeftOut] = field(default_factory=list)

    def __post_init__(self):
        if not len(self.image_ids) == len(self.captions) == len(self.offsets) == len(self.lengths):
            raise ValueError(f"shard {self.name}: lists of different lengths")
        ends = [0, *(at + length for at, length in zip(self.offsets, self.lengths, strict=True))]
        starts = [*(at - BLOCK for at in self.offsets), self.bytes]
        if any(start < end for start, end in zip(starts, ends, strict=True)):
            raise ValueError(f"shard {self.name}: its pictures do not lie one behind the other")


@dataclass(frozen=True)
class Plan:
    """What is to be stored: with the same plan, a build that was stopped goes on."""

    dataset: str
    split: str
    source: str  # checksum of the ids and captions
    pictures: Count
    settings: ShardSettings

    def differences(self, plan: Plan) -> str:
        """Where another plan differs, in words; "" where it does not."""
        there, here = (vars(one) | vars(one.settings) for one in (self, plan))
        return "; ".join(f"{name} {there[name]} there, {here[name]} here" if name != "source" else
                         "other ids or captions" for name in here if name != "settings" and there[name] != here[name])


@dataclass(frozen=True)
class Index(Plan):
    """A plan and all its shards: what ``index.json`` holds."""

    shards: list[Shard]
    format: int = FORMAT

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT} | asdict(self), ensure_ascii=False)

    @property
    def unreadable(self) -> list[LeftOut]:
        """Pictures that were left out."""
        return [one for shard in self.shards for one in shard.unreadable]


def parse_index(data: bytes, place: str | Path) -> Index:
    """An index from its file's bytes. Raises InputError that names ``place``."""
    remedy = "it is damaged or none of `prunecap data shards`: run that command again"
    index = parse_json(data, Index, f"shard index {place}", remedy, format=FORMAT)
    check_ids([(id, shard.name) for shard in index.shards for id in shard.image_ids], f"shard index {place}")
    held = sum(len(shard.image_ids) for shard in index.shards) + len(index.unreadable)
    if held != index.pictures:
        raise InputError(f"shard index {place}: it tells of {held:,} pictures and says they are {index.pictures:,}; "
                         f"{remedy}")
    if any(shard.name != f"{k:05d}.tar" for k, shard in enumerate(index.shards)):
        raise InputError(f"shard index {place}: its shards are not 00000.tar, 00001.tar and so on; {remedy}")
    return index


def split_folder(split: str) -> str:
    """A split's folder: Flickr8k's "dev" is another name for "val"."""
    return "val" if split == "dev" else split
