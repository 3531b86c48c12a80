"""Which scenes are possible, and how is one chosen from a seed?

A scene has one or two groups (things alike in kind, colour and size); two groups stand in a relation that is true of
the drawn pixels by construction. Kinds, colours and backgrounds are drawn independently of each other, so no colour
betrays a kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from .drawing.kinds import template

KINDS = ("cat", "dog", "bird", "fish", "butterfly", "house", "tree", "flower", "car", "boat",
         "umbrella", "balloon", "mug", "chair")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
SIZES = {"small": 0.215, "medium": 0.31, "large": 0.45}  # longer side as a share of the picture's
RELATIONS = ("left of", "above", "next to")  # of the first group to the second
BACKGROUNDS = ("meadow", "beach", "night", "snow", "room", "sea")
SPLITS = ("train", "val", "test", "heldout")
FLOATING = ("fish", "butterfly", "balloon")  # hover; all else stands on the ground

# One colour of every kind is kept for the "heldout" split: no other split ever shows it.
HELD_OUT = frozenset((kind, COLOURS[(3 * number + 1) % len(COLOURS)]) for number, kind in enumerate(KINDS))

# Weights, uneven because fewer scenes of many, large things fit.
_COUNTS = {1: 0.21, 2: 0.24, 3: 0.27, 4: 0.28}
_SIZE_WEIGHTS = (0.25, 0.32, 0.43)
# Shares of the picture: "next to" means a gap below _NEAR, "left of" one above _APART.
_NEAR, _APART = 0.03, 0.15

# Where the things of a group stand: (x, y) of each, in steps of one thing's width and height, y up.
_ARRANGEMENTS = {
    1: (((0.0, 0.0),),),
    2: (((-0.55, 0.0), (0.55, 0.0)), ((-0.5, 0.6), (0.5, 0.0))),
    3: (((-1.07, 0.0), (0.0, 0.0), (1.07, 0.0)), ((-0.62, 0.0), (0.62, 0.0), (0.0, 0.72))),
    4: (((-1.56, 0.0), (-0.52, 0.0), (0.52, 0.0), (1.56, 0.0)),
        ((-0.66, 0.0), (0.46, 0.0), (-0.44, 0.76), (0.68, 0.76))),
}


@dataclass(frozen=True)
class Group:
    """`count` things alike in kind, colour and size."""

    kind: str
    colour: str
    size: str
    count: int


@dataclass(frozen=True)
class Thing:
    """One drawn thing: its foot stands at (x, y), its longer side measures `scale` (shares of the picture, y down)."""

    kind: str
    colour: str
    size: str
    group: int
    x: float
    y: float
    scale: float
    ground: float  # height of its shadow
    tilt: float = 0.0  # radians
    mirrored: bool = False
    perched: bool = False  # stands on a cloud or shelf

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) before tilting, as shares of the picture."""
        shape = template(self.kind)
        half, tall = shape.width * self.scale / 2, shape.height * self.scale
        return self.x - half, self.y - tall, self.x + half, self.y


@dataclass(frozen=True)
class Layout:
    """Everything the painter needs; `things` are in painting order, back to front."""

    groups: tuple[Group, ...]
    relation: str | None
    background: str
    horizon: float = field(repr=False)
    things: tuple[Thing, ...] = field(repr=False)
    perches: tuple[tuple[float, float, float], ...] = field(repr=False)  # (x0, x1, y)
    clutter_seed: str = field(repr=False)

    @property
    def main(self) -> int:
        """The group a caption that names only one would name: the one with the larger things in sum, else the first."""
        areas = [group.count * SIZES[group.size] ** 2 for group in self.groups]
        return max(range(len(areas)), key=lambda g: (round(areas[g], 6), -g))


def sample_layout(rng: Random, split: str, clutter_seed: str) -> Layout:
    """Draw one scene's description; `heldout` scenes hold at least one held-out pair of kind and colour."""
    two = rng.random() < 0.56
    relation = rng.choice(RELATIONS) if two else None
    kinds = rng.sample(KINDS, 2 if two else 1)
    rare = rng.randrange(len(kinds)) if split == "heldout" else None
    looks = [(kind, _colour(rng, kind, number == rare)) for number, kind in enumerate(kinds)]
    background = rng.choice(BACKGROUNDS)
    # Counts and sizes are drawn again until they fit; kinds and colours stay as drawn, so stay uniform.
    blocks = _draw_blocks(rng, looks)
    while not _place(rng, blocks, relation):
        blocks = _draw_blocks(rng, looks)
    groups = tuple(block.group for block in blocks)
    things = [thing for block in blocks for thing in block.things(rng)]
    things.sort(key=lambda thing: (thing.ground, thing.y, thing.x))  # nearer, so lower, is painted later
    perches = tuple((b.x - b.width / 2 - 0.03, b.x + b.width / 2 + 0.03, b.y) for b in blocks if b.perched)
    return Layout(groups, relation, background, rng.uniform(0.44, 0.52), tuple(things), perches, clutter_seed)


def _draw_blocks(rng: Random, looks: list[tuple[str, str]]) -> list[_Block]:
    sizes, counts = tuple(SIZES), tuple(_COUNTS)
    groups = [Group(kind, colour, rng.choices(sizes, _SIZE_WEIGHTS)[0], rng.choices(counts, tuple(_COUNTS.values()))[0])
              for kind, colour in looks]
    return [_Block(rng, number, group) for number, group in enumerate(groups)]


def _colour(rng: Random, kind: str, rare: bool) -> str:
    return rng.choice([colour for colour in COLOURS if ((kind, colour) in HELD_OUT) == rare])


class _Block:
    """A group on its way to a place: an arrangement, its size in shares of the picture, and later its foot (x, y)."""

    def __init__(self, rng: Random, number: int, group: Group):
        shape = template(group.kind)
        self.number, self.group = number, group
        self.scale = SIZES[group.size] * rng.uniform(0.97, 1.03)
        self.step = (shape.width * self.scale, shape.height * self.scale)
        self.slots = rng.choice(_ARRANGEMENTS[group.count])
        across = [x for x, _ in self.slots]
        self.middle = (max(across) + min(across)) / 2
        self.width = (max(across) - min(across) + 1) * self.step[0]
        self.height = (max(y for _, y in self.slots) + 1.05) * self.step[1]
        self.rows = len({y for _, y in self.slots})
        self.floating = group.kind in FLOATING
        self.x = self.y = 0.0
        self.lift = 0.0
        self.perched = False

    def things(self, rng: Random) -> list[Thing]:
        group, out = self.group, []
        sway = 0.12 if self.floating else 0.035
        for across, up in self.slots:
            x = self.x + (across - self.middle + rng.uniform(-0.012, 0.012)) * self.step[0]
            y = self.y - (up + rng.uniform(0.0, 0.05)) * self.step[1]
            ground = y if self.perched else self.y + self.lift - up * self.step[1]
            tilt, mirrored = rng.uniform(-sway, sway), rng.random() < 0.5
            out.append(Thing(group.kind, group.colour, group.size, self.number, x, y, self.scale, ground,
                             tilt, mirrored, self.perched))
        return out


def _place(rng: Random, blocks: list[_Block], relation: str | None) -> bool:
    """Give every block its foot (x, y) so that `relation` holds; False if they do not fit."""
    if any(b.width > 0.93 or b.height > 0.82 for b in blocks):
        return False
    if relation is None:
        block = blocks[0]
        block.x = rng.uniform(0.035 + block.width / 2, 0.965 - block.width / 2)
        _stand(rng, block, rng.uniform(max(0.76, 0.06 + block.height), 0.95))
        return True
    if relation == "above":
        return _place_above(rng, *blocks)
    first, second = blocks
    gap = rng.uniform(0.0, _NEAR) if relation == "next to" else rng.uniform(_APART, _APART + 0.15)
    free = 0.95 - first.width - second.width - gap
    if free < 0:
        return False
    left = 0.025 + rng.uniform(0.0, free)
    first.x = left + first.width / 2
    second.x = left + first.width + gap + second.width / 2
    foot = rng.uniform(max(0.78, 0.06 + max(first.height, second.height)), 0.95)
    for block in blocks:
        _stand(rng, block, foot if relation == "next to" else foot - rng.uniform(0.0, 0.05))
    return True


def _place_above(rng: Random, upper: _Block, lower: _Block) -> bool:
    gap = 0.02 if upper.floating else 0.07  # room for what it stands on
    free = 0.95 - 0.02 - upper.height - lower.height - gap
    if free < 0 or upper.rows > 1:
        return False
    foot = 0.95 - rng.uniform(0.0, min(free, 0.1))
    lower.x = rng.uniform(0.035 + lower.width / 2, 0.965 - lower.width / 2)
    _stand(rng, lower, foot, lift=0.0)
    top = foot - lower.height - gap
    upper.y = top - rng.uniform(0.0, min(0.1, max(0.0, top - upper.height - 0.02)))
    wanted = lower.x + rng.uniform(-0.1, 0.1)
    upper.x = min(max(wanted, 0.05 + upper.width / 2), 0.95 - upper.width / 2)
    upper.perched = not upper.floating
    upper.lift = foot - upper.y
    return True


def _stand(rng: Random, block: _Block, foot: float, lift: float | None = None) -> None:
    """Put the block's foot on the ground at `foot`, or a little above it if it floats."""
    if block.floating:
        room = max(0.0, foot - block.height - 0.04)
        block.lift = min(room, rng.uniform(0.03, 0.10)) if lift is None else lift
    block.y = foot - block.lift
