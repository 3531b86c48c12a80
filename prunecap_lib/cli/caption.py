"""``prunecap caption``: captions of pictures, and a figure of what was kept and where each word looked."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import InputError, PrunecapError, printable
from ..ranges import Count, Fraction
from .options import Computing, check_apart, check_figures, prepare, save_figure

DESCRIPTION = """Caption pictures. Prints one line a caption: picture, tab, caption.

examples:
  prunecap caption photo.jpg
  prunecap caption *.jpg --method greedy --json
  prunecap caption photos --recursive --confidence
  prunecap caption https://example.org/photo.jpg --n 3
  prunecap caption - < photo.jpg
  prunecap caption photo.jpg --checkpoint photos-lite0 --prune-ratio 0.3 --figure out.png
  prunecap caption photo.jpg --checkpoint runs/vit/checkpoint --schedule 0.7@2,4/key_norm
  prunecap caption coco/test2014 --checkpoint runs/coco/checkpoint --results captions_test2014_prunecap_results.json

exit status: 0 if every picture was captioned; 2 if one could not be (the others are all the same), or on any other
error; 130 stopped by Ctrl-C; 141 nobody reads what is printed any more.
"""


@dataclass(frozen=True)
class CaptionCommand(Computing):
    images: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Picture files, folders of them, http(s) addresses, or - for one on standard input. HEIC needs the package
    pillow-heif."""
    checkpoint: str = "photos-lite0"  # A name under data/checkpoints, or a checkpoint's folder.
    recursive: bool = False  # Of a folder, also the pictures in its folders.
    prune_ratio: Fraction | None = None  # Share of the visual tokens removed; default: what the model was trained with.
    scorer: str | None = None  # Which tokens stay; default: what the model was trained with.
    schedule: str | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9, or a share of its operations, like
    50%@3,6,9; after a slash a scorer or a reduction, like 0.7@3,6,9/key_norm/fuse. 'auto' prunes where that is
    faster, 'none' keeps all; default: what the model was trained with."""
    method: Literal["beam", "greedy"] = "beam"
    beam_size: Count = 5
    n: Count = 1  # Captions a picture, the best first: the last beams of the search, so at most beam_size.
    max_length: Count = 20  # Most words of a caption, its end included.
    confidence: bool = False
    """After another tab, how sure the model is: the probability of a word, the geometric mean over the caption. Compare
    it between captions of one model; it is no probability that the caption is right."""
    figure: Path | None = None
    """Draw picture, kept tokens, caption, mean attention and one map a word. Several pictures: a folder."""
    json: bool = False
    """Print one JSON object a caption instead: image, checkpoint, settings, rank (1 is the best), text, words, ids,
    log_prob (natural, of all words, the end included), mean_log_prob (a word), kept (cells of the grid, by row), grid
    (rows, columns)."""
    results: Path | None = None
    """Also write the captions in COCO's results format, as for pictures without references: the COCO server's
    test2014. A picture's id is the number that its file's name ends in. The server wants the results' name to be
    captions_SPLIT_NAME_results.json, like captions_test2014_prunecap_results.json."""
    batch_size: Count = 16


def run(command: CaptionCommand) -> None:
    from ..captioner import Captioner  # late: options are read without torch, which takes seconds
    from ..devices import find_device
    from ..files import check_output_file
    from ..reports import RESULTS, ids_of_files, write_results
    from .sources import find_sources
    sources, device = find_sources(command.images, recursive=command.recursive), find_device(command.device)
    paths = [source.path for source in sources]
    check_apart(figure=command.figure, results=command.results)
    ids = ids_of_files(paths) if command.results else {}
    if command.results:
        if len(set(paths)) < len({source.name for source in sources}):
            raise InputError("two addresses end in one file name, which --results takes for the image id; caption them "
                             "one by one")
        check_output_file(command.results, RESULTS)
    figures = check_figures(command.figure, paths) if command.figure else paths
    figure_of = dict(zip([source.name for source in sources], figures, strict=True))
    captioner = Captioner.load(command.checkpoint, device=device)
    prepare(captioner, command, len(sources))
    captioned, texts = 0, {}
    for source, picture, captions in each_captioned(command, captioner, sources):
        captioned += 1
        for rank, caption in enumerate(captions, start=1):
            print(as_printed(command, captioner, source, rank, caption), flush=True)
        best = captions[0]
        texts[source.path] = best.text
        if command.figure:
            from ..plotting import describe_caption, draw_caption  # late: only where figures are asked for
            save_figure(lambda picture=picture, best=best: draw_caption(picture, best, captioner.preprocessing),
                        figure_of[source.name], title=best.text, description=describe_caption(best))
    if command.results:
        write_results(command.results, {ids[path]: text for path, text in texts.items()})
        print(f"results: {printable(command.results)}", file=sys.stderr)
    if captioned < len(sources):
        sys.exit(2)


def each_captioned(command: CaptionCommand, captioner, sources: list) -> Iterator[tuple]:
    """Yield (source, picture if it is to be drawn, captions, the best first); name on stderr what cannot be read."""
    import torch  # late, as in ``run``
    from tqdm import tqdm

    from ..devices import autocast
    # Captions that appear on a terminal say themselves how far it is.
    with tqdm(total=len(sources), desc="captions", unit="picture", leave=False,
              disable=True if sys.stdout.isatty() else None) as bar:
        for start in range(0, len(sources), command.batch_size):
            loaded = []
            for source in sources[start : start + command.batch_size]:
                try:
                    picture = source.load()
                    loaded.append((source, picture if command.figure else None, captioner.preprocess([picture])))
                except PrunecapError as error:  # the others are captioned all the same
                    with bar.external_write_mode(sys.stderr):
                        print(f"prunecap: error: {printable(error)}", file=sys.stderr)
            with autocast(command.dtype, captioner.device):
                captions = captioner.generate(  # of whole pictures, a batch of large ones would fill the memory
                    torch.cat([pixels for *_, pixels in loaded]) if loaded else [], method=command.method, n=command.n,
                    beam_size=command.beam_size, max_length=command.max_length, prune_ratio=command.prune_ratio,
                    scorer=command.scorer, return_attention=command.figure is not None)
            for i, (source, picture, _) in enumerate(loaded):
                yield source, picture, captions[i * command.n : (i + 1) * command.n]
            bar.update(min(command.batch_size, len(sources) - start))


def as_printed(command: CaptionCommand, captioner, source, rank: int, caption) -> str:
    """A caption as --json and --confidence ask for it."""
    if not command.json:
        sure = f"\t{math.exp(caption.mean_log_prob):.2f}" if command.confidence else ""
        return f"{printable(source.name)}\t{printable(caption.text)}{sure}"
    config = captioner.config
    return json.dumps({
        "image": source.name, "checkpoint": command.checkpoint, "method": command.method,
        "prune_ratio": config.prune_ratio if command.prune_ratio is None else command.prune_ratio,
        "scorer": command.scorer or config.scorer, "rank": rank, "text": caption.text, "words": caption.words,
        "ids": caption.ids, "log_prob": round(caption.log_prob, 4), "mean_log_prob": round(caption.mean_log_prob, 4),
        "kept": caption.kept.tolist(), "grid": list(caption.grid)})
