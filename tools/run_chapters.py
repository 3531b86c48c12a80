"""How does a chapter's text become the notebook that the book shows? Convert, run from the top, reduce, write.

    python tools/run_chapters.py                      every chapter
    python tools/run_chapters.py 05_vit 09_generation these
    python tools/run_chapters.py --jobs 1 --out /tmp/again

Always text -> notebook. Two runs write the same bytes, figures included, so a difference in `git diff` is a
difference in what the code does. Also brings _toc.yml up to date. Only authors write into book/: a reader's build
(`make book`) writes elsewhere with --out, and then neither book/ nor _toc.yml changes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chapters
from prunecap_lib.errors import InputError
from prunecap_lib.files import Kind, check_output_folder

SECONDS_A_CELL = 300


def are_copies(folder: Path) -> bool:
    """Are all notebooks in a folder chapters that ``run`` has written there?"""
    found = list(folder.glob("*.ipynb"))
    return bool(found) and all(
        json.loads(path.read_text(encoding="utf-8"))["cells"][0]["id"] == f"{path.name[:2]}-000" for path in found)


COPIES = Kind("folder of executed chapters", are_copies)


def run(text: Path, target: Path, folder: Path) -> float:
    """Execute one chapter with ``folder`` as the kernel's, write its notebook; returns seconds.

    Raises nbclient's CellExecutionError, which shows the cell and its traceback; the old notebook then stays.
    """
    import nbformat
    from nbclient import NotebookClient
    started = time.perf_counter()
    notebook = chapters.read_text(text)
    NotebookClient(notebook, timeout=SECONDS_A_CELL, kernel_name="python3", record_timing=False,
                   coalesce_streams=True, extra_arguments=["--IPKernelApp.log_level=40"],
                   resources={"metadata": {"path": str(folder)}}).execute(env=environment())
    reduce(notebook, text.stem)
    target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return time.perf_counter() - started


def environment() -> dict[str, str]:
    """The kernels' environment. Without MPLBACKEND a kernel shows figures in the notebook."""
    return ({key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
            | chapters.ENVIRONMENT | chapters.ONE_THREAD | chapters.SSE4)


def reduce(notebook, name: str) -> None:
    """Leave nothing that differs between two runs or two machines; number cells and counts by position."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata.clear()
    notebook.metadata.update(chapters.METADATA)
    count = 0
    for position, cell in enumerate(notebook.cells):
        cell.id = f"{name[:2]}-{position:03d}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")}
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count


def write_toc(root: Path = chapters.ROOT) -> None:
    names = [path.stem for path in chapters.notebooks(root)]
    (root / "_toc.yml").write_text(chapters.table_of_contents(names), encoding="utf-8")


def choose(names: list[str]) -> list[Path]:
    """The texts named (a path or an ending such as .md may stay on); all without names."""
    found = {path.stem: path for path in chapters.texts()}
    wanted = [Path(name).stem for name in names] or list(found)
    for name in wanted:
        if name not in found:
            sys.exit(f"run_chapters: error: there is no chapters/{name}.md; the chapters are: {', '.join(found)}")
    return [found[name] for name in wanted]


def execute(texts: list[Path], out: Path | None = None, jobs: int = 1) -> list[str]:
    """Run these chapters into ``out``, or as an author into book/, with _toc.yml; returns one text a failure."""
    if out:
        out.mkdir(parents=True, exist_ok=True)

    def attempt(text: Path) -> str | None:
        book = chapters.notebook_of(text)
        try:
            seconds = run(text, out / book.name if out else book, book.parent)
        except Exception as error:  # one broken chapter does not stop the others
            print(f"{text.stem:32} FAILED", flush=True)
            return f"\n=== {text.stem}\n{error}"
        print(f"{text.stem:32} {seconds:5.1f} s", flush=True)
        return None

    with ThreadPoolExecutor(jobs) as pool:
        failures = [failure for failure in pool.map(attempt, texts) if failure]
    if not out:
        write_toc(texts[0].parent.parent)
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="chapters, by name; default: all")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="chapters run at once")
    parser.add_argument("--out", type=Path, help="write the notebooks here instead of book/")
    options = parser.parse_args()
    try:
        if options.out:
            check_output_folder(options.out, COPIES)
    except InputError as error:
        sys.exit(f"run_chapters: error: {error}")
    if failures := execute(choose(options.names), options.out, options.jobs):
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
