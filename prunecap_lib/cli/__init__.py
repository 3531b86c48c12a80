"""``prunecap``: the library from the command line. Each command is one module, imported only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

HELP = """usage: prunecap COMMAND [OPTIONS]

Image captioning whose decoder looks at fewer visual tokens.

commands:
  caption    caption pictures, and draw which tokens were kept and where each word looked
  train      train a captioner, or go on with a run that was stopped
  average    one checkpoint from the last few of a run
  evaluate   caption a data set's split and score the captions
  cost       count operations, seconds and training memory, pruned and not
  data       draw Scenes, download COCO, resize or encode pictures once, or look at what is in a data set

examples:
  prunecap caption photo.jpg
  prunecap caption photo.jpg --prune-ratio 0.5 --figure out.png
  prunecap train --dataset scenes --encoder vit --out runs/first
  prunecap evaluate --checkpoint runs/first/checkpoint --dataset scenes --split test
  prunecap cost --preset seed --prune-ratio 0.3 --gpu-memory 24GB
  prunecap data scenes --out data/scenes --n 1000

prunecap COMMAND --help lists a command's options.
"""
COMMANDS = ("caption", "train", "average", "evaluate", "cost", "data")


def main(argv: list[str] | None = None) -> None:
    """Entry point. A wrong input ends in one line on stderr and exit status 2."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return
    if argv[0] == "--version":
        from .. import __version__
        print(f"prunecap {__version__}")
        return
    if argv[0] not in COMMANDS:
        _stop(f"{argv[0]!r} is not a command; choose {', '.join(COMMANDS)}")
    from ..errors import PrunecapError, TrainingStopped, install_hint
    try:
        import_module(f".{argv[0]}", __name__).main(argv[1:])
    except PrunecapError as error:
        _stop(str(error))
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "prunecap_lib"):
            raise
        _stop(f"{module} is not installed, and this command needs it; {install_hint(module)}")
    except TrainingStopped as stopped:
        print(f"\nprunecap: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KeyboardInterrupt:
        print("\nstopped; training and `prunecap data` go on with the same command", file=sys.stderr)
        sys.exit(130)


def _stop(message: str) -> None:
    from ..errors import printable
    print(f"prunecap: error: {printable(message)}", file=sys.stderr)
    sys.exit(2)
