"""What do the things that people make look like?

Each function lists the parts of one kind, back to front, in the unit square of `polygons`.
"""

from __future__ import annotations

from .polygons import Part, arc, blob, curve, oval, shape, soft, stroke


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
        soft(
            (0.02, 0.88),
            (0.02, 0.64),
            (0.20, 0.60),
            (0.33, 0.40),
            (0.66, 0.40),
            (0.81, 0.60),
            (0.98, 0.66),
            (0.98, 0.88),
            radius=0.09,
        ),
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
        blob(
            (0.03, 0.71),
            (0.26, 0.73),
            (0.50, 0.73),
            (0.74, 0.73),
            (0.98, 0.69),
            (0.88, 0.90),
            (0.74, 0.99),
            (0.26, 0.99),
            (0.13, 0.90),
        ),
        stroke(curve((0.08, 0.78), (0.50, 0.80), (0.93, 0.77)), 0.045, tone="cream", edge=False),
        blob((0.14, 0.90), (0.50, 0.91), (0.87, 0.90), (0.74, 0.98), (0.26, 0.98), tone="shade", edge=False),
    ]


def umbrella() -> list[Part]:
    scallops = [
        point for x in (0.845, 0.615, 0.385, 0.155) for point in arc(x, 0.52, 0.115, 0.08, 0, -180, n=7)
    ]
    ribs = [((0.5, 0.06), *arc(0.5, 0.52, x - 0.5, 0.46, -70, 0, n=6)) for x in (0.27, 0.73)]
    return [
        stroke(
            curve((0.50, 0.40), (0.50, 0.84), (0.53, 0.95), (0.62, 0.95), (0.65, 0.86)), 0.06, tone="wood"
        ),
        stroke(((0.5, 0.08), (0.5, 0.02)), 0.04, tone="wood"),
        shape(*arc(0.5, 0.52, 0.46, 0.46, 180, 360, n=22), *scallops),
        shape(
            *arc(0.5, 0.52, 0.46, 0.46, 180, 268, n=12),
            *arc(0.5, 0.52, -0.23, 0.46, -80, 0, n=8),
            *arc(0.155, 0.52, 0.115, 0.08, 0, -180, n=7),
            tone="light",
            edge=False,
        ),
        shape(
            (0.5, 0.06),
            *arc(0.5, 0.52, 0.23, 0.46, -80, 0, n=8),
            *arc(0.615, 0.52, 0.115, 0.08, 0, -180, n=7),
            tone="shade",
            edge=False,
        ),
        *(stroke(rib, 0.014, tone="outline", edge=False) for rib in ribs),
        stroke(((0.5, 0.08), (0.5, 0.50)), 0.014, tone="outline", edge=False),
    ]


def balloon() -> list[Part]:
    return [
        stroke(curve((0.50, 0.70), (0.45, 0.80), (0.55, 0.90), (0.50, 0.99)), 0.028, tone="outline",
               edge=False),
        shape((0.50, 0.64), (0.43, 0.73), (0.57, 0.73), tone="shade"),
        blob(
            (0.50, 0.01),
            (0.71, 0.09),
            (0.80, 0.30),
            (0.69, 0.54),
            (0.50, 0.68),
            (0.31, 0.54),
            (0.20, 0.30),
            (0.29, 0.09),
        ),
        blob(
            (0.75, 0.22),
            (0.77, 0.36),
            (0.66, 0.54),
            (0.50, 0.65),
            (0.42, 0.60),
            (0.60, 0.50),
            (0.70, 0.36),
            tone="shade",
            edge=False,
        ),
        oval(0.36, 0.22, 0.07, 0.115, tilt=20, tone="light", edge=False),
        oval(0.345, 0.19, 0.03, 0.05, tilt=20, tone="white", edge=False),
    ]


def mug() -> list[Part]:
    return [
        stroke(arc(0.66, 0.56, 0.27, 0.24, -95, 95), 0.09),
        soft((0.06, 0.20), (0.68, 0.20), (0.65, 1.0), (0.09, 1.0), radius=0.12),
        shape(
            (0.52, 0.24), (0.675, 0.24), (0.645, 0.92), (0.59, 0.98), (0.50, 0.98), tone="shade", edge=False
        ),
        oval(0.37, 0.22, 0.31, 0.09, tone="light"),
        oval(0.37, 0.225, 0.245, 0.058, tone="dark", edge=False),
        blob(
            (0.31, 0.78),
            (0.17, 0.62),
            (0.19, 0.50),
            (0.27, 0.49),
            (0.31, 0.55),
            (0.35, 0.49),
            (0.43, 0.50),
            (0.45, 0.62),
            tone="cream",
            edge=False,
        ),
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
