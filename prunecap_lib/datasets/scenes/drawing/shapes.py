"""What does each kind of thing look like?

A kind is a handful of polygons in its own unit square: x to the right, y down, standing on y = 1. Nothing
here knows about pixels, so the same cat is drawn at 64 and at 224 pixels, and its silhouette is its exact
instance mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from . import living, objects
from .polygons import grow

OUTLINE = 0.03  # how far the dark outline reaches beyond a part, in the thing's own unit


@dataclass(frozen=True)
class Template:
    """All polygons of a kind, outlines first, in painting order; `spans` cut `points` [M,2] into
    polygons."""

    points: np.ndarray
    spans: tuple[tuple[int, int], ...]
    tones: tuple[str, ...]
    left: float
    right: float
    top: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return 1.0 - self.top


@cache
def template(kind: str) -> Template:
    """The polygons of `kind`, one of `SHAPES`, with the outline already grown around each silhouette
    part."""
    parts = SHAPES[kind]()
    layers = [(grow(part.points, OUTLINE), "outline") for part in parts if part.edge]
    layers += [(part.points, part.tone) for part in parts]
    ends = np.cumsum([len(points) for points, _ in layers]).tolist()
    points = np.concatenate([points for points, _ in layers])
    (left, top), right = points.min(axis=0), points[:, 0].max()
    points[:, 1] += 1.0 - points[:, 1].max()  # the outline, too, stands on y = 1
    return Template(
        points,
        tuple(zip([0, *ends[:-1]], ends, strict=True)),
        tuple(tone for _, tone in layers),
        float(left),
        float(right),
        float(top),
    )


SHAPES = {make.__name__: make for make in (
    living.cat, living.dog, living.bird, living.fish, living.butterfly, living.tree, living.flower,
    objects.house, objects.car, objects.boat, objects.umbrella, objects.balloon, objects.mug, objects.chair)}
