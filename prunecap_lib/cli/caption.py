"""``prunecap caption``: captions of pictures, and a figure of what was kept and where each word looked."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import InputError, PrunecapError

DESCRIPTION = """Caption pictures. Prints one line a picture: file, tab, caption.

examples:
  prunecap caption photo.jpg
  prunecap caption *.jpg --method greedy --json
  prunecap caption photo.jpg --checkpoint photos-lite0 --prune-ratio 0.3 --figure out.png
  prunecap caption photo.jpg --checkpoint runs/vit/checkpoint --schedule 0.7@2,4/key_norm
  prunecap caption coco/test2014 --checkpoint runs/coco/checkpoint --results captions_test2014_prunecap_results.json
"""


@dataclass(frozen=True)
class CaptionCommand:
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Picture files, or folders of them."""
    checkpoint: str = "photos-lite0"
    """A name under data/checkpoints, or a checkpoint's folder."""
    prune_ratio: float | None = None
    """Share of the visual tokens removed; default: what the model was trained with."""
    scorer: str | None = None
    """Which tokens stay; default: what the model was trained with."""
    schedule: str | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9, or a share of its operations, like
    50%@3,6,9; after a slash a scorer or a reduction, like 0.7@3,6,9/key_norm/fuse. 'auto' prunes where that is
    faster, 'none' keeps all; default: what the model was trained with."""
    method: Literal["beam", "greedy"] = "beam"
    beam_size: int = 5
    max_length: int = 20
    """Most words of a caption, its end included."""
    figure: Path | None = None
    """Draw picture, kept tokens, caption, mean attention and one map a word. Several pictures: a folder."""
    json: bool = False
    """Print one JSON object a picture instead: text, words, ids, log_prob, kept, grid."""
    results: Path | None = None
    """Also write the captions in COCO's results format, as for pictures without references: the COCO server's
    test2014. A picture's id is the number that its file's name ends in. The server wants the results' name to be
    captions_SPLIT_NAME_results.json, like captions_test2014_prunecap_results.json."""
    batch_size: int = 16


def main(argv: list[str]) -> None:
    command = tyro.cli(CaptionCommand, args=argv, prog="prunecap caption", description=DESCRIPTION)
    import torch

    from ..captioner import Captioner
    from ..preprocessing import load_image
    from ..reports import ids_of_files, write_results
    from .options import set_schedule
    paths = picture_files(command.images)
    ids = ids_of_files(paths) if command.results else {}
    captioner = Captioner.load(command.checkpoint, device="cuda" if torch.cuda.is_available() else "cpu")
    set_schedule(captioner.encoder, command.schedule)
    failed, texts = 0, {}
    for start in range(0, len(paths), command.batch_size):
        chunk, pictures = [], []
        for path in paths[start : start + command.batch_size]:
            try:
                pictures.append(load_image(path))
                chunk.append(path)
            except PrunecapError as error:  # the others are captioned all the same
                failed += 1
                print(f"prunecap: error: {error}", file=sys.stderr)
        if not pictures:
            continue
        captions = captioner.generate(pictures, method=command.method, beam_size=command.beam_size,
                                      max_length=command.max_length, prune_ratio=command.prune_ratio,
                                      scorer=command.scorer, return_attention=command.figure is not None)
        for path, picture, caption in zip(chunk, pictures, captions, strict=True):
            print(as_json(path, caption) if command.json else f"{path}\t{caption.text}")
            texts[path] = caption.text
            if command.figure:
                save_figure(figure_path(command.figure, path, len(paths)), picture, caption, captioner)
    if command.results:
        write_results(command.results, {ids[path]: text for path, text in texts.items()})
        print(f"results: {command.results}", file=sys.stderr)
    if failed:
        sys.exit(2)


def picture_files(given: tuple[Path, ...]) -> list[Path]:
    """Files as given; of a folder, its pictures by name. Raises InputError where nothing is left."""
    endings = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    files = [file for path in given for file in
             (sorted(f for f in path.iterdir() if f.suffix.lower() in endings) if path.is_dir() else [path])]
    if not files:
        raise InputError("no picture given: name files, or a folder that holds .jpg or .png files")
    return files


def as_json(path: Path, caption) -> str:
    return json.dumps({"image": str(path), "text": caption.text, "words": caption.words, "ids": caption.ids,
                       "log_prob": round(caption.log_prob, 4), "kept": caption.kept.tolist(),
                       "grid": list(caption.grid)})


def figure_path(figure: Path, picture: Path, count: int) -> Path:
    """The file itself for one picture; for several, a file named after each in the folder ``figure``."""
    if count == 1 and figure.suffix:
        figure.parent.mkdir(parents=True, exist_ok=True)
        return figure
    figure.mkdir(parents=True, exist_ok=True)
    return figure / f"{picture.stem}.png"


def save_figure(path: Path, picture, caption, captioner) -> None:
    from ..plotting import describe_caption, draw_caption
    from .figures import save
    save(lambda: draw_caption(picture, caption, captioner.preprocessing), path, title=caption.text,
         description=describe_caption(caption))
