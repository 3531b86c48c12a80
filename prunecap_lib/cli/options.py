"""How does a command read its options? With tyro, which learns here that a schedule is written in one word."""

from __future__ import annotations

from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..encoders import Encoder
from ..errors import InputError
from ..pruning import Schedule

REGISTRY = ConstructorRegistry()
WORDS = {"none": None, "auto": "auto"}


@REGISTRY.primitive_rule
def read_schedule(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """``--schedule 0.7@3,6,9`` is a ``Schedule``, ``--schedule none`` is None."""
    if kind.type != Schedule | None:
        return None
    return PrimitiveConstructorSpec(
        nargs=1, metavar="RATES@BLOCKS|none",
        instance_from_str=lambda args: WORDS[args[0]] if args[0] in WORDS else Schedule.parse(args[0]),
        is_instance=lambda value: value in (None, "auto") or isinstance(value, Schedule),
        str_from_instance=lambda schedule: ["none" if schedule is None else str(schedule)])


def parse(command: type, argv: list[str], *, prog: str, description: str, default: Any = None) -> Any:
    """The command's dataclass, filled in from its options; ``default``: an instance to fill in what is not given."""
    given = {} if default is None else {"default": default}
    return tyro.cli(command, args=argv, prog=prog, description=description, registry=REGISTRY, **given)


def set_schedule(encoder: Encoder, written: str | None) -> None:
    """What ``--schedule`` asks of a finished model: None leaves it as it is, "none" keeps all tokens.

    In the place of keep rates can stand a share of the encoder's operations, "50%@3,6,9": rates are found for it.
    """
    match written:
        case None:
            return
        case word if word in WORDS:
            encoder.set_schedule(WORDS[word])
        case _:
            encoder.set_schedule(find_schedule(encoder, written))


def find_schedule(encoder: Encoder, written: str) -> Schedule:
    share, percent, places = written.partition("%@")
    if not percent:
        return Schedule.parse(written)
    from ..costs import schedule_for_flops
    like = Schedule.parse(f"1@{places}")
    try:
        share = float(share) / 100
    except ValueError:
        raise InputError(f"schedule {written!r} cannot be read; write a share of the operations like "
                         "50%@3,6,9") from None
    return schedule_for_flops(encoder, share, after=like.after, scorer=like.scorer, reduction=like.reduction)
