"""What do tests of downloads fetch? A COCO of nine pictures, and how one looks at what has come of it."""

from pathlib import Path

import bad_server

FILES = {year: bad_server.tiny_coco(year) for year in (2014, 2017)}
QUICK = {"waits": (0, 0, 0)}
TRAIN = "/zips/train2017.zip"


def found(root: Path) -> dict[str, bytes]:
    """All that lies in a folder for a reader: what is hidden excepted."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*")
            if path.is_file() and ".prunecap" not in path.parts}


def hidden(root: Path) -> set[str]:
    """What lies in ``.prunecap``, besides what a kill has left of a list in the making."""
    return {path.name for path in (root / ".prunecap").glob("[!.]*")} - {"lock", "counted"}
