"""Which chapters are there, and in which part of the book?

A chapter is a text, chapters/NN_name.md, and its executed pair, book/NN_name.ipynb.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = re.compile(r"\d\d_[a-z0-9_]+")

# The first number of the part that follows. A chapter joins its part by its number.
PARTS = {0: "Say what you see", 5: "Look", 8: "Tell", 11: "Prune", 15: "Train", 17: "Find out"}

# What every notebook says about itself. Fixed, so that two machines write the same bytes.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
# What every chapter and test runs under.
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "PYTHONHASHSEED": "0", "TQDM_DISABLE": "1",
               "TOKENIZERS_PARALLELISM": "false"}
# One thread: sums of floats then come in one order, and chapters can run beside each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# Chapters are written under the first arithmetic, which every x86-64 processor has: authors write the same bytes. They
# are tested under the second, which is faster: what hangs on a number's last bit is found before another machine
# finds it.
SSE4 = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}


def has_avx2(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this machine can be told to use AVX2; PyTorch would crash where it cannot."""
    return cpuinfo.exists() and re.search(r"\bavx2\b", cpuinfo.read_text()) is not None


def tested_under() -> dict[str, str]:
    """Another arithmetic than chapters are written under; where AVX2 is not to be had, whatever is."""
    return AVX2 if has_avx2() else {}


def texts(root: Path = ROOT) -> list[Path]:
    """The chapters' texts, in order."""
    return sorted(path for path in (root / "chapters").glob("*.md") if NAME.fullmatch(path.stem))


def notebooks(root: Path = ROOT) -> list[Path]:
    """The executed notebooks, in order."""
    return sorted(path for path in (root / "book").glob("*.ipynb") if NAME.fullmatch(path.stem))


def notebook_of(text: Path) -> Path:
    return text.parent.parent / "book" / f"{text.stem}.ipynb"


def read_text(text: Path):
    """A chapter's text as a notebook without outputs."""
    import jupytext
    return jupytext.reads(text.read_text(encoding="utf-8"), fmt="md:myst")


def part_of(name: str) -> str:
    """The part that a chapter's number belongs to: '12_pruned_cross_attention' -> 'Prune'."""
    return PARTS[max(first for first in PARTS if first <= int(name[:2]))]


def table_of_contents(names: list[str]) -> str:
    """The text of _toc.yml for these chapters: the front page, the parts, and the pages at the back."""
    lines = ["# Written by tools/run_chapters.py from the notebooks in book/. Parts are named in tools/chapters.py.",
             "format: jb-book", "root: book/index", "parts:"]
    for part in PARTS.values():
        inside = [name for name in sorted(names) if part_of(name) == part]
        if inside:
            lines += [f"  - caption: {part}", "    chapters:", *(f"      - file: book/{name}" for name in inside)]
    lines += ["  - caption: To look things up", "    chapters:",
              *(f"      - file: book/{page}" for page in ("glossary", "api", "references"))]
    return "\n".join(lines) + "\n"
