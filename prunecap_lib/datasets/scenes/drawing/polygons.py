"""Which few polygons are enough to draw a picture-book thing?

Ovals, smooth blobs, rounded boxes and strokes, all turned into plain polygons once, so that drawing a thing is one
affine map of its points and a fill for each polygon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """One filled polygon: points [n,2], the tone that fills it, and whether the outline runs around it."""

    points: np.ndarray
    tone: str = "base"
    edge: bool = True


def shape(*points, tone="base", edge=True) -> Part:
    return Part(np.array(points, dtype=float), tone, edge)


def oval(x, y, rx, ry=None, *, tilt=0.0, tone="base", edge=True) -> Part:
    return Part(np.array(arc(x, y, rx, rx if ry is None else ry, 0, 345, n=24, tilt=tilt)), tone, edge)


def blob(*points, tone="base", edge=True) -> Part:
    """A closed smooth (Catmull-Rom) curve through `points`."""
    return Part(np.array(_catmull_rom([points[-1], *points, points[0], points[1]])), tone, edge)


def soft(*points, radius=0.06, tone="base", edge=True) -> Part:
    """A polygon whose corners are rounded by `radius`."""
    corners, out = np.array(points, dtype=float), []
    for before, corner, after in zip(np.roll(corners, 1, 0), corners, np.roll(corners, -1, 0), strict=True):
        into, out_of = before - corner, after - corner
        start = corner + into * min(0.5, radius / np.linalg.norm(into))
        stop = corner + out_of * min(0.5, radius / np.linalg.norm(out_of))
        out += [(1 - t) ** 2 * start + 2 * t * (1 - t) * corner + t * t * stop for t in (0, 0.33, 0.67, 1)]
    return Part(np.array(out), tone, edge)


def stroke(points, width, *, tone="base", edge=True) -> Part:
    """A line of `width` with round ends, as a polygon."""
    line = np.array(points, dtype=float)
    steps = np.gradient(line, axis=0)
    normal = np.stack([-steps[:, 1], steps[:, 0]], 1) / np.linalg.norm(steps, axis=1, keepdims=True) * width / 2
    first, last = steps[0] / np.linalg.norm(steps[0]), steps[-1] / np.linalg.norm(steps[-1])
    cap = width / 2

    def end(point, side, ahead):
        return [point + (side + ahead) * 0.72, point + ahead, point + (-side + ahead) * 0.72]

    outline = [*(line + normal), *end(line[-1], normal[-1], last * cap),
               *(line - normal)[::-1], *end(line[0], -normal[0], -first * cap)]
    return Part(np.array(outline), tone, edge)


def curve(*points) -> list[tuple[float, float]]:
    return _catmull_rom([points[0], *points, points[-1]]) + [points[-1]]


def arc(x, y, rx, ry, start, stop, *, n=12, tilt=0.0) -> list[tuple[float, float]]:
    """Points on an ellipse from `start` to `stop` degrees, clockwise from the right; `tilt` turns the ellipse."""
    angle, turn = np.deg2rad(np.linspace(start, stop, n)), np.deg2rad(tilt)
    u, v = rx * np.cos(angle), ry * np.sin(angle)
    return list(zip(x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn), strict=True))


def grow(points: np.ndarray, by: float) -> np.ndarray:
    """Push each corner of a closed polygon [n,2] outwards by `by` (mitred, the mitre limited to twice that)."""
    edges = np.roll(points, -1, 0) - points
    area = np.sum(points[:, 0] * np.roll(points[:, 1], -1) - np.roll(points[:, 0], -1) * points[:, 1])
    outward = np.stack([edges[:, 1], -edges[:, 0]], 1) * np.sign(area)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
    mitre = outward + np.roll(outward, 1, 0)
    return points + by * mitre / np.maximum(0.5 * np.sum(mitre * mitre, axis=1, keepdims=True), 0.5)


def _catmull_rom(points, steps=5):
    out = []
    for a, b, c, d in zip(points, points[1:], points[2:], points[3:], strict=False):
        a, b, c, d = map(np.asarray, (a, b, c, d))
        for t in np.arange(steps) / steps:
            point = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
            out.append(tuple(point))
    return out


def mirrored(*parts: Part) -> list[Part]:
    """The parts and their mirror images about x = 0.5."""
    return [*parts, *(Part(part.points * (-1, 1) + (1, 0), part.tone, part.edge) for part in parts)]
