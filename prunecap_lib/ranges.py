"""Which numbers make sense? It stands in a setting's type, where files are read and before any work.

A setting with its range::

    batch_size: Count = 64
    learning_rate: Annotated[float, Meta(gt=0)] = 1e-3
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from msgspec import Meta

from .errors import InputError

_MOST = 2**31 - 1
_LARGEST = 1e30  # float32, in which models compute, ends at 3e38, and an optimizer's products have to fit
Count = Annotated[int, Meta(ge=1, le=_MOST)]
Natural = Annotated[int, Meta(ge=0, le=2**62)]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]  # of which something is left
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
NotNegative = Annotated[float, Meta(ge=0, le=_LARGEST)]
Side = Annotated[int, Meta(ge=16, le=4096)]  # of a picture, in pixels
JpegQuality = Annotated[int, Meta(ge=1, le=95)]
PerShard = Annotated[int, Meta(ge=1, le=100_000)]
VocabularySize = Annotated[int, Meta(ge=5, le=_MOST)]  # four special entries and a word


@cache
def ranges(settings: type) -> dict[str, Meta]:
    """The ranges of a dataclass's fields, by name; also of those that may be None."""
    hints = get_type_hints(settings, include_extras=True)
    return {name: one for name, hint in hints.items() for part in (hint, *get_args(hint))
            for one in getattr(part, "__metadata__", ()) if isinstance(one, Meta)}


def is_within(value: float, allowed: Meta) -> bool:
    """Is it finite, and within the bounds?"""
    return float("-inf") < value < float("inf") and (
        (allowed.ge is None or value >= allowed.ge) and (allowed.gt is None or value > allowed.gt)
        and (allowed.le is None or value <= allowed.le) and (allowed.lt is None or value < allowed.lt))


def in_words(allowed: Meta, value: float = 0) -> str:
    """As in "at least 0 and below 1". What a machine's numbers can hold is said of a ``value`` beyond it alone."""
    bounds = {"at least": allowed.ge, "above": allowed.gt, "at most": allowed.le, "below": allowed.lt}
    return " and ".join(f"{words} {bound:,}" for words, bound in bounds.items()
                        if bound is not None and (bound < _MOST or value > bound))


def check_ranges(settings: Any, spelled: Callable[[str], str] = str) -> None:
    """Raises InputError for the first number that is out of its range. ``spelled``: how a field is called in it."""
    for name, allowed in ranges(type(settings)).items():
        value = getattr(settings, name)
        if value is not None and not is_within(value, allowed):
            raise InputError(f"{spelled(name)} is {value}; it must be {in_words(allowed, value)}")
