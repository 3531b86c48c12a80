"""Do the exercises' checks tell right from wrong? After a chapter's last cell its kernel tries answers on them.

tests/exercises/NN.py has the answers for chapter NN; it runs where the chapter ends, so the chapter's names are there.
A plugin of pytest (conftest.py names it).
"""

from __future__ import annotations

from collections import defaultdict

import nbformat
from nbval.plugin import IPyNbCell

from chapters import ROOT

ANSWERS = ROOT / "tests" / "exercises"


def pytest_collection_modifyitems(items: list) -> None:
    for notebook in dict.fromkeys(item.parent for item in items if isinstance(item, IPyNbCell)):
        cells = [item for item in items if item.parent is notebook]
        answers = ANSWERS / f"{notebook.path.stem[:2]}.py"
        if len(cells) == sum(cell.cell_type == "code" for cell in notebook.nb.cells) and answers.is_file():
            items.insert(items.index(cells[-1]) + 1, _cell(cells[-1], answers))


def _cell(last: IPyNbCell, answers) -> IPyNbCell:
    source = "\n".join(["import sys", f"sys.path.insert(0, {str(ANSWERS)!r})", "from hold import hold",
                        answers.read_text(encoding="utf-8")])
    cell = nbformat.v4.new_code_cell(source, execution_count=1)
    return type(last).from_parent(last.parent, name="exercises", cell_num=last.cell_num + 1, cell=cell,
                                  options=defaultdict(bool))
