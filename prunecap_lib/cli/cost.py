"""``prunecap cost``: what captioning and training cost, and what pruning saves of it, without doing either."""

from __future__ import annotations

import gc
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..ranges import Count, Fraction, NotNegative, Positive, VocabularySize
from .options import check_figure, save_figure, set_schedule

DESCRIPTION = """Count the operations of every stage from picture to caption, with all tokens and pruned.

Nothing is downloaded and, but for --time, nothing is computed: shapes are enough.

examples:
  prunecap cost --checkpoint scenes-vit
  prunecap cost --preset seed --prune-ratio 0.3 --gpu-memory 24GB
  prunecap cost --encoder convnext_tiny --prune-ratio 0.5 --beams 5 --figure cost.png
  prunecap cost --encoder vit_base_patch16_224 --schedule 0.7@3,6,9 --gpu-memory 24GB
  prunecap cost --encoder convnext_tiny --schedule 50%@3,6,9/grid --time
  prunecap cost --preset seed --gpu h100 --pictures 113287 --price 2.5
  prunecap cost --preset seed --schedule 0.7@3,6,9 --gpu all --batch-size 64
  prunecap cost --checkpoint photos-lite0 --time --json
"""

COCO_WORDS = 10_000
"""About as many words are seen five times or more in COCO's training captions: 8,791 in those of 82,783 pictures
(Karpathy & Fei-Fei 2015), 10,010 in those of the Karpathy split (Anderson et al. 2018)."""


@dataclass(frozen=True)
class CostCommand:
    checkpoint: str | None = None
    """A name under data/checkpoints, or a checkpoint's folder."""
    preset: Literal["seed", "recommended"] | None = None
    """Sizes and training of the presentation that began this course ('seed', taken where no checkpoint is given), or of
    what prunecap train recommends."""
    encoder: str | None = None
    """Another encoder in the preset's place: 'vit', 'convnext', or one of timm's."""
    image_size: Count | None = None
    """Side of the picture in pixels; default: the encoder's own."""
    vocabulary_size: VocabularySize | None = None
    """Entries of the vocabulary; default: the preset's."""
    prune_ratio: Fraction | None = None
    """Share of the visual tokens removed; default: the model's own."""
    scorer: str | None = None
    """Which tokens stay; default: the model's own."""
    schedule: str | None = None
    """Tokens that go inside the encoder: keep rates @ blocks, like 0.7@3,6,9, or a share of its operations, like
    50%@3,6,9; after a slash a scorer or a reduction, like 0.7@3,6,9/key_norm/fuse. 'auto' prunes where that is
    faster, 'none' keeps all; default: the model's own."""
    words: Count = 20
    """Words written, the caption's end included."""
    beams: Count = 1
    batch: Count = 1
    """Pictures captioned at once."""
    time: bool = False
    """Also time the stages on this machine, pruned and not by turns."""
    repeats: Count = 9
    gpu_memory: str | None = None
    """Also find the largest batch that trains on a GPU of this size, like 24GB (taken as 24 GiB, as on the box)."""
    freeze_encoder: bool = False
    """With --gpu-memory or --gpu: the encoder is not trained (a checkpoint's stays as it was)."""
    cache_features: bool = False
    """With --gpu-memory or --gpu: train from stored features (with --freeze-encoder)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """With --gpu-memory or --gpu: of the training. auto: bf16, and for --gpu here what this machine trains in."""
    gpu: str | None = None
    """Also predict training on this GPU: rtx3090, rtx4090, a100 (80 GB, SXM), h100 (SXM), several with commas between
    them, 'all', or 'here', whose rates are measured first."""
    gpus: Count = 1
    """With --gpu: how many of them share the work, in one machine."""
    batch_size: Count | None = None
    """With --gpu: pictures a GPU and step; default: the largest that fits."""
    pictures: Count = 113_287
    """With --gpu: in an epoch; the default is COCO's training part of the Karpathy split."""
    price: NotNegative | None = None
    """With --gpu: of one GPU for an hour, in any money."""
    measured_rate: Positive | None = None
    """With --gpu: TFLOP/s that your own training achieves on it, in place of the limits and the assumption."""
    figure: Path | None = None
    """Draw the stages as bars."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(command: CostCommand) -> None:
    gc.set_threshold(50_000)  # imports and shapes are many objects, and little to collect
    check_options(command)
    gpu_memory = None if command.gpu_memory is None else parse_memory(command.gpu_memory)
    if command.figure:
        check_figure(command.figure)
    # late: options are read without torch, which takes seconds
    from ..costs import break_even, latency, ledger, usual_schedule
    from ..costs.forecast.memory import precision_on
    from ..provenance import provenance
    name, captioner, config = model_of(command)
    if command.schedule == "auto":  # which would choose: here both ways are counted
        captioner.encoder.set_schedule(captioner.encoder.schedule or usual_schedule(captioner.encoder))
    else:
        set_schedule(captioner.encoder, command.schedule)
    config = replace(config, schedule=captioner.encoder.schedule)
    settings = dict(prune_ratio=command.prune_ratio, scorer=command.scorer, words=command.words, beams=command.beams)
    found = ledger(captioner, batch=command.batch, **settings)
    report = {"model": name, "ledger": asdict(found), "speedup": found.speedup}
    lines = table(name, found)
    if command.time:
        captioner, images = on_this_machine(captioner, command.batch)
        times = latency(captioner, images, repeats=command.repeats, **settings)
        report["latency"] = asdict(times)
        lines += ["", *time_table(times)]
        if captioner.encoder.schedule is not None:
            even = break_even(captioner.encoder, turns=command.repeats)
            report["break_even"] = asdict(even)
            lines.append(str(even))
    if gpu_memory is not None:
        batches, precision = largest_batches(config, gpu_memory, found.prune_ratio), precision_on(config, "cuda")
        report["largest_batch"] = {"gpu_memory": gpu_memory, "precision": precision,
                                   "captions_per_image": config.captions_per_image, **batches}
        lines += ["", f"largest batch that trains on {command.gpu_memory} ({training_words(config, precision)}):",
                  *(f"  {kind.replace('_', ' '):10} {pictures:7,} pictures" for kind, pictures in batches.items())]
    if command.gpu is not None:
        from .predict import prediction_table, predictions
        rate = None if command.measured_rate is None else 1e12 * command.measured_rate
        rows = predictions(config, command.gpu, prune_ratio=found.prune_ratio, pictures=command.pictures,
                           price=command.price, batch_size=command.batch_size, gpus=command.gpus, rate=rate)
        precision = " or ".join(sorted({row["precision"] for row in rows}))
        report["predicted"] = {"pictures": command.pictures, "precision": precision, "rows": rows}
        lines += ["", *prediction_table(rows, training_words(config, precision), pictures=command.pictures, rate=rate)]
    print(json.dumps(report | {"provenance": provenance()}, indent=1) if command.json else "\n".join(lines))
    if command.figure:
        from ..plotting import describe_ledger, plot_ledger
        save_figure(lambda: plot_ledger(found, name), command.figure, title=f"Operations of {name}",
                    description=describe_ledger(found))


def check_options(command: CostCommand) -> None:
    """Raises InputError for an option that nothing would follow."""
    trains = command.gpu is not None or command.gpu_memory is not None
    for options, followed, remedy in (
            (("gpus", "batch_size", "pictures", "price", "measured_rate"), command.gpu is not None,
             "is of a training that --gpu predicts, and no gpu is named; add --gpu h100, say, or leave it out"),
            (("freeze_encoder", "cache_features", "precision"), trains,
             "is of a training, and none is counted; add --gpu h100 or --gpu-memory 24GB, say, or leave it out"),
            (("repeats",), command.time, "is of a measurement; add --time, or leave it out")):
        for option in options:
            if not followed and (value := getattr(command, option)) != getattr(CostCommand, option):
                raise InputError(f"{option.replace('_', ' ')}{'' if value is True else f' {value}'} {remedy}")


def parse_memory(text: str) -> int:
    """'24GB' or '40960 MiB' -> bytes, in powers of 1024 either way. Raises InputError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([GM])(?:i?B)?\s*", text, re.IGNORECASE)
    amount = float(match[1]) * 2 ** {"G": 30, "M": 20}[match[2].upper()] if match else 0.0
    if not 1 <= amount < 2**50:
        raise InputError(f"gpu memory {text!r} is not an amount of memory that a GPU has; write it like 24GB or "
                         "40960MiB")
    return int(amount)


def model_of(command: CostCommand):
    """A name to show, the captioner (a preset's has no numbers), and how it would be trained."""
    from ..captioner import Captioner
    from ..costs.forecast.memory import training_captioner
    from ..training import TrainConfig
    training = dict(freeze_encoder=command.freeze_encoder, cache_features=command.cache_features,
                    precision=command.precision)
    training |= {"scorer": command.scorer} if command.scorer else {}
    if command.checkpoint is not None:
        for option in ("preset", "encoder", "image_size", "vocabulary_size"):
            if (value := getattr(command, option)) is not None:
                raise InputError(f"{option.replace('_', ' ')} {value!r} and checkpoint {command.checkpoint!r} cannot "
                                 "go together: a checkpoint fixes its sizes; leave one of them out")
        captioner = Captioner.load(command.checkpoint)
        same = {key: value for key, value in vars(captioner.config).items() if key in TrainConfig.__dataclass_fields__}
        training["freeze_encoder"] |= captioner.config.frozen_encoder
        config = TrainConfig(**same | dict(max_words=captioner.config.max_length - 2,
                                           vocabulary_size=len(captioner.vocabulary)) | training)
        return command.checkpoint, captioner, config
    if command.preset == "recommended":
        named = {} if command.encoder is None else {"encoder": command.encoder}
        config = TrainConfig.recommended(**named, **training | {"vocabulary_size": COCO_WORDS})
    else:
        config = TrainConfig.seed_preset(**training)
        if command.encoder is not None:
            config = replace(config, encoder=command.encoder, image_size=None)
    if command.image_size is not None:
        config = replace(config, image_size=command.image_size)
    if command.vocabulary_size is not None:
        config = replace(config, vocabulary_size=command.vocabulary_size)
    config = replace(config, max_words=max(config.max_words, command.words))
    return config.encoder, training_captioner(config, config.vocabulary_size), config


def on_this_machine(captioner, batch: int):
    """The captioner with numbers (fresh ones where it has none), and a batch of noise."""
    import torch

    from ..captioner import Captioner
    if captioner.device.type == "meta":
        config = replace(captioner.config, schedule=captioner.encoder.schedule)
        captioner = Captioner(config, captioner.vocabulary)
    side = captioner.encoder.image_size
    return captioner.eval(), torch.randn(batch, 3, side, side)


def largest_batches(config, gpu_memory: int, prune_ratio: float) -> dict[str, int]:
    from ..costs.forecast import largest_batch
    return {"all_tokens": largest_batch(replace(config, prune_ratio=0.0, schedule=None), gpu_memory),
            "pruned": largest_batch(replace(config, prune_ratio=prune_ratio), gpu_memory)}


def training_words(config, precision: str) -> str:
    """How a training is set up, in words."""
    encoder = "features stored" if config.cache_features else "encoder frozen" if config.freeze_encoder else \
        "encoder trained"
    captions = "1 caption" if config.captions_per_image == 1 else f"{config.captions_per_image} captions"
    return f"{precision}, {encoder}, {captions} a picture; estimated"


def table(name: str, ledger) -> list[str]:
    """The ledger's lines."""
    prefix = f" + {ledger.prefix} prefix" if ledger.prefix else ""
    inside = f"; {ledger.schedule} inside the encoder" if ledger.schedule else ""
    lines = [f"{name}: {ledger.tokens}{prefix} tokens, {ledger.kept} kept by {ledger.scorer}{inside}; "
             f"{ledger.words} words, beams {ledger.beams}, batch {ledger.batch}", "",
             f"{'GFLOPs':16} {'all tokens':>12} {'pruned':>12} {'saved':>8}"]
    rows = [*((stage, ledger.unpruned[stage], flops) for stage, flops in ledger.flops.items()),
            ("total", ledger.unpruned_total, ledger.total)]
    lines += [f"{stage:16} {before / 1e9:12.4f} {after / 1e9:12.4f} {f'{1 - after / before:.1%}' if before else '':>8}"
              for stage, before, after in rows]
    if ledger.carried_back:
        lines.append("(so few words look that their queries meet the tokens themselves: no key is projected)")
    lines += [f"at most {ledger.speedup:.3f} times as fast", "", f"{'parameters':16} {'millions':>12}"]
    return lines + [f"{part:16} {count / 1e6:12.3f}" for part, count in ledger.parameters.items()]


def time_table(times) -> list[str]:
    """The clock's lines: medians with quartiles."""
    def cell(q) -> str:
        return f"{1000 * q.median:.2f} ({1000 * q.low:.2f}–{1000 * q.high:.2f})"

    lines = [f"{'milliseconds':16} {'all tokens':>26} {'pruned':>26}"]
    lines += [f"{stage:16} {cell(times.unpruned[stage]):>26} {cell(q):>26}" for stage, q in times.pruned.items()]
    ratio = times.speedup
    return [*lines, f"measured {ratio.median:.3f} ({ratio.low:.3f}–{ratio.high:.3f}) times as fast; operations alone "
                    f"say {times.theoretical:.3f}"]
