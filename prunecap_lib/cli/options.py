"""How do all commands read options, say what is wrong with them, choose a device, and draw figures?"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import types
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import reduce
from importlib import import_module
from itertools import count
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro
from tyro import _errors as rejected
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from ..errors import CheckpointError, InputError, MissingFileError, PrunecapError, printable
from ..files import Kind, check_output_file, check_output_folder, replace_file
from ..ranges import check_ranges
from ..reading import open_file

REGISTRY = ConstructorRegistry()
SHELLS = ("bash", "zsh", "fish")
KINDS = {"int": "a whole number", "float": "a number"}


@dataclass(frozen=True, kw_only=True)
class Computing:
    """Options of every command that runs a model."""

    device: str = "auto"  # 'cpu', 'cuda', 'cuda:1', 'mps'; 'auto' takes a GPU where there is one.
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """What the model computes in. 'auto' is fp32 for captions, so that they are the same on every machine, and for
    features to be stored bf16 where the device has it."""


@REGISTRY.primitive_rule
def read_optional(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """``--limit`` of type ``int | None`` is an INT. (The word None is taken, too: it undoes what a preset gives.)"""
    inner = [option for option in get_args(kind.type) if option is not type(None)]
    if get_origin(kind.type) not in (Union, types.UnionType) or len(inner) != 1 or kind.type == inner[0]:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(inner[0], kind.markers))
    if not isinstance(spec, PrimitiveConstructorSpec) or spec.nargs != 1:
        return None
    return replace(
        spec, choices=None if spec.choices is None else (*spec.choices, "None"),
        instance_from_str=lambda args: None if args == ["None"] else spec.instance_from_str(args),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value))


def call(action: Callable[[Any], None], kind: Any, argv: list[str], *, prog: str, description: str,
         default: Any = None) -> None:
    """Do ``action`` with the command that the options fill in; what goes wrong names options as they are typed.

    Args: kind: the command's dataclass, or a union of subcommands. default: an instance for what is not given.
    """
    given = {} if default is None else {"default": default}
    with rejected.on_parse_error(lambda event: refuse(event, kind, argv)):
        command = tyro.cli(kind, args=argv, prog=prog, description=description, registry=REGISTRY, **given)
    check_ranges(command, option)
    try:
        action(command)
    except PrunecapError as error:
        if not isinstance(error, CheckpointError | MissingFileError):  # which speak of files' fields
            error.args = (as_typed(str(error), command),)
        raise


def refuse(event: rejected.ParseErrorEvent, kind: Any, argv: Sequence[str]) -> None:
    """One sentence about options that cannot be read, in the place of tyro's box. Raises InputError."""
    where = f"; {event.prog} --help lists what there is"
    match event:
        case rejected.UnrecognizedArgs(tokens=[first, *_]):
            first, known = first.partition("=")[0], options_of(kind, argv)
            near = [word for bare in get_close_matches(first.lstrip("-"), [word.lstrip("-") for word in known], 1)
                    for word in known if word.lstrip("-") == bare]
            raise InputError(f"{first} is no {'option' if first.startswith('-') else 'argument'} of {event.prog}"
                             + (f"; did you mean {near[0]}?" if near else where))
        case rejected.MissingArgs(missing_arguments=[first, *_]):
            raise InputError(f"{spelled(first.arg)} is missing{where}")
        case rejected.MissingSubcommand(subcommand_spec=spec):
            raise InputError(f"what of {event.prog}? Choose {', '.join(spec.parser_from_name)}")
        case rejected.BadValue(argument=argument):
            raise InputError(f"{spelled(argument)} needs a value{where}")
        case rejected.InvalidChoice(argument=argument, value=value, choices=choices):
            near = get_close_matches(value, choices, 1)
            raise InputError(f"{spelled(argument)} cannot be {value!r}; choose "
                             + ", ".join(choice for choice in choices if choice != "None")
                             + (f" (did you mean {near[0]}?)" if near else ""))
        case rejected.InstantiationFailure(argument=None, message=message):  # what the dataclass refuses
            raise InputError(as_typed(message, kind))
        case rejected.InstantiationFailure(argument=argument, message=message):
            number = re.search(r"invalid literal for (int)|could not convert string to (float)", message)
            raise InputError(message if number is None else f"{spelled(argument)} must be "
                             f"{KINDS[number[1] or number[2]]}, not {message.rpartition(': ')[2]}")


def spelled(argument: Any) -> str:
    """An argument as it is typed: --batch-size, or the name of a positional one."""
    return argument.lowered.metavar if argument.is_positional() else argument.lowered.name_or_flags[-1]


def options_of(kind: Any, argv: Sequence[str]) -> list[str]:
    """What can be typed: a dataclass's options; of subcommands their names, or the options of the one in ``argv``."""
    if is_dataclass(kind):
        return [option(field.name) for field in fields(kind)]
    commands = {subcommand.name: inner for inner, subcommand in map(get_args, get_args(kind))}
    inner = next((commands[word] for word in argv if word in commands), None)
    return list(commands) if inner is None else options_of(inner, argv)


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def as_typed(message: str, command: Any) -> str:
    """A message of the library with the names of settings as options: "batch_size is 0" -> "--batch-size is 0". What is
    quoted or part of a path is left as it is, and so are single words but for a message's first."""
    if not is_dataclass(command):
        return message
    for name in (field.name for field in fields(command)):
        if "_" in name:
            spellings = "|".join({name, name.replace("_", " ")})
            message = re.sub(rf"(?<![\w/.'\"-])(?:{spellings})(?![\w/'\"-]|\.\w)", option(name), message)
        else:
            message = re.sub(rf"^{name}(?= is | must | needs | '| -?\d)", option(name), message)
    return message


def prepare(captioner, command: Any, pictures: int) -> None:
    """Prune a finished model as --schedule asks, for so many pictures; refuse --prune-ratio and --scorer early."""
    from ..pruning import check_ratio, check_scorer  # late: options are read without torch, which takes seconds
    if command.schedule == "auto":
        from ..costs import fastest_schedule  # late: half a second, for this alone
        captioner.encoder.set_schedule(fastest_schedule(captioner.encoder, min(pictures, command.batch_size)))
    else:
        set_schedule(captioner.encoder, command.schedule)
    if command.prune_ratio is not None:
        check_ratio(command.prune_ratio)
    if command.scorer is not None:
        check_scorer(command.scorer)


def set_schedule(encoder, written: str | None) -> None:
    """What ``--schedule`` asks of a finished model: None leaves it as it is, "none" keeps all tokens. In the place of
    keep rates can stand a share of the encoder's operations, "50%@3,6,9": rates are found for it."""
    from ..pruning import Schedule  # late, as above
    if written is None:
        return
    share, percent, blocks = written.partition("%@")
    if written == "none":
        schedule = None
    elif not percent:
        schedule = Schedule.parse(written)
    else:
        from ..costs import schedule_for_flops  # late, as in ``prepare``
        like = Schedule.parse(f"1@{blocks}")
        try:
            share = float(share) / 100
        except ValueError:
            raise InputError(f"schedule {written!r} cannot be read; write a share of the operations like "
                             "50%@3,6,9") from None
        schedule = schedule_for_flops(encoder, share, after=like.after, scorer=like.scorer, reduction=like.reduction)
    encoder.set_schedule(schedule)


def check_apart(**paths: Path | None) -> None:
    """Raises InputError where two options name one file: the later would be written over the earlier."""
    seen: dict[str, str] = {}
    for name, path in paths.items():
        place = os.path.realpath(str(path).replace("\0", ""))  # a name with a NUL is refused when it is used
        if path is not None and (before := seen.setdefault(place, name)) != name:
            raise InputError(f"{option(before)} and {option(name)} both name {path}; give each a file of its own")


# what a figure says of its maker: key of matplotlib's metadata, and how it stands in the file
_MAKER = {".png": ("Software", b"Software\0prunecap"), ".svg": ("Creator", b"<dc:title>prunecap"),
          ".pdf": ("Creator", b"/Creator (prunecap)")}
FIGURE = Kind("figure of prunecap", lambda path: _MAKER[path.suffix.lower()][1] in _ends(path))
FOLDER = Kind("folder of figures", lambda folder: any(map(FIGURE.owns, folder.iterdir())))


def _ends(path: Path) -> bytes:
    """A file's first and last bytes; the rest of a large picture need not be read."""
    with open_file(path) as file:
        first = file.read(4096)
        file.seek(max(0, path.stat().st_size - 4096))
        return first + file.read()


def check_figure(path: Path) -> Path:
    """The figure's path. Raises InputError where it cannot be written, or something else would be lost."""
    from matplotlib.backend_bases import FigureCanvasBase  # late: half a second, and few commands draw
    if path.suffix.lower().removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(f"figure {printable(path)} has no ending that says how to draw it; choose one like "
                         ".png, .svg or .pdf")
    return check_output_file(path, FIGURE)


def check_figures(figure: Path, pictures: Sequence[Path]) -> list[Path]:
    """A figure for each picture: for one the file itself, else files in the folder ``figure`` named after the pictures.
    They differ where the pictures' names do not: x.jpg and other/X.png become x.png and X-2.png. Raises InputError."""
    if len(pictures) == 1 and figure.suffix and not os.path.isdir(figure):
        return [check_figure(figure)]
    folder, taken, files = check_output_folder(figure, FOLDER), set(), []
    for picture in pictures:
        stem = os.fsdecode(os.fsencode(picture.stem)[:200])
        for name in (f"{stem}-{k}" if k > 1 else stem for k in count(1)):
            key = unicodedata.normalize("NFC", name).casefold()  # some file systems take such names for one
            if key not in taken:
                break
        taken.add(key)
        files.append(folder / f"{name}.png")
        if os.path.lexists(files[-1]):
            check_output_file(files[-1], FIGURE)
    return files


def save_figure(draw: Callable, path: Path, *, title: str, description: str) -> None:
    """Write what ``draw()`` returns; a PNG carries its title and alt text. Raises InputError, CheckpointError."""
    import matplotlib  # late, as above
    matplotlib.use("Agg")  # no window
    figure, ending = draw(), path.suffix.lower()
    metadata = {_MAKER[ending][0]: "prunecap"} if ending in _MAKER else {}
    if ending == ".png":
        metadata |= {"Title": title, "Description": description}
    with replace_file(path, FIGURE) as new:
        figure.savefig(new, format=ending[1:], metadata=metadata or None)
    matplotlib.pyplot.close(figure)
    print(f"figure: {printable(path)}", file=sys.stderr)


def completion_script(argv: list[str], commands: Mapping[str, str]) -> str:
    """A script by which a shell completes what is typed, written by tyro. Raises InputError for an unknown shell.

    Args: commands: the class of each command's options, by the name of its module.
    """
    if len(argv) != 1 or argv[0] not in SHELLS:
        raise InputError(f"completion is written for one of {', '.join(SHELLS)}: prunecap --completion bash")
    kinds = [Annotated[getattr(import_module(f".{name}", __package__), kind), tyro.conf.subcommand(name)]
             for name, kind in commands.items()]
    with contextlib.redirect_stdout(io.StringIO()) as written, contextlib.suppress(SystemExit):
        tyro.cli(reduce(or_, kinds), prog="prunecap", args=["--tyro-print-completion", argv[0]], registry=REGISTRY)
    return written.getvalue()
