"""The plan of the library as a drawing, made from its imports: CONTRIBUTING.md shows it.

    python tools/draw_house.py            write book/images/house.svg
    python tools/draw_house.py --check    exit 1 where that is not the plan as it stands

A box is a room: a module or a package of the first level, or one of ``APART``. It stands one floor above the highest of
those it imports, and a line leads down to each of them that is not reached through another. Nearly all import
``errors``: those lines are left out.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Collection
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APART = ("costs.forecast",)  # sub-packages that are rooms of their own
LIBRARY, DRAWING = ROOT / "prunecap_lib", ROOT / "book" / "images" / "house.svg"
WIDTH, GAP, FLOOR_GAP, LINE, MARGIN = 196, 14, 34, 13, 20  # pixels
STYLE = """
  svg { background: #fff; font: 11px system-ui, sans-serif }
  rect { fill: #f4f7fb; stroke: #5b7fa6 } text { fill: #333 } .name { font: bold 13px ui-monospace, monospace }
  path { fill: none; stroke: #a9bacb }
  @media (prefers-color-scheme: dark) {
    svg { background: #16191d } rect { fill: #222a33; stroke: #7fa3c7 } text { fill: #ddd } path { stroke: #50606f }
  }"""


def room(module: list[str]) -> str:
    """What a module belongs to: ['encoders', 'vit'] -> 'encoders'."""
    return ".".join(module[:2]) if ".".join(module[:2]) in APART else module[0]


def module_name(path: Path) -> list[str]:
    """Where a file stands: prunecap_lib/encoders/vit.py -> ['encoders', 'vit']."""
    return list(path.relative_to(LIBRARY).with_suffix("").parts)


def rooms() -> dict[str, list[Path]]:
    """All rooms by name, with their files; without the front doors."""
    found: dict[str, list[Path]] = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        if not (name := room(module_name(path))).startswith("__"):
            found.setdefault(name, []).append(path)
    return found


def imported(source: str, here: list[str], siblings: Collection[str]) -> set[str]:
    """Rooms of the library that a file imports, late imports and those for types included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {room(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("prunecap_lib.")}
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            if node.level:  # 'from ..text import x' in encoders/vit.py: two dots lead from ['encoders', 'vit'] to []
                parts = here[: len(here) - node.level] + parts
            elif parts[0] != "prunecap_lib":
                continue
            else:
                parts = parts[1:]
            found |= {room([*parts, alias.name]) for alias in node.names if parts or alias.name in siblings}
    return found - {room(here)}


def plan() -> tuple[dict[str, list[Path]], dict[str, set[str]]]:
    """The rooms, and for each one the rooms that it imports."""
    files = rooms()
    return files, {name: {need for path in paths for need in imported(path.read_text(encoding="utf-8"),
                                                                      module_name(path), files) if need in files}
                   for name, paths in files.items()}


def floors(needs: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by floor, the ground floor first."""
    level: dict[str, int] = {}
    while left := sorted(needs.keys() - level.keys()):
        ready = [name for name in left if needs[name] <= level.keys()]
        if not ready:
            raise SystemExit(f"a circle among {', '.join(left)}")
        level |= {name: 1 + max((level[need] for need in needs[name]), default=-1) for name in ready}
    return [sorted(name for name in level if level[name] == floor) for floor in range(max(level.values()) + 1)]


def direct(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """What each room imports and does not reach through another that it imports."""
    reach: dict[str, set[str]] = {}
    for floor in floors(needs):
        for name in floor:
            reach[name] = needs[name].union(*(reach[need] for need in needs[name]))
    return {name: {need for need in found if not any(need in reach[other] for other in found)}
            for name, found in needs.items()}


def lines_of(name: str, paths: list[Path]) -> list[str]:
    """What stands in a box: the files of a package; what a module says of itself."""
    if len(paths) == 1:
        said = ast.get_docstring(ast.parse(paths[0].read_text(encoding="utf-8"))) or ""
        end = min((i for i in (said.find("? "), said.find(". "), said.find("\n\n")) if i >= 0), default=len(said))
        return textwrap.wrap(said[: end + 1], 30)
    inside: dict[str, list[str]] = {}  # of each sub-package its files; a file has none
    for path in paths:
        first, *rest = path.relative_to(LIBRARY.joinpath(*name.split("."))).with_suffix("").parts
        inside.setdefault(first, []).extend(part for part in rest[-1:] if part != "__init__")
    del inside["__init__"]
    return textwrap.wrap(", ".join(first + f"/ ({', '.join(rest)})" * bool(rest) for first, rest in inside.items()), 30)


def draw() -> str:
    """The drawing, the command line at the top."""
    files, needs = plan()
    storeys, near = floors(needs), direct(needs)
    place: dict[str, float] = {}  # of each room in its row; a room stands over the middle of what it needs
    for storey in storeys:
        storey.sort(key=lambda name: sum(place[need] for need in near[name]) / max(1, len(near[name])))
        place |= {name: i - (len(storey) - 1) / 2 for i, name in enumerate(storey)}
    text = {name: lines_of(name, paths) for name, paths in files.items()}
    wide = max(map(len, storeys)) * (WIDTH + GAP) - GAP + 2 * MARGIN
    boxes: dict[str, tuple[float, float, float]] = {}
    y = float(MARGIN)
    for storey in reversed(storeys):
        height = max(24 + LINE * len(text[name]) for name in storey)
        for name in storey:
            boxes[name] = (wide / 2 + place[name] * (WIDTH + GAP) - WIDTH / 2, y, 24 + LINE * len(text[name]))
        y += height + FLOOR_GAP
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {y - FLOOR_GAP + MARGIN:.0f}" role="img">',
           "<title>The rooms of prunecap_lib; each imports only rooms below it</title>", f"<style>{STYLE}\n</style>"]
    for name, found in sorted(near.items()):
        x, top, height = boxes[name]
        for need in sorted(found - {"errors"}):
            to, end, _ = boxes[need]
            start, bend = top + height, (end - top - height) / 2
            out.append(f'<path d="M{x + WIDTH / 2:.0f} {start:.0f}c0 {bend:.0f} {to - x:.0f} {bend:.0f} '
                       f'{to - x:.0f} {2 * bend:.0f}"/>')
    for name, (x, top, height) in boxes.items():
        title = name.replace(".", "/") + "/" * (len(files[name]) > 1)
        out += [f'<rect x="{x:.0f}" y="{top:.0f}" width="{WIDTH}" height="{height:.0f}" rx="5"/>',
                f'<text class="name" x="{x + 8:.0f}" y="{top + 16:.0f}">{escape(title)}</text>']
        out += [f'<text x="{x + 8:.0f}" y="{top + 16 + LINE * (i + 1):.0f}">{escape(line)}</text>'
                for i, line in enumerate(text[name])]
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the drawing is not current")
    drawing = draw()
    if not parser.parse_args().check:
        DRAWING.write_text(drawing, encoding="utf-8")
    elif not DRAWING.exists() or DRAWING.read_text(encoding="utf-8") != drawing:
        sys.exit(f"{DRAWING.relative_to(ROOT)} is not the library's plan as it stands: run tools/draw_house.py")


if __name__ == "__main__":
    main()
