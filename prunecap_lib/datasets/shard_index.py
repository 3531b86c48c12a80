"""What is in a folder of shards, and where in them? ``index.json`` says it; this file reads and checks it.

A split is a folder: WebDataset tars ``00000.tar``, ``00001.tar``, … of at most ``per_shard`` pictures each, and
``index.json``, which is written last. In a tar a picture is two members, ``KEY.jpg`` and ``KEY.json`` (its id and
captions); the index repeats ids and captions, so that opening a data set reads one file, and says at which byte of
which tar each JPEG begins.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import InputError
from .base import ImageId

INDEX = "index.json"
FORMAT = 1
BLOCK = 512  # bytes of a tar's header and its unit
WINDOW = 8  # shards whose pictures are shuffled together


@dataclass(frozen=True)
class ShardSettings:
    """How pictures are stored: whatever changes this, changes every byte."""

    side: int = 256
    """Pixels of the shorter side; smaller pictures keep their size."""
    quality: int = 90
    """Of the JPEGs, 1 to 95; colours keep their full resolution."""
    per_shard: int = 1000
    """Pictures in one shard."""

    def __post_init__(self):
        for name, low, high in (("side", 16, 4096), ("quality", 1, 95), ("per_shard", 1, 100_000)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"shards: {name} is {getattr(self, name)}; it must be from {low} to {high}")


@dataclass(frozen=True)
class Shard:
    """One tar and what lies in it, by position: ``offsets[k]``, ``lengths[k]`` are the bytes of ``image_ids[k]``."""

    name: str
    bytes: int
    sha256: str
    image_ids: list[ImageId] = field(repr=False)
    captions: list[list[str]] = field(repr=False)
    offsets: list[int] = field(repr=False)
    lengths: list[int] = field(repr=False)
    unreadable: list[dict] = field(default_factory=list)
    """Pictures that are not in it, each with "image_id" and "why"."""

    def __post_init__(self):
        # A name leads to a file, and an index may come from a server.
        if not re.fullmatch(r"\d+\.tar", self.name) or not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"shard {self.name!r} with checksum {self.sha256!r}")
        if not len(self.image_ids) == len(self.captions) == len(self.offsets) == len(self.lengths):
            raise ValueError(f"shard {self.name}: lists of different lengths")


@dataclass(frozen=True)
class Plan:
    """What is to be stored: with the same plan, a build that was stopped goes on."""

    dataset: str
    split: str
    source: str
    """Checksum of the ids and captions."""
    pictures: int
    settings: ShardSettings

    def differences(self, other: Plan) -> list[str]:
        """Where another plan differs, in words."""
        mine, theirs = (asdict(plan) | asdict(plan.settings) for plan in (self, other))
        return [f"{name} {mine[name]} there, {theirs[name]} here" if name != "source" else "other ids or captions"
                for name in mine if name != "settings" and mine[name] != theirs[name]]


@dataclass(frozen=True)
class Index:
    """A split's plan and all its shards."""

    plan: Plan
    shards: list[Shard]

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self.plan), "shards": [asdict(shard) for shard in self.shards]},
                          ensure_ascii=False)

    @property
    def unreadable(self) -> list[dict]:
        """Pictures that were left out, each with "image_id" and "why"."""
        return [one for shard in self.shards for one in shard.unreadable]


def read_plan(content: dict) -> Plan:
    """Raises KeyError, TypeError."""
    return Plan(content["dataset"], content["split"], content["source"], content["pictures"],
                ShardSettings(**content["settings"]))


def parse_index(text: str | bytes, place: str | Path) -> Index:
    """An index from its file's text. Raises InputError that names ``place``."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise InputError(f"shard index {place}: format {content['format']} is not {FORMAT}, which this version "
                             "reads; write the shards again with `prunecap data shards`")
        return Index(read_plan(content), [Shard(**shard) for shard in content["shards"]])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"shard index {place} is damaged or none of `prunecap data shards` ({error!r}); "
                         "run that command again") from error


def split_folder(split: str) -> str:
    """A split's folder: Flickr8k's "dev" is another name for "val"."""
    return "val" if split == "dev" else split
