"""How does a shell learn what can be typed? By a script that tyro writes, of all commands in one."""

from __future__ import annotations

import contextlib
import io
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Annotated

import tyro

from ..errors import InputError
from . import COMMANDS
from .options import REGISTRY

SHELLS = ("bash", "zsh", "fish")


def script(argv: list[str]) -> str:
    """What the shell is to read. Raises InputError for one that is not known."""
    if len(argv) != 1 or argv[0] not in SHELLS:
        raise InputError(f"completion is written for one of {', '.join(SHELLS)}: prunecap --completion bash")
    kinds = [Annotated[getattr(import_module(f".{name}", __package__), kind), tyro.conf.subcommand(name)]
             for name, kind in COMMANDS.items()]
    with contextlib.redirect_stdout(io.StringIO()) as written, contextlib.suppress(SystemExit):
        tyro.cli(reduce(or_, kinds), prog="prunecap", args=["--tyro-print-completion", argv[0]], registry=REGISTRY)
    return written.getvalue()
