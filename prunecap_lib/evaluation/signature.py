"""How was this number made? One line that travels with it, after sacreBLEU's example (Post 2018)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ..errors import InputError


def run_signature(**fields) -> str:
    """``name:value`` parts joined by "|": the given fields, then tokenizer, CIDEr variant and versions.

    >>> run_signature(method="beam5", max_length=20)
    'method:beam5|max_length:20|tok:ptb-3.4.1|cider:D|prunecap:0.1.0|pycocoevalcap:1.2|torch:2.14.1'

    Raises InputError for a name or a value that holds "|" or ":".
    """
    from .. import __version__

    parts = {**fields, "tok": "ptb-3.4.1", "cider": "D", "prunecap": __version__,
             "pycocoevalcap": _version("pycocoevalcap"), "torch": _version("torch").partition("+")[0]}
    for name, value in parts.items():
        if set("|:") & set(f"{name}{value}"):
            raise InputError(f"signature: {name}={value!r} holds a separator, | or :; leave it out")
    return "|".join(f"{name}:{value}" for name, value in parts.items())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
