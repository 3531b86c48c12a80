"""Is the book built from notebooks that say what the texts say, and does the check notice where they do not?"""

import nbformat
import pytest

import check_pairs
import run_chapters

TEXT = '''---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# 99 · A chapter

```{code-cell} ipython3
---
mystnb:
  image:
    alt: "A line."
---
import matplotlib.pyplot as plt

plt.plot([1, 2])
plt.show()
```

```{code-cell} ipython3
:tags: [hide-input]
print(1 + 1)
```
'''


def test_every_pair_agrees():
    assert check_pairs.faults() == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A chapter that was run once: (root, text, notebook)."""
    root = tmp_path_factory.mktemp("course")
    (root / "chapters").mkdir(), (root / "book").mkdir()
    text, book = root / "chapters" / "99_a_chapter.md", root / "book" / "99_a_chapter.ipynb"
    text.write_text(TEXT)
    run_chapters.run(text, book, root / "book")
    return root, text, book


@pytest.mark.slow
def test_a_chapter_that_was_run_has_no_fault(executed):
    assert check_pairs.faults(executed[0]) == []


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(executed):
    root, text, book = executed
    again = root / "again.ipynb"
    run_chapters.run(text, again, root / "book")
    assert again.read_bytes() == book.read_bytes()
    notebook = nbformat.read(book, as_version=4)
    assert [cell.id for cell in notebook.cells] == ["99-000", "99-001", "99-002"]
    assert "image/png" in notebook.cells[1].outputs[0].data


def damaged(executed, tmp_path, damage):
    """Faults of a copy of the pair in which ``damage(notebook)`` changed something."""
    _, text, book = executed
    notebook = nbformat.read(book, as_version=4)
    damage(notebook)
    copy = tmp_path / book.name
    nbformat.write(notebook, copy)
    return check_pairs.pair_faults(text, copy)


def change_source(notebook):
    notebook.cells[2].source = "print(2)"


def add_cell(notebook):
    notebook.cells.append(nbformat.v4.new_markdown_cell("More."))


def strip_counts(notebook):
    notebook.cells[2].execution_count = None


def strip_outputs(notebook):
    for cell in notebook.cells[1:]:
        cell.outputs = []


def warn(notebook):
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", name="stderr", text="UserWarning: no")]


def show_address(notebook):
    notebook.cells[2].outputs[0].text = "<Model at 0x7f00deadbeef>"


def fail(notebook):
    notebook.cells[2].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])]


@pytest.mark.slow
@pytest.mark.parametrize("damage, said", [
    (change_source, "text and notebook differ from cell 2"), (add_cell, "differ from cell 3"),
    (strip_counts, "not numbered 1 to 2"), (strip_outputs, "no cell has an output"), (warn, "stderr"),
    (show_address, "an object's address"), (fail, "ends in ValueError")])
def test_damage_is_named(executed, tmp_path, damage, said):
    faults = damaged(executed, tmp_path, damage)
    assert len(faults) == 1 and said in faults[0]


def cell_with(source="1", tags=(), mystnb=None, outputs=()):
    metadata = {"tags": list(tags), **({"mystnb": mystnb} if mystnb else {})}
    return nbformat.v4.new_code_cell(source, metadata=metadata, outputs=list(outputs), execution_count=1)


def test_a_figure_needs_alt_text():
    figure = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})
    assert "without alt text" in check_pairs.cell_faults(cell_with(outputs=[figure]))[0]
    assert not check_pairs.cell_faults(cell_with(outputs=[figure], mystnb={"image": {"alt": "A line."}}))
    computed = nbformat.v4.new_output("display_data", data={"image/png": "AAAA"},
                                      metadata={"image/png": {"alt": "A line."}})
    assert not check_pairs.cell_faults(cell_with(outputs=[computed]))


def test_few_cells_may_be_ignored(tmp_path):
    cells = ['```{code-cell} ipython3\n:tags: [nbval-ignore-output]\nprint(1)\n```\n'] * 3
    text = tmp_path / "99_x.md"
    text.write_text("\n".join(["---\nkernelspec:\n  display_name: Python 3\n  name: python3\n---\n", *cells]))
    notebook = check_pairs.chapters.read_text(text)
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    nbformat.write(notebook, tmp_path / "99_x.ipynb")
    assert "nbval ignores 3 cells" in check_pairs.pair_faults(text, tmp_path / "99_x.ipynb")[0]


def test_a_text_or_notebook_alone_is_named(tmp_path):
    (tmp_path / "chapters").mkdir(), (tmp_path / "book").mkdir()
    (tmp_path / "chapters" / "01_text.md").write_text(TEXT)
    (tmp_path / "book" / "02_book.ipynb").write_text("{}")
    faults = check_pairs.faults(tmp_path)
    assert "01_text: no notebook" in faults[0] and "02_book: no text" in faults[1]
