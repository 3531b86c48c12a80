"""What do the animals and plants look like?

Each function lists the parts of one kind, back to front, in the unit square of `polygons`.
"""

from __future__ import annotations

import numpy as np

from .polygons import Part, arc, blob, curve, mirrored, oval, shape, stroke


def cat() -> list[Part]:  # sits and looks at you: tall, two pointed ears, a raised tail
    return [
        stroke(curve((0.62, 0.92), (0.84, 0.92), (0.92, 0.76), (0.84, 0.60), (0.90, 0.46)), 0.11),
        blob(
            (0.32, 0.50),
            (0.46, 0.45),
            (0.60, 0.50),
            (0.71, 0.78),
            (0.69, 0.97),
            (0.46, 1.0),
            (0.23, 0.97),
            (0.21, 0.78),
        ),
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
        blob(
            (0.09, 0.60),
            (0.17, 0.48),
            (0.42, 0.48),
            (0.64, 0.34),
            (0.82, 0.42),
            (0.80, 0.68),
            (0.52, 0.72),
            (0.20, 0.76),
        ),
        oval(0.47, 0.67, 0.20, 0.05, tone="light", edge=False),
        blob(
            (0.60, 0.24), (0.70, 0.15), (0.84, 0.20), (0.97, 0.29), (0.97, 0.40), (0.84, 0.46), (0.68, 0.44)
        ),
        blob((0.80, 0.34), (0.97, 0.33), (0.96, 0.42), (0.82, 0.46), tone="light", edge=False),
        stroke(((0.64, 0.465), (0.80, 0.50)), 0.05, tone="cream", edge=False),
        blob(
            (0.58, 0.19), (0.68, 0.16), (0.70, 0.30), (0.66, 0.44), (0.57, 0.43), (0.54, 0.30), tone="shade"
        ),
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
        blob(
            (0.22, 0.62),
            (0.36, 0.46),
            (0.50, 0.34),
            (0.56, 0.17),
            (0.70, 0.10),
            (0.84, 0.18),
            (0.86, 0.36),
            (0.82, 0.60),
            (0.68, 0.80),
            (0.46, 0.84),
            (0.28, 0.76),
        ),
        blob(
            (0.78, 0.46),
            (0.80, 0.60),
            (0.66, 0.78),
            (0.48, 0.80),
            (0.56, 0.62),
            (0.66, 0.46),
            tone="light",
            edge=False,
        ),
        blob(
            (0.32, 0.52),
            (0.48, 0.46),
            (0.60, 0.54),
            (0.54, 0.68),
            (0.36, 0.74),
            (0.16, 0.70),
            tone="shade",
            edge=False,
        ),
        stroke(curve((0.24, 0.68), (0.38, 0.68), (0.50, 0.60)), 0.018, tone="outline", edge=False),
        oval(0.73, 0.26, 0.055, tone="white", edge=False),
        oval(0.745, 0.265, 0.034, tone="ink", edge=False),
    ]


def fish() -> list[Part]:  # swims to the right: a lens with a forked tail
    return [
        blob(
            (0.32, 0.66), (0.16, 0.50), (0.02, 0.40), (0.09, 0.66), (0.02, 0.92), (0.16, 0.82), tone="shade"
        ),
        blob((0.40, 0.46), (0.50, 0.28), (0.66, 0.29), (0.78, 0.44), (0.60, 0.52), tone="shade"),
        blob((0.48, 0.86), (0.48, 0.99), (0.58, 1.0), (0.66, 0.90), tone="shade"),
        blob(
            (0.24, 0.66),
            (0.40, 0.47),
            (0.62, 0.40),
            (0.84, 0.47),
            (0.98, 0.66),
            (0.84, 0.86),
            (0.62, 0.93),
            (0.40, 0.86),
        ),
        blob(
            (0.36, 0.76),
            (0.62, 0.78),
            (0.94, 0.72),
            (0.82, 0.86),
            (0.62, 0.91),
            (0.44, 0.86),
            tone="light",
            edge=False,
        ),
        blob(
            (0.44, 0.47),
            (0.51, 0.44),
            (0.54, 0.64),
            (0.50, 0.88),
            (0.43, 0.86),
            (0.47, 0.66),
            tone="light",
            edge=False,
        ),
        blob((0.60, 0.60), (0.70, 0.66), (0.66, 0.78), (0.56, 0.74), tone="shade", edge=False),
        oval(0.82, 0.59, 0.062, tone="white", edge=False),
        oval(0.835, 0.595, 0.038, tone="ink", edge=False),
        stroke(curve((0.97, 0.69), (0.93, 0.72), (0.89, 0.72)), 0.018, tone="outline", edge=False),
    ]


def butterfly() -> list[Part]:  # spread wings, seen from above
    wings = mirrored(
        blob((0.49, 0.50), (0.38, 0.24), (0.17, 0.09), (0.01, 0.20), (0.08, 0.46), (0.32, 0.57)),
        blob((0.49, 0.52), (0.26, 0.56), (0.11, 0.72), (0.19, 0.94), (0.37, 0.90), (0.48, 0.68)),
        blob(
            (0.43, 0.46),
            (0.34, 0.27),
            (0.20, 0.20),
            (0.12, 0.26),
            (0.17, 0.42),
            (0.33, 0.49),
            tone="light",
            edge=False,
        ),
        oval(0.25, 0.74, 0.075, tone="shade", edge=False),
        oval(0.24, 0.33, 0.055, tone="base", edge=False),
        stroke(curve((0.48, 0.28), (0.42, 0.16), (0.35, 0.11)), 0.025, tone="ink", edge=False),
    )
    return [
        *wings,
        stroke(((0.5, 0.32), (0.5, 0.84)), 0.09, tone="ink", edge=False),
        oval(0.5, 0.28, 0.055, tone="ink", edge=False),
    ]


def tree() -> list[Part]:  # a tall crown of leafy clumps on a slim, branching trunk
    clumps = (
        (0.50, 0.15, 0.17),
        (0.30, 0.26, 0.17),
        (0.70, 0.26, 0.17),
        (0.20, 0.46, 0.17),
        (0.80, 0.46, 0.17),
        (0.34, 0.60, 0.14),
        (0.66, 0.60, 0.14),
    )
    leaves = (
        (0.42, 0.12),
        (0.25, 0.22),
        (0.62, 0.22),
        (0.14, 0.42),
        (0.74, 0.42),
        (0.44, 0.34),
        (0.50, 0.54),
    )
    return [
        shape((0.45, 0.56), (0.55, 0.56), (0.57, 0.90), (0.66, 1.0), (0.34, 1.0), (0.43, 0.90), tone="wood"),
        *(oval(x, y, r) for x, y, r in clumps),
        oval(0.5, 0.42, 0.3, 0.26, edge=False),
        *(
            stroke(arc(x, y + 0.13, 0.10, 0.09, 15, 165, n=7), 0.035, tone="shade", edge=False)
            for x, y in leaves
        ),
        *(
            stroke(arc(x + 0.02, y, 0.09, 0.07, 190, 300, n=6), 0.035, tone="light", edge=False)
            for x, y in leaves
        ),
        stroke(((0.5, 0.78), (0.5, 0.62)), 0.09, tone="wood", edge=False),
        stroke(((0.5, 0.66), (0.40, 0.56)), 0.045, tone="wood", edge=False),
        stroke(((0.5, 0.64), (0.59, 0.54)), 0.045, tone="wood", edge=False),
    ]


def flower() -> list[Part]:
    petals = [
        oval(0.5 + 0.21 * np.cos(a), 0.31 + 0.21 * np.sin(a), 0.155, 0.12, tilt=np.rad2deg(a))
        for a in np.arange(6) * np.pi / 3 + np.pi / 6
    ]
    veins = [
        oval(
            0.5 + 0.22 * np.cos(a),
            0.31 + 0.22 * np.sin(a),
            0.08,
            0.035,
            tilt=np.rad2deg(a),
            tone="light",
            edge=False,
        )
        for a in np.arange(6) * np.pi / 3 + np.pi / 6
    ]
    return [
        stroke(curve((0.50, 0.45), (0.52, 0.72), (0.50, 0.98)), 0.065, tone="leaf"),
        blob((0.52, 0.90), (0.62, 0.74), (0.80, 0.70), (0.72, 0.86), tone="leaf"),
        blob((0.48, 0.95), (0.38, 0.82), (0.20, 0.79), (0.28, 0.93), tone="leaf"),
        *petals,
        *veins,
        oval(0.5, 0.31, 0.12, tone="amber", edge=False),
        oval(0.48, 0.29, 0.06, tone="cream", edge=False),
    ]
