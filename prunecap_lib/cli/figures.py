"""How does a command write a figure? Without a window, with its text inside, and with a clear word where it cannot."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from ..errors import InputError, printable
from ..files import Kind, check_output_file, check_output_folder, replace_file
from ..reading import open_file

# what a figure says of its maker: key of matplotlib's metadata, and how it stands in the file
_MAKER = {".png": ("Software", b"Software\0prunecap"), ".svg": ("Creator", b"<dc:title>prunecap"),
          ".pdf": ("Creator", b"/Creator (prunecap)")}
FIGURE = Kind("figure of prunecap", lambda path: _MAKER[path.suffix.lower()][1] in _ends(path))
FOLDER = Kind("folder of figures", lambda folder: any(map(FIGURE.owns, folder.iterdir())))


def check(path: Path) -> Path:
    """The figure's path. Raises InputError where it cannot be written, or something else would be lost."""
    from matplotlib.backend_bases import FigureCanvasBase
    endings = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in endings:
        raise InputError(f"figure {printable(path)} has no ending that says how to draw it; choose one like "
                         ".png, .svg or .pdf")
    return check_output_file(path, FIGURE)


def check_many(figure: Path, pictures: Sequence[Path]) -> list[Path]:
    """A figure for each picture: for one the file itself, else files in the folder ``figure`` named after the pictures.

    They differ where the pictures' names do not: x.jpg and other/X.png become x.png and X-2.png. Raises as ``check``.
    """
    if len(pictures) == 1 and figure.suffix and not os.path.isdir(figure):
        return [check(figure)]
    folder, taken, files = check_output_folder(figure, FOLDER), set(), []
    for picture in pictures:
        stem = os.fsdecode(os.fsencode(picture.stem)[:200])
        names = (f"{stem}-{k}" if k > 1 else stem for k in count(1))
        name = next(name for name in names if _same(name) not in taken)
        taken.add(_same(name))
        files.append(file := folder / f"{name}.png")
        if os.path.lexists(file):
            check_output_file(file, FIGURE)
    return files


def _ends(path: Path) -> bytes:
    """A file's first and last bytes; the rest of a large picture need not be read."""
    with open_file(path) as file:
        first = file.read(4096)
        file.seek(max(0, path.stat().st_size - 4096))
        return first + file.read()


def _same(name: str) -> str:
    """Names that some file systems take for one."""
    return unicodedata.normalize("NFC", name).casefold()


def save(draw: Callable, path: Path, *, title: str, description: str) -> None:
    """Write what ``draw()`` returns; a PNG carries its title and alt text. Raises InputError, CheckpointError."""
    import matplotlib
    matplotlib.use("Agg")
    fig, ending = draw(), path.suffix.lower()
    metadata = {_MAKER[ending][0]: "prunecap"} if ending in _MAKER else {}
    if ending == ".png":
        metadata |= {"Title": title, "Description": description}
    with replace_file(path, FIGURE) as new:
        fig.savefig(new, format=ending[1:], metadata=metadata or None)
    matplotlib.pyplot.close(fig)
    print(f"figure: {printable(path)}", file=sys.stderr)
