"""``prunecap evaluate``: captions for a whole split, their scores, and what they must be compared with."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import InputError, printable
from ..ranges import Count, Fraction, Seed
from .options import Computing, check_apart, prepare

DESCRIPTION = """Caption every picture of a split and score the captions.

examples:
  prunecap evaluate --checkpoint scenes-vit --split test --html report
  prunecap evaluate --checkpoint photos-lite0 --dataset flickr8k --split dev --method beam --beam-size 5
  prunecap evaluate --checkpoint scenes-vit --prune-ratio 0.5 --scorer random --metrics CIDEr
  prunecap evaluate --checkpoint scenes-vit --schedule 0.7,0.5@2,4/attention_received/fuse
  prunecap evaluate --checkpoint runs/c --dataset coco --split val --results captions_val2014_prunecap_results.json
  prunecap evaluate --captions captions_val2014_theirs_results.json --dataset coco --split test

Several processes share the pictures, with the same outcome to the last digit; torchrun will do as well:
  accelerate launch --multi_gpu --num_processes 4 -m prunecap_lib evaluate --checkpoint runs/coco/checkpoint ...
"""


@dataclass(frozen=True)
class EvaluateCommand(Computing):
    checkpoint: str | None = None  # A name under data/checkpoints, or a checkpoint's folder.
    captions: Path | None = None
    """Instead of a checkpoint: score these captions, whoever wrote them. A file in COCO's results format, or a report
    of --out."""
    dataset: Literal["scenes", "flickr8k", "coco", "shards"] | None = None
    """Default: what the checkpoint was trained on."""
    split: str = "test"
    root: str | None = None  # Folder of the photographs; default: PRUNECAP_PHOTOS.
    limit: Count | None = None
    """Only so many pictures (CIDEr-D depends on their number: compare at equal numbers only)."""
    method: Literal["greedy", "beam"] = "greedy"
    beam_size: Count = 5
    max_length: Count = 20
    prune_ratio: Fraction | None = None
    scorer: str | None = None
    schedule: str | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9, or a share of its operations, like
    50%@3,6,9; after a slash a scorer or a reduction, like 0.7@3,6,9/key_norm/fuse. 'auto' prunes where that is
    faster, 'none' keeps all; default: what the model was trained with."""
    metrics: tuple[str, ...] = ("BLEU", "METEOR", "ROUGE_L", "CIDEr")
    """SPICE too where CoreNLP is at hand. METEOR takes ten seconds for 1,000 pictures."""
    batch_size: Count = 64  # Pictures that a process captions at a time.
    cache_features: bool = False  # Encode every picture once and keep the features on disk, as in training.
    seed: Seed = 0  # Of the scorer 'random', of the resampling behind the interval, and of whom captions are dealt to.
    out: Path | None = None  # Write the report, with all captions, as JSON.
    results: Path | None = None
    """Write the captions in COCO's results format, as pycocotools and the COCO server take them. The server wants
    the file's name to be captions_SPLIT_NAME_results.json, like captions_val2014_prunecap_results.json, and in it all
    pictures of val2014, of which Karpathy's splits are parts. For pictures without references, like test2014, or for
    all of a folder, see prunecap caption --results."""
    html: Path | None = None
    """Write a page with every picture, its captions and its score, to search and to sort: into a folder, or to a
    file that ends in .html, with a folder of small pictures beside it."""
    progress: bool = True


def run(command: EvaluateCommand) -> None:
    if (command.checkpoint is None) == (command.captions is None):
        raise InputError("give either --checkpoint, a model that captions, or --captions, a file of captions to score")
    # late: options are read without torch, which takes seconds
    from ..captioner import Captioner
    from ..datasets import open_dataset
    from ..devices import autocast
    from ..distributed import processes
    from ..evaluation import check_metrics, evaluate, score_split
    from ..files import check_output_file
    from ..provenance import REPORT, provenance, run_signature
    from ..reports import RESULTS, check_ids, check_page, read_captions
    check_metrics(command.metrics)  # now, not after hours; and so are outputs
    check_apart(captions=command.captions, out=command.out, results=command.results, html=command.html)
    if command.out:
        check_output_file(command.out, REPORT)
    if command.results:
        check_output_file(command.results, RESULTS)
    if command.html:
        check_page(command.html)
    here, captioner = processes(), None
    if command.checkpoint is not None:
        captioner = Captioner.load(command.checkpoint, device=device_here(command, here))
    elif not here.is_main_process:
        return
    dataset = open_dataset(command.dataset or trained_on(command), split=command.split, root=command.root,
                           limit=command.limit, size=captioner and captioner.config.image_size)
    if command.results:
        check_ids(dataset.image_ids)
    settings = dict(metrics=command.metrics, seed=command.seed, progress=command.progress)
    if captioner is None:
        captions = read_captions(command.captions, dataset)
        report = {"captions_file": str(command.captions), "dataset": dataset.name, "split": dataset.split,
                  "pictures": len(dataset), **score_split(dataset, captions, **settings),
                  "signature": run_signature(), "provenance": provenance() | {"seed": command.seed}}
    else:
        prepare(captioner, command, len(dataset))
        with autocast(command.dtype, captioner.device):
            report, captions = evaluate(
                captioner, dataset, method=command.method, beam_size=command.beam_size, max_length=command.max_length,
                prune_ratio=command.prune_ratio, scorer=command.scorer, batch_size=command.batch_size,
                cache_features=command.cache_features, **settings)
        report = {"checkpoint": command.checkpoint, **report}
    if here.is_main_process:
        write(report, captions, dataset, command, captioner and captioner.preprocessing)


def device_here(command: EvaluateCommand, here):
    """The device to caption on. Raises InputError where several processes are asked to leave their own."""
    from ..devices import find_device  # late, as in ``run``
    if here.num_processes == 1:
        return find_device(command.device)
    if command.schedule == "auto":
        raise InputError("schedule 'auto' goes by the clock, and several processes must prune alike; name keep rates "
                         "and blocks, like 0.7@3,6,9, or none")
    if command.device != "auto":
        raise InputError(f"device {command.device!r}: of several processes each has the device that its launcher gives "
                         "it; leave --device out")
    return here.device


def trained_on(command: EvaluateCommand) -> str:
    """The data set that the checkpoint learned from. Raises InputError where nobody wrote it down."""
    from ..checkpoint import origin  # late, as in ``run``
    found = None if command.checkpoint is None else origin(command.checkpoint).get("dataset")
    if found not in ("scenes", "flickr8k", "coco", "shards"):
        raise InputError(f"which data set? {command.checkpoint or command.captions} does not say what it belongs to; "
                         "give --dataset scenes, flickr8k, coco or shards")
    print(f"data set: {found}, on which {printable(command.checkpoint)} was trained", file=sys.stderr)
    return found


def write(report: dict, captions: dict, dataset, command: EvaluateCommand, preprocessing) -> None:
    """The report on stdout, and what else was asked for in files."""
    from ..provenance import write_json  # late, as in ``run``
    from ..reports import write_html, write_results
    print(json.dumps(report, indent=1))
    for name, reason in report.get("undefined", {}).items():
        print(f"not defined: {name}: {reason}", file=sys.stderr)
    texts = {id: caption if isinstance(caption, str) else caption.text for id, caption in captions.items()}
    if command.out:
        write_json(command.out, report | {"captions": {str(id): text for id, text in texts.items()}})
        print(f"report: {printable(command.out)}", file=sys.stderr)
    if command.results:
        write_results(command.results, texts)
        print(f"results: {printable(command.results)}", file=sys.stderr)
    if command.html:
        page = write_html(command.html, report, dataset, captions, preprocessing=preprocessing)
        print(f"page: {printable(page)}", file=sys.stderr)
