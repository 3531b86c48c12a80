"""Is the library built in layers, in small files, and free of what belongs to one machine?"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import draw_house
from draw_house import LIBRARY, ROOT, imported, module_name, room

# Each may import what stands before it. A package counts as one; within it files may import each other. Sub-packages
# of ``draw_house.APART`` have a place of their own.
ORDER = ("errors", "ranges", "reading", "files", "provenance", "devices", "distributed", "text", "bytepairs", "masks",
         "tokens", "preprocessing", "attention", "pruning", "encoders", "decoder", "decoding",
         "checkpoint", "captioner", "costs", "datasets", "features", "evaluation", "exercises", "reports", "training",
         "costs.forecast", "attention_maps", "plotting", "cli")
MODULES = sorted(LIBRARY.rglob("*.py"))
MOST_LINES = 400


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_lead_upwards_only(path):
    here = module_name(path)
    if here in (["__init__"], ["__main__"]):
        return  # the front doors: one names everything, late; one calls the command line
    assert room(here) in ORDER, f"{room(here)} has no place in ORDER"
    below = set(ORDER[ORDER.index(room(here)):])
    assert not imported(path.read_text(encoding="utf-8"), here, set(ORDER)) & below


def both(module: Path) -> tuple[Path, Path]:
    """Where a module may be: a file, or a package."""
    return module.with_suffix(".py"), module / "__init__.py"


def files_imported(path: Path) -> set[Path]:
    """Files of the library that a file imports: what stands in functions and what is for types included."""
    package, found = module_name(path)[:-1], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = LIBRARY.joinpath(*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            for module in (base / alias.name for alias in node.names):
                files = (*both(module), *both(base))
                found.add(next(file for file in files if file.exists()))
    return found - {path, LIBRARY / "__init__.py"}


def test_no_file_imports_itself_in_a_circle():
    left = {path: files_imported(path) & set(MODULES) for path in MODULES}
    while free := [path for path, needs in left.items() if not needs & left.keys()]:
        for path in free:
            del left[path]
    assert not left, f"a circle among {sorted(str(path.relative_to(LIBRARY)) for path in left)}"


def reason_of_late_imports(source: str) -> str | None:
    """What is said of the first import of the library in a function, beside it or above: "late: why". The others of a
    file are late for the same reason, or say another; "" where no function imports, None where nothing is said."""
    late = [node.lineno for function in ast.walk(ast.parse(source)) if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function) if isinstance(node, ast.ImportFrom) and node.level]
    if not late:
        return ""
    said = re.search(r"# late: (.+)", "\n".join(source.splitlines()[max(0, min(late) - 3) : min(late)]))
    return said and said[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_late_imports_say_which_start_up_they_save(path):
    assert reason_of_late_imports(path.read_text(encoding="utf-8")) is not None


def test_the_check_of_late_imports_finds_one():
    assert reason_of_late_imports("def f():\n    from ..costs import x\n    from ..text import y  # late: why") is None
    assert reason_of_late_imports("def f():\n    # late: torch takes seconds\n    from ..costs import x")
    assert reason_of_late_imports("from ..costs import x\ndef f():\n    import timm") == ""


def test_the_import_check_reads_every_form():
    forms = {"from .text import PAD": {"text"}, "from . import checkpoint": {"checkpoint"},
             "from .encoders.vit import VisionTransformer": {"encoders"}, "import prunecap_lib.costs": {"costs"},
             "from .costs import forecast, ledger": {"costs", "costs.forecast"},
             "from prunecap_lib.plotting import style": {"plotting"}, "from prunecap_lib import cli": {"cli"},
             "def f():\n    from .training import train": {"training"}, "import torch": set(),
             "from torch import text": set(),
             "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .cli import main": {"cli"}}
    for source, found in forms.items():
        assert imported(source, ["masks"], set(ORDER)) == found, source
    assert imported("from ..text import PAD\nfrom .base import x\nfrom .. import cli", ["encoders", "vit"],
                    set(ORDER)) == {"text", "cli"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_answer(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert ast.get_docstring(ast.parse(text)), "the first line should say what question the file answers"


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_speaks_of_one_machine():
    paths = re.compile(r"/(?:home|Users|work|root)/[a-z]|/tmp/bash")
    texts = {".py", ".md", ".yml", ".yaml", ".toml", ".cfg", ".txt", ".json", ".jsonl", ".ipynb", ".cff", ".css", ".js"}
    found = [str(path.relative_to(ROOT)) for path in tracked()
             if path.suffix in texts and path != Path(__file__) and "mathjax" not in path.parts and path.exists()
             and paths.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_every_public_module_is_on_the_api_page():
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"automodule:: prunecap_lib\.(\w+)", page))
    present = {module_name(path)[0] for path in MODULES} - {"__init__", "__main__", "cli"}
    assert present <= listed, f"book/api.md lacks {sorted(present - listed)}"


def test_requirements_are_pinned():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.match(r"[\w.-]+==[\w.]+(; python_version [^#]+)?( +#.*)?$", line) for line in lines)
    versions = {line.split("==")[0]: line for line in lines}
    needed = ["torch", "timm", "jupyter-book", "jupytext", "matplotlib", "pycocotools", "nbval", "pycocoevalcap"]
    assert set(needed) <= versions.keys()


def test_the_drawing_of_the_house_is_current():
    assert draw_house.DRAWING.read_text(encoding="utf-8") == draw_house.draw(), "run tools/draw_house.py"


def test_a_drawing_says_what_is_wrong():
    assert draw_house.floors({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == [["b"], ["a"], ["c"]]
    assert draw_house.direct({"a": {"b"}, "b": set(), "c": {"a", "b"}})["c"] == {"a"}
    with pytest.raises(SystemExit, match="a circle among a, b"):
        draw_house.floors({"a": {"b"}, "b": {"a"}})
