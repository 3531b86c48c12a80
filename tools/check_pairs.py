"""Does each notebook in book/ say what its text in chapters/ says, run to its end, fit to be compared by nbval?

    python tools/check_pairs.py

Prints each fault with its chapter and cell, and the remedy; exit status 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import chapters

MOST_IGNORED = 2  # cells a chapter may take out of the comparison
IGNORING = {"nbval-ignore-output", "nbval-skip"}
# What differs from run to run or from machine to machine.
UNSTABLE = {r"\bat 0x[0-9a-f]{6,}": "an object's address", r"/site-packages/|/home/\w|/tmp/": "a path of one machine",
            r"\d+%\|": "a progress bar"}


def faults(root: Path = chapters.ROOT) -> list[str]:
    """Every fault of every pair, one sentence each."""
    texts = {path.stem: path for path in chapters.texts(root)}
    books = {path.stem: path for path in chapters.notebooks(root)}
    found = [f"{name}: no notebook in book/; run make chapters CHAPTERS={name}" for name in texts.keys() - books.keys()]
    found += [f"{name}: no text in chapters/; remove the notebook or write the text"
              for name in books.keys() - texts.keys()]
    for name in sorted(texts.keys() & books.keys()):
        found += pair_faults(texts[name], books[name])
    return sorted(found)


def pair_faults(text: Path, book: Path) -> list[str]:
    import nbformat
    name, notebook = text.stem, nbformat.read(book, as_version=4)
    written, shown = ([as_written(cell) for cell in source.cells] for source in (chapters.read_text(text), notebook))
    rerun = f"run make chapters CHAPTERS={name}"
    if written != shown:
        first = next((i for i, pair in enumerate(zip(written, shown, strict=False)) if pair[0] != pair[1]),
                     min(len(written), len(shown)))
        return [f"{name}: text and notebook differ from cell {first} on ({excerpt(written, first)} against "
                f"{excerpt(shown, first)}); edit the text, then {rerun}"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append(f"{name}: the code cells are not numbered 1 to {len(code)}: nbval skips those without; {rerun}")
    if code and not any(cell.outputs for cell in code):
        found.append(f"{name}: no cell has an output; {rerun}")
    ignored = sum(bool(IGNORING & set(cell.metadata.get("tags", ()))) for cell in code)
    if ignored > MOST_IGNORED:
        found.append(f"{name}: nbval ignores {ignored} cells, at most {MOST_IGNORED} may be; print rounded numbers")
    for cell in code:
        found += [f"{name}, cell [{cell.execution_count}]: {fault}" for fault in cell_faults(cell)]
    return found


def as_written(cell) -> tuple:
    """What a person wrote in a cell: kind, source, and the metadata that both files keep."""
    return cell.cell_type, cell.source.rstrip(), cell.metadata.get("tags", []), cell.metadata.get("mystnb", {})


def excerpt(cells: list[tuple], i: int) -> str:
    return repr(cells[i][1][:50]) if i < len(cells) else "nothing"


def cell_faults(cell) -> list[str]:
    """Faults of an executed code cell's outputs."""
    found, tags = [], cell.metadata.get("tags", [])
    if any("nbval" not in tag and tag not in KNOWN_TAGS for tag in tags):
        found.append(f"unknown tag among {tags}; known are {', '.join(sorted(KNOWN_TAGS))}")
    for output in cell.outputs:
        if output.output_type == "error" and "raises-exception" not in tags:
            found.append(f"ends in {output.ename}; mend the code")
        if output.output_type == "stream" and output.name == "stderr":
            found.append(f"writes to stderr ({output.text.strip()[:60]!r}); silence its cause")
        data = output.get("data", {})
        shown = output.get("text", "") + "".join(str(data[kind]) for kind in data if kind.startswith("text/"))
        found += [f"shows {what}; print something that stays the same" for pattern, what in UNSTABLE.items()
                  if re.search(pattern, shown)]
        if is_picture(output) and not alt_text(cell, output):
            found.append("a figure without alt text; give the cell `mystnb: {image: {alt: ...}}`")
    return found


KNOWN_TAGS = {"hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell",
              "raises-exception", "full-width", "margin"}


def is_picture(output) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def alt_text(cell, output) -> str:
    """The figure's alt text: the output's own (computed), or else the cell's."""
    own = [kept.get("alt", "") for kind, kept in output.get("metadata", {}).items() if kind.startswith("image/")]
    return (next(filter(None, own), "") or cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")).strip()


def main() -> None:
    found = faults()
    print(*found, sep="\n") if found else print(f"{len(chapters.texts())} pairs of text and notebook agree")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
