"""What can go wrong, said so that a person knows what to do next.

Every message names the thing, what is wrong with it, and the remedy. The command line prints these
errors as one line and exits with status 2; all other exceptions are bugs and keep their traceback.
"""

import re

# C0, DEL and C1; line and paragraph separators; what turns the reading direction round; bytes of a file's name that
# are no UTF-8. Joiners and marks of direction stay: emoji and Arabic words need them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """``str(text)`` as a terminal may be shown it, on one line: control characters are escaped, as in ``\\n``.

    For words and file names, which may hold anything, wherever they are printed: nobody should be able to clear a
    screen, or to forge a second line, by a file's name.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def install_hint(module: str) -> str:
    """How to install a module that is missing: by the extra of this library that brings it, or by its own name.

    The installed library's metadata lists what each extra brings; all of them are imported as they are called.
    """
    from importlib.metadata import PackageNotFoundError, requires
    name = module.replace("_", "-")
    try:
        listed = requires("prunecap") or []
    except PackageNotFoundError:
        listed = []
    for line in listed:
        found = re.match(rf"{re.escape(name)}\b.*extra == ['\"]([\w-]+)", line)
        if found:
            return f"pip install 'prunecap[{found[1]}]'"
    return f"pip install {name}"


class PrunecapError(Exception):
    """Base of every error this library raises on purpose."""


class InputError(PrunecapError, ValueError):
    """A value or a file's content that cannot be used."""


class UndefinedError(InputError):
    """A statistic that is not defined on what it was given: it is left out, or refused, and never told as a number."""


class PictureError(InputError):
    """One picture that cannot be read: damaged, or no picture at all. The others beside it may be good."""


class MissingFileError(PrunecapError, FileNotFoundError):
    """A file or folder that should be there and is not."""


class CheckpointError(PrunecapError, ValueError):
    """A checkpoint that is damaged or does not fit the code, the vocabulary or the encoder."""


class TrainingError(PrunecapError, RuntimeError):
    """A training run that cannot go on; the last good checkpoint is kept."""


class TrainingStopped(KeyboardInterrupt):
    """A run that was told to stop, and has saved where it was. No ``Exception``: what called the run should stop, too.

    Attributes: signal: the number of the signal that told it.
    """

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal
