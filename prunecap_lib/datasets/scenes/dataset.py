"""What is a scene, how are many of them opened as a data set, and are captions true of them?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from ...errors import InputError
from ..base import CaptionDataset
from .drawing.paint import paint, visible_masks
from .grammar import describe, judge, write_captions
from .world import SPLITS, Layout, sample_layout

ATTRIBUTES = ("kind", "colour", "count", "relation")
_IDS_PER_SPLIT = 1_000_000  # train scenes count from 1,000,000, val from 2,000,000, …: an id tells its split
_SMALLEST, _LARGEST = 16, 4096


@dataclass(frozen=True)
class Scene(Layout):
    """One picture of size x size pixels with its five captions and all that is true of it.

    ``groups``: one or two ``Group(kind, colour, size, count)``; of two, the left or upper one first. ``main``: index of
    the one that covers more: a caption that names only one group names this one. ``relation`` of the first to the
    second ("left of", "above", "next to"), or None. ``background``. ``things``: every drawn ``Thing`` (kind, colour,
    size, group, box as shares of the picture), back to front.
    """

    id: int
    split: str
    size: int
    captions: tuple[str, ...]

    @property
    def alt(self) -> str:
        """Alternative text: one full sentence."""
        return describe(self)

    @property
    def file_name(self) -> str:
        return f"scenes_{self.split}_{self.id:07d}.png"

    @property
    def image(self) -> Image.Image:
        """The picture, RGB, drawn anew at each access (about a millisecond at 64 pixels)."""
        return paint(self, self.size)

    def masks(self) -> list[tuple[str, np.ndarray]]:
        """(kind, visible pixels as a boolean array [size,size]) of each of `things`, in their order."""
        masks = visible_masks(self, self.size)
        return [(thing.kind, mask) for thing, mask in zip(self.things, masks, strict=True)]

    def token_mask(self, grid: tuple[int, int]) -> np.ndarray:
        """Share (0..1) of each cell of an (H,W) grid that things cover, [H,W] float32: which tokens hold the things?
        An encoder's ``Grid`` lies on the picture as that encoder sees it; a bare one fills it."""
        covered = np.any([mask for _, mask in self.masks()], axis=0).astype(np.float32)
        share = getattr(grid, "cell", None)
        height, width = (cells * share * self.size if share else self.size for cells in grid)
        beyond = max(0, math.ceil(max(height, width)) - self.size)  # nothing is there
        picture = Image.fromarray(np.pad(covered, (0, beyond)))
        return np.array(picture.resize((grid[1], grid[0]), Image.Resampling.BOX, box=(0, 0, width, height)))


def make_scenes(n: int, *, seed: int = 0, size: int = 64, split: str = "train") -> list[Scene]:
    """The first n scenes of a split ("train", "val", "test", or "heldout", whose every scene shows a pair of kind and
    colour that no other split has). Raises: InputError for an impossible n, size or split."""
    if split not in SPLITS:
        raise InputError(f"scenes: no split {split!r}; choose one of {', '.join(SPLITS)}")
    if not 1 <= n <= _IDS_PER_SPLIT:
        raise InputError(f"scenes: {n} pictures were asked for; ask for 1 to {_IDS_PER_SPLIT:,}")
    if not _SMALLEST <= size <= _LARGEST:
        raise InputError(f"scenes: a size of {size} pixels; choose {_SMALLEST} to {_LARGEST} (64, 96 and 224 are "
                         "usual)")
    first = (SPLITS.index(split) + 1) * _IDS_PER_SPLIT
    scenes = []
    for i in range(n):
        key = f"scenes {seed} {split} {i}"
        layout = sample_layout(Random(key), split, f"{key} clutter")
        scenes.append(Scene(**vars(layout), id=first + i, split=split, size=size,
                            captions=write_captions(layout, Random(f"{key} captions"))))
    return scenes


class ScenesDataset(CaptionDataset):
    """Scenes as a `CaptionDataset`; `scenes[i]` knows all that is true of picture i.

    Args: split, n, size in pixels, seed: as `make_scenes` takes them.
    """

    name = "scenes"

    def __init__(self, split: str = "train", n: int = 1000, size: int = 64, seed: int = 0):
        self.scenes = make_scenes(n, seed=seed, size=size, split=split)
        self.split, self.size, self.seed = split, size, seed
        self.image_ids = [scene.id for scene in self.scenes]
        self.captions = [list(scene.captions) for scene in self.scenes]

    def image(self, i: int) -> Image.Image:
        """Picture i, RGB."""
        return self.scenes[i].image

    def masks(self, i: int) -> list[tuple[str, np.ndarray]]:
        """Kind and visible pixels [size,size] of each thing in picture i."""
        return self.scenes[i].masks()

    def pixels(self) -> np.ndarray:
        """All pictures at once, uint8 [n,3,size,size]; a thousand and more a second at 64 pixels."""
        out = np.empty((len(self), 3, self.size, self.size), np.uint8)
        for i, scene in enumerate(self.scenes):
            out[i] = np.asarray(scene.image).transpose(2, 0, 1)
        return out


def scene_accuracy(scenes: Iterable[Scene], candidates: Mapping[int, str]) -> dict[str, float]:
    """Share (0..1) of right kinds, colours, counts and relations in `candidates` {scene id: caption}.

    CIDEr-D rewards wording; this asks only about facts, exactly, because a scene's description is known. Each score is
    (right answers) / (answers due), both summed over the candidates' scenes:

    - kind: due is every distinct kind that the caption names, and the main thing's if it does not name it; right are
      those that are in the scene. So a caption may leave out the lesser group, but never the main one.
    - colour: due is every group whose kind the caption names, or the main group if it names none; right are those named
      in their own colour, the colour standing before that very noun.
    - count: as colour; right are those named in their own number ("a", "two", "a pair of"; a bare plural is wrong).
    - relation: due is every scene of two groups; right if the caption relates two things in the scene's way (either way
      round: "below" is "above" reversed) with at least one of the two named, on its own side, and none on the other's.
      Left of, above and next to exclude each other: only the scene's own is right.

    A caption that names nothing scores 0 everywhere; a score with no answer due (no scene of two groups) is left out.
    Raises: InputError for a candidate of an unknown scene, or none at all.
    """
    known = {scene.id: scene for scene in scenes}
    if not candidates:
        raise InputError("scene accuracy: no candidate captions were given; caption at least one scene")
    right, due = dict.fromkeys(ATTRIBUTES, 0), dict.fromkeys(ATTRIBUTES, 0)
    for id, caption in candidates.items():
        if id not in known:
            raise InputError(f"scene accuracy: candidate {id!r} is none of the {len(known)} scenes given; check that "
                             "scenes and captions are of the same split")
        for attribute, (hits, asked) in judge(known[id], caption).items():
            right[attribute] += hits
            due[attribute] += asked
    return {attribute: right[attribute] / due[attribute] for attribute in ATTRIBUTES if due[attribute]}
