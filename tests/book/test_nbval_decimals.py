"""Are printed decimals compared to a unit of their last digit, and is everything else compared exactly?"""

import nbformat
import pytest

import chapters
from nbval_decimals import agree


@pytest.mark.parametrize("first, second", [
    ("0.41", "0.42"), ("mean -0.41", "mean -0.40"), ("41.3%", "41.2%"), ("1,234.5", "1,234.4"), ("1.5e-05", "1.6e-05"),
    ("9.99", "10.00"), ("1,999.99 words", "2,000.00 words"), ("a  9.99 b", "a 10.00 b"),  # a column keeps its width
    ("[0.4100,0.4200]", "[0.4101,0.4199]"), ("0.41.", "0.42."), ("<td>0.41</td>", "<td>0.42</td>"), ("d=0.4", "d=0.5"),
    ("CIDEr 0.41 ± 0.02\nBLEU 0.30", "CIDEr 0.40 ± 0.03\nBLEU 0.30"), ("0.8-0.9", "0.8-1.0"), ("12.0", "11.9"),
])
def test_one_unit_of_the_last_digit_is_let_pass(first, second):
    assert agree(first, second) and agree(second, first)


@pytest.mark.parametrize("first, second", [
    ("0.41", "0.43"), ("9.98", "10.00"), ("0.41 0.41", "0.42 0.43"), ("1.5e-05", "1.7e-05"), ("1.5e-05", "1.5e-06"),
    ("12", "13"), ("41%", "42%"), ("12", "12.0"), ("3 of 0.41", "4 of 0.41"), ("1,234", "1,235"),  # integers
    ("0.41", "0.410"), ("0.4", "0.41"), ("0.9", "0.90"),  # another number of digits
    ("-0.01", "0.01"), ("-0.01", "0.00"), ("-0.00", "0.00"), ("+0.01", "-0.00"), ("−0.01", "0.00"),  # signs
    ("vit wins, 0.41", "convnext wins, 0.41"), ("0.41 holds", "0.41 fails"), ("True", "False"),  # words
    ("0.41", "nan"),
    ("0.41 0.41", "0.41"), ("0.41", "0.41 "), (" 0.41", "0.41"), (" 9.99", " 10.00 "), ("a 0.41", "a0.41"),
    ("v1.2", "v1.3"), ("1.2.3", "1.2.4"), ("1.2.3", "1.3.3"), ("2.2.3", "1.2.3"), ("top_0.5", "top_0.6"),  # names
    ("0.5@3/norm", "0.6@3/norm"), ("50.5@3", "50.6@3"), ("1.5x", "1.6x"), ("run0.41.json", "run0.42.json"),
    ("0.41.json", "0.42.json"), (".41", ".42"), ("41.", "42."), ("٤.١", "٤.٢"),
])
def test_nothing_else_is(first, second):
    assert not agree(first, second) and not agree(second, first)


PRINTED = {  # what a cell prints, what it printed before -> is it the same?
    ("0.42", "0.41"): True, ("0.43", "0.41"): False, ("13", "12"): False, ("took 3.2 s: 0.3", "took 5 s: 0.4"): True,
}


@pytest.mark.slow
def test_cells_are_compared_so(pytester, monkeypatch):
    """Through nbval, with a kernel; a measured time is masked first."""
    monkeypatch.syspath_prepend(str(chapters.ROOT / "tools"))
    shown = [nbformat.v4.new_code_cell(f"print({new!r})", execution_count=1, outputs=[
        nbformat.v4.new_output("stream", name="stdout", text=old + "\n")]) for new, old in PRINTED]
    shown.append(nbformat.v4.new_code_cell("from IPython.display import HTML\nHTML('<b>0.42</b>')", execution_count=2,
                                           outputs=[nbformat.v4.new_output("execute_result", execution_count=2, data={
                                               "text/html": "<b>0.41</b>",
                                               "text/plain": "<IPython.core.display.HTML object>"})]))
    nbformat.write(nbformat.v4.new_notebook(cells=shown), pytester.path / "chapter.ipynb")
    done = pytester.runpytest_inprocess("--nbval", "--nbval-current-env", "-p", "nbval_decimals", "-q",
                                        f"--nbval-sanitize-with={chapters.ROOT / 'tests' / 'nbval_sanitize.cfg'}")
    verdicts = [*PRINTED.values(), True]
    done.assert_outcomes(passed=verdicts.count(True), failed=verdicts.count(False))
    done.stdout.fnmatch_lines(["FAILED chapter.ipynb::Cell 1*", "FAILED chapter.ipynb::Cell 2*"])
