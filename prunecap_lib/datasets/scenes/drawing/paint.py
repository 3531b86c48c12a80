"""How does a described scene become pixels, and which pixels belong to which thing?

Six pale backgrounds with light texture and clutter (hills, tufts, pebbles, stars, a window): pale, so that eight
saturated colours stand out on all of them, and free of anything that looks like one of the kinds.
"""

from __future__ import annotations

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from ..world import FLOATING, Layout, Thing
from .kinds import template

# Drawn this many times larger, then averaged down: smooth edges from a painter that has none.
SUPERSAMPLING = 2
Colour = tuple[int, int, int]


class Brush:
    """Draws in unit coordinates (0..1, y down) on a square picture; colours may carry a fourth, alpha, number."""

    def __init__(self, picture: Image.Image):
        self.scale = picture.width
        self.solid = ImageDraw.Draw(picture)
        self.glaze = ImageDraw.Draw(picture, "RGBA")  # blends; slower, so only for colours with alpha

    def _pen(self, colour):
        return self.glaze if len(colour) == 4 else self.solid

    def box(self, x0, y0, x1, y1, colour):
        k = self.scale
        self._pen(colour).rectangle((x0 * k, y0 * k, x1 * k, y1 * k), fill=colour)

    def oval(self, x, y, rx, ry, colour):
        k = self.scale
        self._pen(colour).ellipse(((x - rx) * k, (y - ry) * k, (x + rx) * k, (y + ry) * k), fill=colour)

    def polygon(self, points, colour):
        k = self.scale
        self._pen(colour).polygon([(x * k, y * k) for x, y in points], fill=colour)

    def line(self, points, width, colour):
        k = self.scale
        self._pen(colour).line([(x * k, y * k) for x, y in points], fill=colour, width=max(1, round(width * k)))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` moved towards `b` by `share` (0..1)."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


PALETTE = {"red": (214, 52, 52), "orange": (244, 138, 32), "yellow": (250, 214, 56), "green": (66, 158, 84),
           "blue": (50, 112, 206), "purple": (140, 82, 190), "pink": (248, 142, 186), "brown": (126, 80, 50)}
FIXED_TONES = {"ink": (56, 50, 66), "cream": (255, 247, 228), "white": (255, 255, 255), "wood": (172, 142, 112),
               "glass": (214, 236, 244), "leaf": (122, 172, 112), "amber": (246, 186, 92), "rose": (236, 142, 146)}
TONES = {name: FIXED_TONES | {"base": colour,
                              "light": mix(colour, (255, 250, 240), 0.42),
                              "shade": mix(colour, (60, 40, 90), 0.20),
                              "dark": mix(colour, (52, 40, 72), 0.42),
                              "outline": mix(colour, (44, 36, 60), 0.62)}
         for name, colour in PALETTE.items()}
# A dark outline is lost on a dark ground, so by night it is a light rim.
MOONLIT = {name: tones | {"outline": mix(PALETTE[name], (236, 236, 255), 0.45)} for name, tones in TONES.items()}


def paint(layout: Layout, size: int) -> Image.Image:
    """The scene as an RGB picture of size x size pixels."""
    side = size * SUPERSAMPLING
    picture = Image.new("RGB", (side, side))
    brush = Brush(picture)
    _BACKGROUNDS[layout.background](brush, layout.horizon, Random(layout.clutter_seed))
    for thing in layout.things:
        _shadow(brush, layout.background, thing)
    for perch in layout.perches:
        _perch(brush, layout.background, *perch)
    palette = MOONLIT if layout.background == "night" else TONES
    pen = ImageDraw.Draw(picture)
    for thing in layout.things:
        for polygon, tone in _polygons(thing, side):
            pen.polygon(polygon, fill=palette[thing.colour][tone])
    return picture.reduce(SUPERSAMPLING)


def visible_masks(layout: Layout, size: int) -> list[np.ndarray]:
    """For each thing, a boolean [size,size] array of the pixels where it, and nothing in front of it, is seen.

    A pixel belongs to the thing that covers at least half of it; the masks never overlap.
    """
    side = size * SUPERSAMPLING
    owner = Image.new("L", (side, side))
    pen = ImageDraw.Draw(owner)
    for number, thing in enumerate(layout.things, start=1):
        for polygon, _ in _polygons(thing, side):
            pen.polygon(polygon, fill=number)
    owners = np.asarray(owner).reshape(size, SUPERSAMPLING, size, SUPERSAMPLING)
    free = np.ones((size, size), bool)
    masks = []
    for number in range(len(layout.things), 0, -1):  # front to back: a pixel shared half and half goes to the front
        mask = ((owners == number).mean(axis=(1, 3)) >= 0.5) & free
        free &= ~mask
        masks.append(mask)
    return masks[::-1]


def _polygons(thing: Thing, side: int) -> list[tuple[list[float], str]]:
    """The thing's polygons in pixels (flat x0, y0, x1, y1, …; mirrored, turned about its foot, scaled, moved), and the
    tone of each."""
    shape = template(thing.kind)
    middle = (shape.left + shape.right) / 2
    cos, sin = np.cos(thing.tilt), np.sin(thing.tilt)
    mirror = -1.0 if thing.mirrored else 1.0
    turn = np.array([[mirror * cos, mirror * sin], [-sin, cos]]) * (thing.scale * side)
    points = ((shape.points - (middle, 1.0)) @ turn + np.array([thing.x, thing.y]) * side).ravel().tolist()
    return [(points[2 * start : 2 * stop], tone) for (start, stop), tone in zip(shape.spans, shape.tones, strict=True)]


def _shadow(brush: Brush, background: str, thing: Thing) -> None:
    if thing.perched:
        return
    reach, y = template(thing.kind).width * thing.scale / 2, thing.ground
    fade = 0.6 if thing.kind in FLOATING else 1.0
    if background == "sea":
        brush.oval(thing.x, y, reach * 1.15, 0.075 * thing.scale, (236, 248, 250, int(120 * fade)))
        brush.oval(thing.x, y, reach * 0.95, 0.05 * thing.scale, (70, 120, 160, int(110 * fade)))
        return
    ink = (16, 16, 40) if background == "night" else (70, 62, 92)
    for grow, alpha in ((1.18, 34), (1.0, 46)):
        brush.oval(thing.x + 0.02 * thing.scale, y, reach * grow, 0.075 * thing.scale * grow, (*ink, int(alpha * fade)))


def _perch(brush: Brush, name: str, x0: float, x1: float, y: float) -> None:
    """What things in the air stand on at height `y`, from x0 to x1: a shelf in a room, elsewhere a cloud."""
    if name == "room":
        brush.box(x0, y + 0.022, x1, y + 0.04, (90, 66, 64, 60))
        brush.box(x0, y - 0.008, x1, y + 0.022, (176, 138, 106))
        brush.box(x0, y - 0.008, x1, y, (206, 170, 136))
        return
    _cloud(brush, (x0 + x1) / 2, y + 0.012, x1 - x0, (150, 152, 196) if name == "night" else (255, 255, 255))


def _cloud(brush, x, y, width, colour):
    under = mix(colour, (150, 170, 205), 0.28)
    height = min(0.05, width * 0.16)
    for dy, tone in ((0.014, under), (0.0, colour)):
        for at, size in ((-0.36, 0.75), (-0.13, 1.1), (0.13, 1.0), (0.36, 0.8)):
            brush.oval(x + at * width, y + dy, width * 0.2, height * size, tone)


def _sky(brush, top, bottom, until, bands=10):
    for band in range(bands):
        brush.box(0, until * band / bands, 1, until * (band + 1) / bands, mix(top, bottom, band / (bands - 1)))


def _hills(brush, base, rise, colour, rng, below=None):
    """A rolling ridge about `base`, filled down to `below` (the bottom of the picture if None)."""
    phase, waves = rng.uniform(0, 6.28), rng.uniform(0.7, 1.4)
    ridge = [(i / 12, base - rise * math.sin(phase + waves * 6.28 * i / 12)) for i in range(13)]
    bottom = 1.0 if below is None else below
    brush.polygon([*ridge, (1, bottom), (0, bottom)], colour)


def _scatter(rng, n, top, bottom):
    return [(rng.uniform(0.01, 0.99), rng.uniform(top, bottom)) for _ in range(n)]


def _meadow(brush, horizon, rng):
    _sky(brush, (188, 222, 242), (236, 246, 240), horizon)
    brush.oval(rng.uniform(0.08, 0.92), rng.uniform(0.06, 0.16), 0.06, 0.06, (255, 244, 200))
    for _ in range(rng.randint(1, 2)):
        _cloud(brush, rng.random(), rng.uniform(0.06, horizon - 0.2), rng.uniform(0.16, 0.26), (250, 253, 253))
    _hills(brush, horizon - 0.07, 0.045, (204, 226, 198), rng)
    _hills(brush, horizon, 0.02, (190, 219, 166), rng)
    _hills(brush, horizon + 0.2, 0.03, (180, 212, 152), rng)
    for x, y in _scatter(rng, 12, horizon + 0.06, 0.98):
        for lean in (-0.012, 0.0, 0.012):
            brush.line([(x, y), (x + lean, y - 0.028)], 0.006, (146, 188, 122))
    for x, y in _scatter(rng, 5, horizon + 0.08, 0.98):
        brush.oval(x, y, 0.009, 0.009, (252, 250, 240))


def _beach(brush, horizon, rng):
    _sky(brush, (196, 228, 244), (244, 248, 240), horizon)
    _cloud(brush, rng.random(), rng.uniform(0.07, 0.18), rng.uniform(0.18, 0.28), (255, 255, 255))
    brush.box(0, horizon - 0.1, 1, horizon + 0.1, (156, 208, 218))
    for x, y in _scatter(rng, 6, horizon - 0.09, horizon - 0.02):
        brush.line([(x - 0.04, y), (x + 0.04, y)], 0.006, (190, 226, 230))
    _hills(brush, horizon + 0.015, 0.012, (236, 247, 244), rng)
    state = rng.getstate()
    _hills(brush, horizon + 0.035, 0.012, (226, 206, 172), rng)
    rng.setstate(state)  # the same ridge again, a little lower: wet sand, then dry
    _hills(brush, horizon + 0.07, 0.012, (245, 228, 192), rng)
    for x, y in _scatter(rng, 26, horizon + 0.1, 0.99):
        brush.oval(x, y, 0.005, 0.004, (222, 198, 158))
    for x, y in _scatter(rng, 4, horizon + 0.12, 0.98):
        brush.oval(x, y, 0.016, 0.01, (205, 192, 176))
        brush.oval(x - 0.003, y - 0.003, 0.009, 0.005, (226, 216, 202))


def _night(brush, horizon, rng):
    _sky(brush, (36, 40, 84), (84, 84, 140), horizon)
    for x, y in _scatter(rng, 22, 0.02, horizon - 0.06):
        size = rng.choice((0.004, 0.005, 0.008))
        brush.oval(x, y, size, size, (250, 244, 214))
    x, y = rng.uniform(0.1, 0.9), rng.uniform(0.09, 0.17)
    brush.oval(x, y, 0.085, 0.085, (250, 244, 214, 40))
    brush.oval(x, y, 0.06, 0.06, (250, 242, 208))
    brush.oval(x + 0.025, y - 0.015, 0.05, 0.05, (54, 56, 102))
    _hills(brush, horizon - 0.05, 0.04, (76, 78, 132), rng)
    _hills(brush, horizon, 0.02, (68, 76, 118), rng)
    _hills(brush, horizon + 0.2, 0.03, (60, 68, 108), rng)
    for x, y in _scatter(rng, 10, horizon + 0.06, 0.98):
        brush.line([(x, y), (x - 0.01, y - 0.026)], 0.006, (88, 96, 144))
        brush.line([(x, y), (x + 0.01, y - 0.026)], 0.006, (88, 96, 144))


def _snow(brush, horizon, rng):
    _sky(brush, (190, 202, 226), (226, 230, 242), horizon)
    _hills(brush, horizon - 0.07, 0.05, (214, 222, 238), rng)
    _hills(brush, horizon, 0.025, (240, 243, 250), rng)
    _hills(brush, horizon + 0.22, 0.035, (250, 251, 254), rng)
    for x, y in _scatter(rng, 7, horizon + 0.08, 0.97):
        brush.line([(x - 0.035, y), (x + 0.035, y + 0.006)], 0.008, (222, 228, 242))
    for x, y in _scatter(rng, 26, 0.01, 0.6):
        size = rng.choice((0.006, 0.008, 0.011))
        brush.oval(x, y, size, size, (255, 255, 255))


def _room(brush, horizon, rng):
    brush.box(0, 0, 1, 1, (248, 232, 214))
    shift = rng.uniform(0, 0.12)
    for stripe in range(9):
        brush.box(stripe * 0.12 - shift, 0, stripe * 0.12 - shift + 0.06, horizon, (244, 223, 202))
    x, y = rng.choice((rng.uniform(0.14, 0.3), rng.uniform(0.7, 0.86))), rng.uniform(0.15, 0.2)
    brush.box(x - 0.11, y - 0.11, x + 0.11, y + 0.11, (255, 252, 244))
    brush.box(x - 0.09, y - 0.09, x - 0.008, y + 0.09, (206, 230, 240))
    brush.box(x + 0.008, y - 0.09, x + 0.09, y + 0.09, (206, 230, 240))
    brush.box(0, horizon - 0.03, 1, horizon, (255, 248, 236))
    brush.box(0, horizon, 1, 1, (222, 192, 160))
    for row in range(6):
        top = horizon + (1 - horizon) * (row / 6) ** 1.3
        brush.line([(0, top), (1, top)], 0.005, (204, 172, 140))
        joint = rng.random()
        brush.line([(joint, top), (joint, horizon + (1 - horizon) * ((row + 1) / 6) ** 1.3)], 0.005, (204, 172, 140))
    x = rng.uniform(0.3, 0.7)
    brush.oval(x, 0.8, 0.4, 0.13, (214, 214, 204))
    brush.oval(x, 0.8, 0.36, 0.11, (232, 232, 222))


def _sea(brush, horizon, rng):
    top = horizon - 0.22
    _sky(brush, (204, 230, 246), (246, 248, 240), top)
    brush.box(0, top, 1, 1, (172, 216, 226))
    _cloud(brush, rng.random(), rng.uniform(0.06, 0.12), rng.uniform(0.18, 0.28), (255, 255, 255))
    for row in range(6):
        _hills(brush, top + 0.02 + row * (1 - top) / 6, 0.010 + 0.002 * row,
               mix((172, 216, 226), (116, 178, 206), row / 5), rng)
    for x, y in _scatter(rng, 14, top + 0.06, 0.98):
        crest = [(x + 0.045 * t, y - 0.016 * (1 - t * t)) for t in (-1, -0.5, 0, 0.5, 1)]
        brush.line(crest, 0.008, (214, 238, 242))


# Each fills the picture; the ground begins at `horizon` (0..1 from the top).
_BACKGROUNDS = {"meadow": _meadow, "beach": _beach, "night": _night, "snow": _snow, "room": _room, "sea": _sea}
