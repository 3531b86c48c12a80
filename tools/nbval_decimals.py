"""When does a chapter print what it printed before? When only decimal numbers differ, by one unit of their last digit.

Sums of floats come in another order on another processor, so 0.4149999 becomes 0.4150001, and a printed 0.41 becomes
0.42. That may be. Everything else is compared exactly: words, integers, signs, verdicts, spaces, how many digits a
number has after its point, and numbers that are part of a name, a version or a schedule (v1.2, 1.2.3, 0.5@3).

A plugin of pytest (conftest.py names it): it puts cells that compare so in the place of nbval's.
"""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

# Spaces before it, its sign, and the number: 0.41, 1,234.5, 1.5e-05; no part of a name, a version or a schedule.
DECIMAL = re.compile(r"( *)([-+−]?)(?<![\w.@])"
                     r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)\.[0-9]+(?:[eE][-+]?[0-9]+)?)(?!\.?\w|@)")


def agree(first: str, second: str) -> bool:
    """Whether two printed texts differ at most by one unit of the last printed digit of decimal numbers.

    A number that is a digit longer (10.00 for 9.99) may take the place of a space before it, as it does in a column.
    """
    ours, theirs = DECIMAL.split(first), DECIMAL.split(second)
    if len(ours) != len(theirs) or ours[::4] != theirs[::4]:  # the text between numbers
        return False
    return all(_close(ours[i:i + 3], theirs[i:i + 3]) for i in range(1, len(ours), 4))


def _close(first: list[str], second: list[str]) -> bool:
    (space, sign, number), (other_space, other_sign, other) = first, second
    if sign != other_sign or (space != other_space and len(space + number) != len(other_space + other)):
        return False
    value, other_value = (Decimal(text.replace(",", "")) for text in (number, other))
    unit = value.as_tuple().exponent
    return unit == other_value.as_tuple().exponent and abs(value - other_value) <= Decimal((0, (1,), unit))


class Printed(str):
    """A printed text that equals every text that agrees with it."""

    def __eq__(self, other):
        return isinstance(other, str) and agree(str(self), str(other))

    def __ne__(self, other):
        return not self == other


class Cell(IPyNbCell):
    """A chapter's cell. nbval masks times and the like in every text before it compares (sanitizes it)."""

    def sanitize(self, s):
        text = super().sanitize(s)
        return Printed(text) if isinstance(text, str) else text


class Notebook(IPyNbFile):
    def collect(self):
        for cell in super().collect():
            yield Cell.from_parent(self, name=cell.name, cell_num=cell.cell_num, cell=cell.cell, options=cell.options)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    found = yield
    return [Notebook.from_parent(parent, path=file_path) if type(node) is IPyNbFile else node for node in found]
