"""``prunecap``: the library from the command line. Each command is one module, imported only when it is called, and
imports late what computes: ``--help`` and a wrong option do not wait seconds for torch."""

from __future__ import annotations

import os
import sys

try:
    import signal
    import threading
    from importlib import import_module
    from types import FrameType
except KeyboardInterrupt:  # before ``main`` can see to it
    os._exit(130)

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

prunecap COMMAND --help lists a command's options. So that Tab completes them (bash, zsh or fish):
  prunecap --completion bash > ~/.local/share/bash-completion/completions/prunecap

exit status: 0 all done; 2 an error, said in one line, or a picture that could not be captioned; 130 stopped by Ctrl-C;
141 nobody reads what is printed any more
"""
# module of a command, and the class of its options
COMMANDS = {"caption": "CaptionCommand", "train": "TrainCommand", "average": "AverageCommand",
            "evaluate": "EvaluateCommand", "cost": "CostCommand", "data": "DataCommand"}


def main(argv: list[str] | None = None) -> None:
    """Entry point. A wrong input ends in one line on stderr and exit status 2."""
    if threading.current_thread() is threading.main_thread() and (
            signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        signal.signal(signal.SIGINT, _interrupted)
    from ..errors import PrunecapError, TrainingStopped, install_hint  # late: Ctrl-C is seen to from here on
    argv = sys.argv[1:] if argv is None else argv
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of few letters is no reason to stop
    try:
        _run(argv)
        sys.stdout.flush()
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
    except BrokenPipeError:  # `| head` has seen enough
        _close_stdout()
        sys.exit(128 + 13)
    except OSError as error:  # the world's fault, not the program's: a full disk, no permission
        _close_stdout()
        _stop(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}; see to it, and run the "
              "same command again")


def _run(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
    elif argv[0] == "--version":
        from .. import __version__
        print(f"prunecap {__version__}")
    elif argv[0] == "--completion":
        from .options import completion_script
        print(completion_script(argv[1:], COMMANDS))
    elif argv[0] in COMMANDS:
        from .options import call
        module = import_module(f".{argv[0]}", __name__)
        call(module.run, getattr(module, COMMANDS[argv[0]]), argv[1:], prog=f"prunecap {argv[0]}",
             description=module.DESCRIPTION, default=module.with_preset(argv[1:]) if argv[0] == "train" else None)
    else:
        from difflib import get_close_matches
        near = get_close_matches(argv[0], COMMANDS, 1)
        _stop(f"{argv[0]!r} is not a command; " + (f"did you mean {near[0]}? Else " if near else "")
              + f"choose {', '.join(COMMANDS)}")


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Ctrl-C ends an import at once: half of one may go on, or tell of it in many lines. All else may tidy up."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _close_stdout() -> None:
    """Or else Python, when it ends, would try again to print what was left."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # it has no file behind it


def _stop(message: str) -> None:
    from ..errors import printable
    print(f"prunecap: error: {printable(message)}", file=sys.stderr)
    sys.exit(2)
