"""How does a described scene become pixels, and which pixels belong to which thing?"""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image, ImageDraw

from ..world import FLOATING, Layout, Thing
from .backgrounds import Brush, mix, paint_background, paint_perch
from .shapes import template

# Drawn this many times larger, then averaged down: smooth edges from a painter that has none.
SUPERSAMPLING = 2

PALETTE = {"red": (214, 52, 52), "orange": (244, 138, 32), "yellow": (250, 214, 56), "green": (66, 158, 84),
           "blue": (50, 112, 206), "purple": (140, 82, 190), "pink": (248, 142, 186), "brown": (126, 80, 50)}
FIXED_TONES = {"ink": (56, 50, 66), "cream": (255, 247, 228), "white": (255, 255, 255),
               "wood": (172, 142, 112), "glass": (214, 236, 244), "leaf": (122, 172, 112),
               "amber": (246, 186, 92), "rose": (236, 142, 146)}
TONES = {name: FIXED_TONES | {"base": colour,
                              "light": mix(colour, (255, 250, 240), 0.42),
                              "shade": mix(colour, (60, 40, 90), 0.20),
                              "dark": mix(colour, (52, 40, 72), 0.42),
                              "outline": mix(colour, (44, 36, 60), 0.62)}
         for name, colour in PALETTE.items()}
# A dark outline is lost on a dark ground, so by night it is a light rim.
MOONLIT = {name: tones | {"outline": mix(PALETTE[name], (236, 236, 255), 0.45)}
           for name, tones in TONES.items()}


def paint(layout: Layout, size: int) -> Image.Image:
    """The scene as an RGB picture of size x size pixels."""
    side = size * SUPERSAMPLING
    picture = Image.new("RGB", (side, side))
    brush = Brush(picture)
    paint_background(brush, layout.background, layout.horizon, Random(layout.clutter_seed))
    for thing in layout.things:
        _shadow(brush, layout.background, thing)
    for perch in layout.perches:
        paint_perch(brush, layout.background, *perch)
    palette = MOONLIT if layout.background == "night" else TONES
    pen = ImageDraw.Draw(picture)
    for thing in layout.things:
        tones = palette[thing.colour]
        shape = template(thing.kind)
        points = _placed(thing, side)
        for (start, stop), tone in zip(shape.spans, shape.tones, strict=True):
            pen.polygon(points[2 * start : 2 * stop], fill=tones[tone])
    return picture.reduce(SUPERSAMPLING)


def visible_masks(layout: Layout, size: int) -> list[np.ndarray]:
    """For each thing, a boolean [size,size] array of the pixels where it, and nothing in front of it, is
    seen.

    A pixel belongs to the thing that covers at least half of it; the masks never overlap.
    """
    side = size * SUPERSAMPLING
    owner = Image.new("L", (side, side))
    pen = ImageDraw.Draw(owner)
    for number, thing in enumerate(layout.things, start=1):
        shape = template(thing.kind)
        points = _placed(thing, side)
        for start, stop in shape.spans:
            pen.polygon(points[2 * start : 2 * stop], fill=number)
    owners = np.asarray(owner).reshape(size, SUPERSAMPLING, size, SUPERSAMPLING)
    free = np.ones((size, size), bool)
    masks = []
    for number in range(
        len(layout.things), 0, -1
    ):  # front to back: a pixel shared half and half goes to the front
        mask = ((owners == number).mean(axis=(1, 3)) >= 0.5) & free
        free &= ~mask
        masks.append(mask)
    return masks[::-1]


def _placed(thing: Thing, side: int) -> list[float]:
    """The thing's polygon points in pixels, flat x0, y0, x1, y1, …: mirrored, turned about its foot,
    scaled, moved."""
    shape = template(thing.kind)
    middle = (shape.left + shape.right) / 2
    cos, sin = np.cos(thing.tilt), np.sin(thing.tilt)
    mirror = -1.0 if thing.mirrored else 1.0
    turn = np.array([[mirror * cos, mirror * sin], [-sin, cos]]) * (thing.scale * side)
    return ((shape.points - (middle, 1.0)) @ turn + np.array([thing.x, thing.y]) * side).ravel().tolist()


def _shadow(brush: Brush, background: str, thing: Thing) -> None:
    reach = template(thing.kind).width * thing.scale / 2
    if thing.perched:
        return
    y = thing.ground
    fade = 0.6 if thing.kind in FLOATING else 1.0
    if background == "sea":
        brush.oval(thing.x, y, reach * 1.15, 0.075 * thing.scale, (236, 248, 250, int(120 * fade)))
        brush.oval(thing.x, y, reach * 0.95, 0.05 * thing.scale, (70, 120, 160, int(110 * fade)))
        return
    ink = (16, 16, 40) if background == "night" else (70, 62, 92)
    for grow, alpha in ((1.18, 34), (1.0, 46)):
        brush.oval(
            thing.x + 0.02 * thing.scale,
            y,
            reach * grow,
            0.075 * thing.scale * grow,
            (*ink, int(alpha * fade)),
        )
