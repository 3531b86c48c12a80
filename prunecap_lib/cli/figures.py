"""How does a command write a figure? Without a window, with its text inside, and with a clear word where it cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError, printable


def save(draw: Callable, path: Path, *, title: str, description: str) -> None:
    """Write what ``draw()`` returns; a PNG carries its title and alt text. Raises InputError."""
    import matplotlib
    matplotlib.use("Agg")
    fig = draw()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fig.savefig(path, metadata={"Title": title, "Description": description} if path.suffix == ".png" else None)
    except (OSError, ValueError) as error:
        raise InputError(f"figure {path} cannot be written ({error}); choose another place, and an ending like "
                         ".png, .svg or .pdf") from error
    matplotlib.pyplot.close(fig)
    print(f"figure: {printable(path)}", file=sys.stderr)
