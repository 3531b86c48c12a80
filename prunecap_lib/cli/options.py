"""How does a command read its options? With tyro, which learns here that a schedule is written in one word."""

from __future__ import annotations

from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..encoders import Encoder
from ..pruning import Schedule

REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def read_schedule(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """``--schedule 0.7@3,6,9`` is a ``Schedule``, ``--schedule none`` is None."""
    if kind.type != Schedule | None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1, metavar="RATES@BLOCKS|none",
        instance_from_str=lambda args: None if args[0].lower() == "none" else Schedule.parse(args[0]),
        is_instance=lambda value: value is None or isinstance(value, Schedule),
        str_from_instance=lambda schedule: ["none" if schedule is None else str(schedule)])


def parse(command: type, argv: list[str], *, prog: str, description: str) -> Any:
    """The command's dataclass, filled in from its options."""
    return tyro.cli(command, args=argv, prog=prog, description=description, registry=REGISTRY)


def set_schedule(encoder: Encoder, written: str | None) -> None:
    """What ``--schedule`` asks of a finished model: None leaves it as it is, "none" keeps all tokens."""
    if written is not None:
        encoder.set_schedule(None if written.lower() == "none" else Schedule.parse(written))
