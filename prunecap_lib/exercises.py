"""How does an exercise's check meet any answer with a sentence, and never with a traceback?"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable

__all__ = ["checked"]


class _Told(Exception):
    """What is wrong with an answer, in a sentence: it ends the check."""


def checked(check: Callable[..., str]) -> Callable[..., str]:
    """Decorate a check: it takes answers, which are functions, and returns a sentence, "right" if all is well.

    Then whoever returns only None is asked for code, whoever raises is told where, and whoever returns what the check
    cannot work with is told what came back.
    """
    @functools.wraps(check)
    def wrapper(*answers) -> str:
        calls: list[tuple[str, object]] = []
        try:
            said = check(*(_watched(answer, calls) for answer in answers))
        except _Told as told:
            return str(told)
        except Exception as error:  # the check stumbled over what came back
            said = (f"{calls[-1][0]} returned {_described(calls[-1][1])}" if calls else "your answer") + (
                f", and the check cannot use that ({type(error).__name__}: {_short(str(error))}); what is asked for?")
        if calls and all(result is None for _, result in calls) and not said.startswith("right"):
            return f"{calls[0][0]} returns None: write your code first"
        return said
    return wrapper


def _watched(answer, calls: list[tuple[str, object]]):
    """The answer itself, with each call noted, and what goes wrong in it told in words."""
    if not callable(answer) or isinstance(answer, type):
        return answer

    @functools.wraps(answer)
    def call(*arguments, **named):
        try:
            result = answer(*arguments, **named)
        except Exception as error:
            raise _Told(f"{answer.__name__} stops with {type(error).__name__}: {_short(str(error))}"
                        f"{_where(answer, error)}") from error
        calls.append((answer.__name__, result))
        if _holds_nan(result):  # whatever a check asks of it, the answer is no
            raise _Told(f"{answer.__name__} returned {_described(result)}, and NaN is no number")
        return result
    return call


def _where(answer, error: Exception) -> str:
    code = getattr(answer, "__code__", None)
    lines = [frame.lineno for frame, (raw, _) in zip(traceback.extract_tb(error.__traceback__),
                                                     traceback.walk_tb(error.__traceback__), strict=True)
             if raw.f_code is code]
    return f" (its line {lines[-1] - code.co_firstlineno + 1})" if lines else ""


def _holds_nan(value) -> bool:
    if isinstance(value, (tuple, list, dict)):
        return any(map(_holds_nan, value.values() if isinstance(value, dict) else value))
    different = value != value if isinstance(value, float) or hasattr(value, "shape") else False
    return bool(different.any()) if hasattr(different, "any") else different


def _described(value) -> str:
    """A value in a few words: tensors and arrays by their shape."""
    if hasattr(value, "shape") and getattr(value, "ndim", 0):
        return f"{type(value).__name__} {list(value.shape)}"
    if isinstance(value, (tuple, list)) and any(hasattr(one, "shape") for one in value):
        return f"a {type(value).__name__} of {', '.join(map(_described, value))}"
    return _short(repr(value))


def _short(text: str, most: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
