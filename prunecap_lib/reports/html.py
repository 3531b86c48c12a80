"""What did the captioner say of each picture? One page to search and sort, that opens without a server or a network.

The page is ``report.html`` of this folder with the figures put in as JSON. Its script writes all of it as text, never
as HTML, so that no caption can become part of the page's code.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ..captioner import Caption
from ..datasets.base import CaptionDataset, ImageId
from ..errors import CheckpointError, PrunecapError, UndefinedError
from ..evaluation import per_image_cider
from ..files import Kind, check_output_file, check_output_folder, locked, say, write_text
from ..preprocessing import Preprocessing
from ..reading import read_text
from ..tokens import cell_size

TEMPLATE = Path(__file__).with_name("report.html")
GENERATOR = '<meta name="generator" content="prunecap">'
PAGE = Kind("page of prunecap evaluate", lambda page: GENERATOR in read_text(page)[:1000])
UNFINISHED = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{GENERATOR}<title>Unfinished</title></head>
<body><p>This page was not finished; run the same command again.</p></body></html>
"""
SIDE = 320  # pixels of a small picture's longer side: sharp at the size the page shows, about 15 kB


def check_page(path: str | Path) -> tuple[Path, Path]:
    """The page and its folder of pictures, for ``write_html``'s path.

    Raises InputError where they cannot be written, or something else would be lost.
    """
    path = Path(path)
    if path.suffix.lower() == ".html":
        page = check_output_file(path, PAGE)
        pictures = Kind("folder of the page's pictures", lambda _: PAGE.ours(page))
        return page, check_output_folder(page.with_name(f"{page.stem}_pictures"), pictures)
    folder = check_output_folder(path, Kind(PAGE.what, lambda folder: PAGE.ours(folder / "index.html")))
    return folder / "index.html", folder / "pictures"


def write_html(path: str | Path, report: dict, dataset: CaptionDataset, captions: Mapping[ImageId, Caption | str], *,
               preprocessing: Preprocessing | None = None) -> Path:
    """Write captions beside pictures, references and each picture's CIDEr-D. Returns the page's path.

    Args:
        path: a folder, for ``index.html`` and ``pictures/``; or a file NAME.html, with ``NAME_pictures/`` beside it.
        report: ``evaluate``'s; the page's head shows it.
        captions: image_id -> caption, as ``evaluate`` returns them, or plain texts.
        preprocessing: the captioner's; with it the page can fade the cells whose tokens were dropped.

    Raises: CheckpointError where the file system refuses; what ``check_page`` and ``dataset.image`` raise.
    """
    page, folder = check_page(path)
    texts = {id: caption if isinstance(caption, str) else caption.text for id, caption in captions.items()}
    try:
        scores = {id: round(value, 4) for id, value in per_image_cider(dataset.references(), texts).items()}
    except UndefinedError:  # the report's head says why
        scores = dict.fromkeys(texts)
    rows = []
    if not page.exists():
        write_text(page, UNFINISHED)  # so that what a crash leaves is known for ours
    title = f"{report.get('checkpoint') or report.get('captions_file')} on {dataset.name} {dataset.split}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", say):
            for i, id in enumerate(dataset.image_ids):
                picture = dataset.image(i)
                name, size = f"{i:06d}.jpg", save_small(picture, folder / f"{i:06d}.jpg")
                rows.append({"id": id, "caption": texts[id], "references": dataset.captions[i],
                             "score": scores[id], "picture": f"{folder.name}/{name}", "size": size,
                             **pruned_cells(captions[id], preprocessing, picture.size)})
            # inside <script> only "<" can end the data
            data = json.dumps({"title": title, "report": report, "rows": rows}, ensure_ascii=False)
            before, after = TEMPLATE.read_text(encoding="utf-8").split("{{data}}")
            write_text(page, before.replace("{{title}}", html.escape(title)) + data.replace("<", "\\u003c") + after)
    except PrunecapError:  # a picture that cannot be read names itself
        raise
    except OSError as error:
        raise CheckpointError(f"could not write pictures into {folder}: {error.strerror or error}; free some space or "
                              "choose another place") from error
    return page


def save_small(picture: Image.Image, path: Path) -> tuple[int, int]:
    """Write a picture as JPEG of at most SIDE pixels, and return its (width, height)."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(path, quality=85 if small.size != picture.size else 95, optimize=True)  # a drawn scene is tiny as it is
    return small.size


def pruned_cells(caption: Caption | str, preprocessing: Preprocessing | None, size: tuple[int, int]) -> dict:
    """Which cells were kept, and which part of the picture they divide; nothing where nothing was dropped.

    ``kept``: one bit a cell, row by row, as hexadecimal digits. ``box``: left, top, right, bottom of what the encoder
    saw, as shares of the picture; ``across``: how many cells wide and high that is, which need not be a whole number.
    """
    if isinstance(caption, str) or preprocessing is None:
        return {}
    cells, kept = caption.grid[0] * caption.grid[1], set(caption.kept.tolist())
    if len(kept) == cells:
        return {}
    digits = -(-cells // 4)
    bits = sum(1 << (4 * digits - 1 - cell) for cell in kept)
    box = [round(edge / side, 4) for edge, side in zip(preprocessing.picture_box(size), size * 2, strict=True)]
    height, width = cell_size(caption.grid, (preprocessing.image_size,) * 2)
    across = [round(preprocessing.image_size / side, 4) for side in (width, height)]
    return {"grid": list(caption.grid), "across": across, "kept": f"{bits:0{digits}x}", "box": box}
