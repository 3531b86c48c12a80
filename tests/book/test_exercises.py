"""Is every exercise's check tried on wrong answers, and does it meet each with a sentence?"""

import ast
import math
import re

import pytest
import torch

import chapters
from prunecap_lib.exercises import checked

ANSWERS = chapters.ROOT / "tests" / "exercises"


@pytest.mark.parametrize("text", chapters.texts(), ids=lambda path: path.stem[:2])
def test_every_check_is_guarded_and_tried(text):
    source = text.read_text(encoding="utf-8")
    checks = re.findall(r"^def (check_\w+)", source, re.MULTILINE)
    assert checks and checks == re.findall(r"^@checked\ndef (check_\w+)", source, re.MULTILINE)
    calls = [node for node in ast.walk(ast.parse((ANSWERS / f"{text.stem[:2]}.py").read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "hold"]
    assert sorted(call.args[0].id for call in calls) == sorted(checks)


@checked
def check_double(answer):
    for n in (1, 2.5):
        if abs(answer(n) - 2 * n) > 1e-9:
            return f"twice {n} is {2 * n}"
    return "right"


def nothing_yet(n):
    return None


def crashes(n):
    n = n + 1
    return n / 0


def test_an_answer_meets_a_sentence_whatever_it_returns():
    assert check_double(lambda n: 2 * n) == "right"
    assert check_double(lambda n: n) == "twice 1 is 2"
    assert check_double(nothing_yet) == "nothing_yet returns None: write your code first"
    assert check_double(crashes) == "crashes stops with ZeroDivisionError: division by zero (its line 3)"
    assert check_double(lambda n: "two").startswith("<lambda> returned 'two', and the check cannot use that (TypeError")
    assert "Tensor [2, 3]" in check_double(lambda n: torch.zeros(2, 3))
    assert check_double(lambda: 1).startswith("<lambda> stops with TypeError")
    assert check_double(lambda n: float("nan")) == "<lambda> returned nan, and NaN is no number"
    assert check_double(lambda n: (n, torch.tensor([1.0, math.nan]))).endswith("and NaN is no number")
    assert check_double("no function").startswith("your answer, and the check cannot use that")


def test_none_may_be_an_answer():
    @checked
    def check_root(answer):
        return "right" if answer(4) == 2 and answer(-1) is None else "-1 has no root: return None"

    assert check_root(lambda n: None if n < 0 else n ** 0.5) == "right"
    assert check_root(lambda n: None) == "<lambda> returns None: write your code first"
    assert check_root(abs) == "-1 has no root: return None"
