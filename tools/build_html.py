"""How is the HTML built? Strictly, from committed outputs: a warning, a missing alt text or a dead link is an error.

    python tools/build_html.py                              from the notebooks in book/
    python tools/build_html.py --notebooks _build/executed  from those in another folder; book/ stays as it is

The book is then at _build/html/index.html.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import chapters
from check_html import faults


def assemble(notebooks: Path, target: Path, root: Path = chapters.ROOT) -> Path:
    """A copy of what Jupyter Book reads, at ``target``, with these notebooks in the place of the committed ones."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book", ignore=shutil.ignore_patterns(".*"))
    shutil.copytree(root / "tools", target / "tools", ignore=shutil.ignore_patterns("__pycache__"))  # local extensions
    shutil.copy(root / "_config.yml", target)
    names = [text.stem for text in chapters.texts(root)]
    for name in names:
        shutil.copy(notebooks / f"{name}.ipynb", target / "book")
    (target / "_toc.yml").write_text(chapters.table_of_contents(names), encoding="utf-8")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", type=Path, help="executed notebooks; default: those in book/")
    options = parser.parse_args()
    output = chapters.ROOT / "_build"
    source = assemble(options.notebooks, output / "source") if options.notebooks else chapters.ROOT
    site = output / "html"
    shutil.rmtree(site, ignore_errors=True)  # pages of chapters that are gone would stay
    program = str(Path(sys.executable).with_name("jupyter-book"))
    strictly = ["--path-output", str(chapters.ROOT), "--all", "-W", "-n", "--keep-going", "-q"]
    if subprocess.run([program, "build", str(source), *strictly], cwd=chapters.ROOT).returncode:
        sys.exit("build_html: error: the build has warnings (above); each names its file and line")
    if found := faults(site):
        sys.exit("build_html: error: faults in the built pages\n" + "\n".join(found))
    print(f"the book: {site / 'index.html'}")


if __name__ == "__main__":
    main()
