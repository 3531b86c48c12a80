"""Do the commands that README and CONTRIBUTING name exist?"""

import re
import subprocess
import sys

import pytest

import chapters

MAKEFILE = (chapters.ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.M))
PAGES = ["README.md", "CONTRIBUTING.md", "book/index.md", "data/README.md"]
ALWAYS = {"setup", "book", "test", "portable", "html", "demo", "lint", "bench", "chapters"}


def test_makefile_has_the_promised_commands():
    assert ALWAYS <= TARGETS


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_exist(page):
    text = (chapters.ROOT / page).read_text(encoding="utf-8")
    shell = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, flags=re.M | re.S) + re.findall(r"`([^`\n]+)`", text))
    assert set(re.findall(r"^\s*make ([a-z]+)", shell, flags=re.M)) <= TARGETS
    for script in re.findall(r"python3? ((?:tools|experiments|stress|benchmarks)/\S+\.py)", shell):
        assert (chapters.ROOT / script).exists(), script
    known = set(subcommands())
    assert set(re.findall(r"^\s*(?:\S+=\S+ )*prunecap ([a-z]+)", shell, flags=re.M)) <= known


def subcommands():
    from prunecap_lib import cli
    return cli.COMMANDS


def test_readme_starts_with_the_two_commands():
    first = re.search(r"^```bash\n(.*?)^```", (chapters.ROOT / "README.md").read_text(), flags=re.M | re.S)
    assert re.findall(r"^make (\w+)", first.group(1), flags=re.M) == ["book", "test"]


def test_pictures_of_the_readme_exist():
    text = (chapters.ROOT / "README.md").read_text(encoding="utf-8")
    for alt, path in re.findall(r"!\[(.*?)\]\((.*?)\)", text):
        assert alt and (chapters.ROOT / path).exists(), path


@pytest.mark.parametrize("tool", ["run_chapters.py"])
def test_an_unknown_chapter_is_named(tool):
    done = subprocess.run([sys.executable, f"tools/{tool}", "77_nothing"], cwd=chapters.ROOT, capture_output=True,
                          text=True)
    assert done.returncode and "there is no chapters/77_nothing.md" in done.stderr
