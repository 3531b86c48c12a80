"""How is the HTML built? Strictly, from committed outputs: a warning, a missing alt text or a dead link is an error.

    python tools/build_html.py        the book is then at _build/html/index.html
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import chapters
from check_html import faults


def main() -> None:
    site = chapters.ROOT / "_build" / "html"
    shutil.rmtree(site, ignore_errors=True)  # pages of chapters that are gone would stay
    program = str(Path(sys.executable).with_name("jupyter-book"))
    strictly = ["--all", "-W", "-n", "--keep-going", "-q"]
    if subprocess.run([program, "build", ".", *strictly], cwd=chapters.ROOT).returncode:
        sys.exit("build_html: error: the build has warnings (above); each names its file and line")
    if found := faults(site):
        sys.exit("build_html: error: faults in the built pages\n" + "\n".join(found))
    print(f"the book: {site / 'index.html'}")


if __name__ == "__main__":
    main()
