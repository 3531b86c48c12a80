"""Does a reader's build leave everything that is committed as it is?"""

import subprocess

import nbformat
import pytest

import build_html
import chapters
import run_chapters

TEXT = """---
kernelspec:
  display_name: Python 3
  name: python3
---

# 99 · A chapter

```{code-cell} ipython3
print("new")
```
"""


@pytest.fixture
def course(tmp_path):
    """A committed course of one chapter, whose notebook was executed before its text changed."""
    root = tmp_path / "course"
    for folder in ("chapters", "book", "tools"):
        (root / folder).mkdir(parents=True)
    (root / "chapters" / "99_a_chapter.md").write_text(TEXT)
    old = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('old')")], metadata=chapters.METADATA)
    nbformat.write(old, root / "book" / "99_a_chapter.ipynb")
    (root / "book" / "index.md").write_text("# Front\n")
    (root / "_config.yml").write_text("title: x\n")
    (root / "_toc.yml").write_text("old\n")
    (root / ".gitignore").write_text("_build/\n")
    git(root, "init", "--quiet"), git(root, "add", "."), git(root, "commit", "--quiet", "-m", "x")
    return root


def git(root, *arguments):
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_a_readers_build_reads_fresh_copies_and_leaves_the_tree_clean(course):
    executed = course / "_build" / "executed"
    assert run_chapters.execute(chapters.texts(course), executed) == []
    source = build_html.assemble(executed, course / "_build" / "source", course)
    assert git(course, "status", "--porcelain") == ""
    shown = nbformat.read(source / "book" / "99_a_chapter.ipynb", as_version=4)
    assert shown.cells[-1].outputs[0].text == "new\n"
    assert (source / "book" / "index.md").exists() and (source / "_config.yml").exists()
    assert "book/99_a_chapter" in (source / "_toc.yml").read_text()
    run_chapters.execute(chapters.texts(course))  # an author's
    assert git(course, "status", "--porcelain").split() == ["M", "_toc.yml", "M", "book/99_a_chapter.ipynb"]


def test_make_book_is_the_readers_build():
    dry = ["make", "--no-print-directory", "-n", "book", "READY="]
    told = subprocess.check_output(dry, cwd=chapters.ROOT, text=True)
    run, build = told.splitlines()[-2:]
    assert run.endswith("run_chapters.py --out _build/executed")
    assert build.endswith("build_html.py --notebooks _build/executed")
