"""What does each kind of thing look like?

A kind is a handful of polygons in its own unit square: x to the right, y down, standing on y = 1. Nothing here knows
about pixels, so the same cat is drawn at 64 and at 224 pixels, and its silhouette is its exact instance mask. Each
function lists the parts of one kind, back to front.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .polygons import Part, arc, blob, curve, grow, mirrored, oval, shape, soft, stroke

OUTLINE = 0.03  # how far the dark outline reaches beyond a part, in the thing's own unit


@dataclass(frozen=True)
class Template:
    """All polygons of a kind, outlines first, in painting order; `spans` cut `points` [M,2] into polygons."""

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
    """The polygons of `kind`, one of `SHAPES`, with the outline already grown around each silhouette part."""
    parts = SHAPES[kind]()
    layers = [(grow(part.points, OUTLINE), "outline") for part in parts if part.edge]
    layers += [(part.points, part.tone) for part in parts]
    ends = np.cumsum([len(points) for points, _ in layers]).tolist()
    points = np.concatenate([points for points, _ in layers])
    (left, top), right = points.min(axis=0), points[:, 0].max()
    points[:, 1] += 1.0 - points[:, 1].max()  # the outline, too, stands on y = 1
    return Template(points, tuple(zip([0, *ends[:-1]], ends, strict=True)), tuple(tone for _, tone in layers),
                    float(left), float(right), float(top))


def cat() -> list[Part]:  # sits and looks at you: tall, two pointed ears, a raised tail
    return [
        stroke(curve((0.62, 0.92), (0.84, 0.92), (0.92, 0.76), (0.84, 0.60), (0.90, 0.46)), 0.11),
        blob((0.32, 0.50), (0.46, 0.45), (0.60, 0.50), (0.71, 0.78), (0.69, 0.97), (0.46, 1.0), (0.23, 0.97),
             (0.21, 0.78)),
        oval(0.46, 0.70, 0.13, 0.19, tone="light", edge=False),
        oval(0.46, 0.41, 0.25, 0.15, tone="shade", edge=False),
        shape((0.18, 0.32), (0.18, 0.01), (0.43, 0.15)),
        shape((0.49, 0.15), (0.74, 0.01), (0.74, 0.32)),
        shape((0.23, 0.24), (0.23, 0.09), (0.35, 0.16), tone="light", edge=False),
        shape((0.57, 0.16), (0.69, 0.09), (0.69, 0.24), tone="light", edge=False),
        oval(0.46, 0.31, 0.29, 0.22),
        oval(0.46, 0.40, 0.11, 0.075, tone="light", edge=False),
        oval(0.35, 0.29, 0.04, 0.055, tone="ink", edge=False),
        oval(0.57, 0.29, 0.04, 0.055, tone="ink", edge=False),
        oval(0.46, 0.37, 0.03, 0.022, tone="rose", edge=False),
        stroke(((0.20, 0.37), (0.31, 0.385)), 0.014, tone="outline", edge=False),
        stroke(((0.61, 0.385), (0.72, 0.37)), 0.014, tone="outline", edge=False),
        oval(0.37, 0.955, 0.10, 0.05, tone="light", edge=False),
        oval(0.56, 0.955, 0.10, 0.05, tone="light", edge=False),
    ]


def dog() -> list[Part]:  # stands in profile: long body, four legs, a floppy ear
    return [
        stroke(curve((0.15, 0.54), (0.07, 0.42), (0.05, 0.28)), 0.10),
        stroke(((0.31, 0.66), (0.32, 0.94)), 0.12, tone="shade"),
        stroke(((0.60, 0.66), (0.60, 0.94)), 0.12, tone="shade"),
        stroke(((0.19, 0.60), (0.18, 0.94)), 0.14),
        stroke(((0.72, 0.58), (0.72, 0.94)), 0.14),
        blob((0.09, 0.60), (0.17, 0.48), (0.42, 0.48), (0.64, 0.34), (0.82, 0.42), (0.80, 0.68), (0.52, 0.72),
             (0.20, 0.76)),
        oval(0.47, 0.67, 0.20, 0.05, tone="light", edge=False),
        blob((0.60, 0.24), (0.70, 0.15), (0.84, 0.20), (0.97, 0.29), (0.97, 0.40), (0.84, 0.46), (0.68, 0.44)),
        blob((0.80, 0.34), (0.97, 0.33), (0.96, 0.42), (0.82, 0.46), tone="light", edge=False),
        stroke(((0.64, 0.465), (0.80, 0.50)), 0.05, tone="cream", edge=False),
        blob((0.58, 0.19), (0.68, 0.16), (0.70, 0.30), (0.66, 0.44), (0.57, 0.43), (0.54, 0.30), tone="shade"),
        oval(0.79, 0.265, 0.033, tone="ink", edge=False),
        oval(0.955, 0.31, 0.042, 0.036, tone="ink", edge=False),
        oval(0.19, 0.965, 0.09, 0.035, tone="light", edge=False),
        oval(0.735, 0.965, 0.09, 0.035, tone="light", edge=False),
    ]


def bird() -> list[Part]:  # perches in profile: round, a tail, a beak, two thin legs
    return [
        stroke(((0.45, 0.78), (0.43, 0.98)), 0.04, tone="amber"),
        stroke(((0.58, 0.78), (0.58, 0.98)), 0.04, tone="amber"),
        shape((0.30, 0.52), (0.02, 0.52), (0.06, 0.64), (0.01, 0.70), (0.36, 0.74), tone="shade"),
        shape((0.82, 0.22), (1.02, 0.31), (0.82, 0.39), tone="amber"),
        stroke(curve((0.64, 0.14), (0.58, 0.08), (0.50, 0.08)), 0.05),
        blob((0.22, 0.62), (0.36, 0.46), (0.50, 0.34), (0.56, 0.17), (0.70, 0.10), (0.84, 0.18), (0.86, 0.36),
             (0.82, 0.60), (0.68, 0.80), (0.46, 0.84), (0.28, 0.76)),
        blob((0.78, 0.46), (0.80, 0.60), (0.66, 0.78), (0.48, 0.80), (0.56, 0.62), (0.66, 0.46), tone="light",
             edge=False),
        blob((0.32, 0.52), (0.48, 0.46), (0.60, 0.54), (0.54, 0.68), (0.36, 0.74), (0.16, 0.70), tone="shade",
             edge=False),
        stroke(curve((0.24, 0.68), (0.38, 0.68), (0.50, 0.60)), 0.018, tone="outline", edge=False),
        oval(0.73, 0.26, 0.055, tone="white", edge=False),
        oval(0.745, 0.265, 0.034, tone="ink", edge=False),
    ]


def fish() -> list[Part]:  # swims to the right: a lens with a forked tail
    return [
        blob((0.32, 0.66), (0.16, 0.50), (0.02, 0.40), (0.09, 0.66), (0.02, 0.92), (0.16, 0.82), tone="shade"),
        blob((0.40, 0.46), (0.50, 0.28), (0.66, 0.29), (0.78, 0.44), (0.60, 0.52), tone="shade"),
        blob((0.48, 0.86), (0.48, 0.99), (0.58, 1.0), (0.66, 0.90), tone="shade"),
        blob((0.24, 0.66), (0.40, 0.47), (0.62, 0.40), (0.84, 0.47), (0.98, 0.66), (0.84, 0.86), (0.62, 0.93),
             (0.40, 0.86)),
        blob((0.36, 0.76), (0.62, 0.78), (0.94, 0.72), (0.82, 0.86), (0.62, 0.91), (0.44, 0.86), tone="light",
             edge=False),
        blob((0.44, 0.47), (0.51, 0.44), (0.54, 0.64), (0.50, 0.88), (0.43, 0.86), (0.47, 0.66), tone="light",
             edge=False),
        blob((0.60, 0.60), (0.70, 0.66), (0.66, 0.78), (0.56, 0.74), tone="shade", edge=False),
        oval(0.82, 0.59, 0.062, tone="white", edge=False),
        oval(0.835, 0.595, 0.038, tone="ink", edge=False),
        stroke(curve((0.97, 0.69), (0.93, 0.72), (0.89, 0.72)), 0.018, tone="outline", edge=False),
    ]


def butterfly() -> list[Part]:  # spread wings, seen from above
    return [*mirrored(
        blob((0.49, 0.50), (0.38, 0.24), (0.17, 0.09), (0.01, 0.20), (0.08, 0.46), (0.32, 0.57)),
        blob((0.49, 0.52), (0.26, 0.56), (0.11, 0.72), (0.19, 0.94), (0.37, 0.90), (0.48, 0.68)),
        blob((0.43, 0.46), (0.34, 0.27), (0.20, 0.20), (0.12, 0.26), (0.17, 0.42), (0.33, 0.49), tone="light",
             edge=False),
        oval(0.25, 0.74, 0.075, tone="shade", edge=False),
        oval(0.24, 0.33, 0.055, tone="base", edge=False),
        stroke(curve((0.48, 0.28), (0.42, 0.16), (0.35, 0.11)), 0.025, tone="ink", edge=False),
    ), stroke(((0.5, 0.32), (0.5, 0.84)), 0.09, tone="ink", edge=False), oval(0.5, 0.28, 0.055, tone="ink", edge=False)]


def tree() -> list[Part]:  # a tall crown of leafy clumps on a slim, branching trunk
    clumps = ((0.50, 0.15, 0.17), (0.30, 0.26, 0.17), (0.70, 0.26, 0.17), (0.20, 0.46, 0.17), (0.80, 0.46, 0.17),
              (0.34, 0.60, 0.14), (0.66, 0.60, 0.14))
    leaves = ((0.42, 0.12), (0.25, 0.22), (0.62, 0.22), (0.14, 0.42), (0.74, 0.42), (0.44, 0.34), (0.50, 0.54))
    return [
        shape((0.45, 0.56), (0.55, 0.56), (0.57, 0.90), (0.66, 1.0), (0.34, 1.0), (0.43, 0.90), tone="wood"),
        *(oval(x, y, r) for x, y, r in clumps),
        oval(0.5, 0.42, 0.3, 0.26, edge=False),
        *(stroke(arc(x, y + 0.13, 0.10, 0.09, 15, 165, n=7), 0.035, tone="shade", edge=False) for x, y in leaves),
        *(stroke(arc(x + 0.02, y, 0.09, 0.07, 190, 300, n=6), 0.035, tone="light", edge=False) for x, y in leaves),
        stroke(((0.5, 0.78), (0.5, 0.62)), 0.09, tone="wood", edge=False),
        stroke(((0.5, 0.66), (0.40, 0.56)), 0.045, tone="wood", edge=False),
        stroke(((0.5, 0.64), (0.59, 0.54)), 0.045, tone="wood", edge=False),
    ]


def flower() -> list[Part]:
    def ring(reach, rx, ry, **look):
        return [oval(0.5 + reach * np.cos(a), 0.31 + reach * np.sin(a), rx, ry, tilt=np.rad2deg(a), **look)
                for a in np.arange(6) * np.pi / 3 + np.pi / 6]

    return [
        stroke(curve((0.50, 0.45), (0.52, 0.72), (0.50, 0.98)), 0.065, tone="leaf"),
        blob((0.52, 0.90), (0.62, 0.74), (0.80, 0.70), (0.72, 0.86), tone="leaf"),
        blob((0.48, 0.95), (0.38, 0.82), (0.20, 0.79), (0.28, 0.93), tone="leaf"),
        *ring(0.21, 0.155, 0.12),
        *ring(0.22, 0.08, 0.035, tone="light", edge=False),
        oval(0.5, 0.31, 0.12, tone="amber", edge=False),
        oval(0.48, 0.29, 0.06, tone="cream", edge=False),
    ]


def house() -> list[Part]:
    return [
        shape((0.69, 0.10), (0.82, 0.10), (0.82, 0.44), (0.69, 0.34), tone="shade"),
        shape((0.15, 0.46), (0.85, 0.46), (0.85, 1.0), (0.15, 1.0)),
        shape((0.15, 0.50), (0.85, 0.50), (0.85, 0.58), (0.15, 0.58), tone="shade", edge=False),
        soft((0.02, 0.52), (0.50, 0.06), (0.98, 0.52), radius=0.03, tone="dark"),
        stroke(((0.14, 0.45), (0.50, 0.12)), 0.035, tone="shade", edge=False),
        soft((0.42, 1.0), (0.42, 0.70), (0.60, 0.70), (0.60, 1.0), radius=0.05, tone="cream", edge=False),
        oval(0.56, 0.86, 0.02, tone="ink", edge=False),
        shape((0.21, 0.63), (0.36, 0.63), (0.36, 0.80), (0.21, 0.80), tone="glass", edge=False),
        shape((0.66, 0.63), (0.80, 0.63), (0.80, 0.80), (0.66, 0.80), tone="glass", edge=False),
        stroke(((0.285, 0.64), (0.285, 0.79)), 0.02, tone="outline", edge=False),
        stroke(((0.73, 0.64), (0.73, 0.79)), 0.02, tone="outline", edge=False),
        oval(0.50, 0.35, 0.065, tone="glass", edge=False),
    ]


def car() -> list[Part]:
    wheels = [
        part
        for x in (0.25, 0.76)
        for part in (oval(x, 0.87, 0.125, tone="ink"), oval(x, 0.87, 0.06, tone="cream", edge=False))
    ]
    return [
        soft((0.02, 0.88), (0.02, 0.64), (0.20, 0.60), (0.33, 0.40), (0.66, 0.40), (0.81, 0.60), (0.98, 0.66),
             (0.98, 0.88), radius=0.09),
        soft((0.02, 0.88), (0.02, 0.78), (0.98, 0.78), (0.98, 0.88), radius=0.04, tone="shade", edge=False),
        soft((0.27, 0.61), (0.37, 0.46), (0.47, 0.46), (0.47, 0.61), radius=0.03, tone="glass", edge=False),
        soft((0.53, 0.46), (0.63, 0.46), (0.74, 0.61), (0.53, 0.61), radius=0.03, tone="glass", edge=False),
        stroke(((0.50, 0.47), (0.50, 0.84)), 0.015, tone="outline", edge=False),
        stroke(((0.10, 0.67), (0.40, 0.66)), 0.03, tone="light", edge=False),
        oval(0.945, 0.715, 0.035, 0.045, tone="cream", edge=False),
        *wheels,
    ]


def boat() -> list[Part]:
    return [
        stroke(((0.49, 0.72), (0.49, 0.04)), 0.045, tone="wood"),
        soft((0.55, 0.06), (0.93, 0.62), (0.55, 0.62), radius=0.03),
        soft((0.43, 0.18), (0.43, 0.62), (0.12, 0.62), radius=0.03, tone="cream"),
        shape((0.57, 0.13), (0.70, 0.33), (0.57, 0.33), tone="light", edge=False),
        blob((0.03, 0.71), (0.26, 0.73), (0.50, 0.73), (0.74, 0.73), (0.98, 0.69), (0.88, 0.90), (0.74, 0.99),
             (0.26, 0.99), (0.13, 0.90)),
        stroke(curve((0.08, 0.78), (0.50, 0.80), (0.93, 0.77)), 0.045, tone="cream", edge=False),
        blob((0.14, 0.90), (0.50, 0.91), (0.87, 0.90), (0.74, 0.98), (0.26, 0.98), tone="shade", edge=False),
    ]


def umbrella() -> list[Part]:
    scallops = [point for x in (0.845, 0.615, 0.385, 0.155) for point in arc(x, 0.52, 0.115, 0.08, 0, -180, n=7)]
    ribs = [((0.5, 0.06), *arc(0.5, 0.52, x - 0.5, 0.46, -70, 0, n=6)) for x in (0.27, 0.73)]
    return [
        stroke(curve((0.50, 0.40), (0.50, 0.84), (0.53, 0.95), (0.62, 0.95), (0.65, 0.86)), 0.06, tone="wood"),
        stroke(((0.5, 0.08), (0.5, 0.02)), 0.04, tone="wood"),
        shape(*arc(0.5, 0.52, 0.46, 0.46, 180, 360, n=22), *scallops),
        shape(*arc(0.5, 0.52, 0.46, 0.46, 180, 268, n=12), *arc(0.5, 0.52, -0.23, 0.46, -80, 0, n=8),
              *arc(0.155, 0.52, 0.115, 0.08, 0, -180, n=7), tone="light", edge=False),
        shape((0.5, 0.06), *arc(0.5, 0.52, 0.23, 0.46, -80, 0, n=8), *arc(0.615, 0.52, 0.115, 0.08, 0, -180, n=7),
              tone="shade", edge=False),
        *(stroke(rib, 0.014, tone="outline", edge=False) for rib in ribs),
        stroke(((0.5, 0.08), (0.5, 0.50)), 0.014, tone="outline", edge=False),
    ]


def balloon() -> list[Part]:
    return [
        stroke(curve((0.50, 0.70), (0.45, 0.80), (0.55, 0.90), (0.50, 0.99)), 0.028, tone="outline", edge=False),
        shape((0.50, 0.64), (0.43, 0.73), (0.57, 0.73), tone="shade"),
        blob((0.50, 0.01), (0.71, 0.09), (0.80, 0.30), (0.69, 0.54), (0.50, 0.68), (0.31, 0.54), (0.20, 0.30),
             (0.29, 0.09)),
        blob((0.75, 0.22), (0.77, 0.36), (0.66, 0.54), (0.50, 0.65), (0.42, 0.60), (0.60, 0.50), (0.70, 0.36),
             tone="shade", edge=False),
        oval(0.36, 0.22, 0.07, 0.115, tilt=20, tone="light", edge=False),
        oval(0.345, 0.19, 0.03, 0.05, tilt=20, tone="white", edge=False),
    ]


def mug() -> list[Part]:
    return [
        stroke(arc(0.66, 0.56, 0.27, 0.24, -95, 95), 0.09),
        soft((0.06, 0.20), (0.68, 0.20), (0.65, 1.0), (0.09, 1.0), radius=0.12),
        shape((0.52, 0.24), (0.675, 0.24), (0.645, 0.92), (0.59, 0.98), (0.50, 0.98), tone="shade", edge=False),
        oval(0.37, 0.22, 0.31, 0.09, tone="light"),
        oval(0.37, 0.225, 0.245, 0.058, tone="dark", edge=False),
        blob((0.31, 0.78), (0.17, 0.62), (0.19, 0.50), (0.27, 0.49), (0.31, 0.55), (0.35, 0.49), (0.43, 0.50),
             (0.45, 0.62), tone="cream", edge=False),
    ]


def chair() -> list[Part]:  # seen from the front: a ladder back one can look through, a seat, four legs
    return [
        stroke(((0.31, 0.70), (0.32, 0.88)), 0.07, tone="shade"),
        stroke(((0.69, 0.70), (0.68, 0.88)), 0.07, tone="shade"),
        stroke(((0.20, 0.08), (0.22, 0.62)), 0.09),
        stroke(((0.80, 0.08), (0.78, 0.62)), 0.09),
        soft((0.19, 0.06), (0.81, 0.06), (0.81, 0.19), (0.19, 0.19), radius=0.04),
        soft((0.22, 0.34), (0.78, 0.34), (0.78, 0.41), (0.22, 0.41), radius=0.02, tone="shade"),
        stroke(((0.13, 0.70), (0.11, 0.96)), 0.09),
        stroke(((0.87, 0.70), (0.89, 0.96)), 0.09),
        soft((0.20, 0.55), (0.80, 0.55), (0.94, 0.67), (0.06, 0.67), radius=0.03, tone="light"),
        soft((0.06, 0.67), (0.94, 0.67), (0.94, 0.76), (0.06, 0.76), radius=0.02),
    ]


SHAPES = {make.__name__: make for make in (cat, dog, bird, fish, butterfly, tree, flower,
                                           house, car, boat, umbrella, balloon, mug, chair)}
