"""Which bad inputs are tried? Every field, file, option and output that there is, with every kind of damage."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

from tyro.conf import Positional

import damage
from workspace import (
    CAPTION,
    EVALUATE,
    FEATURES,
    FLICKR,
    FROM_SHARDS,
    INFO,
    KARPATHY,
    RESUME,
    SCORE,
    TRAIN,
    write_json,
)


@dataclass
class Case:
    """One command in a workspace that something is wrong with."""

    name: str
    argv: list[str]
    spoil: Callable[[Path], None] = lambda place: None
    expect: str = "refused"  # "refused", "fine", or "any": then only no traceback, no hang, no loss
    ours: tuple[str, ...] = ()  # what the command may change
    as_before: list[str] | None = None  # a success is fine where the command prints what it prints without the damage
    file_limit: int | None = None  # bytes that a file may have: a full disk


# Each file that the library reads: the commands that read it, and what these may write
READERS = {
    "model/config.json": (CAPTION, ()),
    "coco/annotations/captions_val2017.json": (EVALUATE, ()),
    "coco/annotations/captions_train2017.json": (INFO + ["--split", "train"], ()),
    "karpathy/dataset_coco.json": (KARPATHY + ["--split", "train"], ()),
    "captions.json": (SCORE, ()),
    "shards/val/index.json": (FROM_SHARDS, ()),
    "features/features.json": (FEATURES, ("features",)),
    "run/checkpoint/state.json": (RESUME, ("run",)),
    "run/checkpoint/config.json": (["average", "run/checkpoint", "--out", "mean"], ("mean",)),
}
BINARIES = {
    "model/model.safetensors": (CAPTION, ()),
    "photo.jpg": (CAPTION, ()),
    "shards/val/00000.tar": (FROM_SHARDS, ()),
    "features/x.bin": (FEATURES, ("features",)),
    "run/checkpoint/state.safetensors": (RESUME, ("run",)),
    "run/metrics.jsonl": (RESUME, ("run",)),
    "flickr8k/captions.txt": (FLICKR, ()),
    "flickr8k/Flickr_8k.trainImages.txt": (FLICKR, ()),
    "coco/val2017/000000000010.jpg": (EVALUATE, ()),
}


def fields_with_wrong_values(template: Path) -> Iterator[Case]:
    """Every field of every JSON file, with every kind of wrong value."""
    for file, (argv, ours) in READERS.items():
        content = json.loads((template / file).read_text())
        for path in damage.json_paths(content):
            if path[0] == "vocabulary" and path[1:] or path[0] == "image_ids" and path[1:]:
                continue
            for kind, written in {**damage.JSON_VALUES, "no field": None}.items():
                text = damage.with_value(content, path, written)
                yield Case(f"{file} {'.'.join(map(str, path))} = {kind}", argv,
                           lambda place, file=file, text=text: (place / file).write_text(text) and None,
                           expect="as before" if kind in damage.NEVER_RIGHT else "any", ours=ours)


def files_with_damage(template: Path) -> Iterator[Case]:
    """Every file that is read, damaged in every way."""
    for file, (argv, ours) in {**READERS, **BINARIES}.items():
        for kind, act in damage.FILES.items():
            # A FIFO has no bytes, and what is rotten may be so where nobody looks
            expect = "any" if kind in ("rotten", "cut by a byte") or ours or file == "photo.jpg" else "refused"
            if (file, kind) in {("karpathy/dataset_coco.json", "gone"),  # then COCO's own split is read
                                ("flickr8k/captions.txt", "cut in half")}:  # a table does not say how long it is
                expect = "any"
            yield Case(f"{file} is {kind}", argv, lambda place, file=file, act=act: act(place / file) and None,
                       expect=expect, ours=ours)


def pictures(template: Path) -> Iterator[Case]:
    for kind, write in {**damage.NO_PICTURES, **damage.ODD_PICTURES}.items():
        good = kind in damage.ODD_PICTURES
        name = write(template)
        (template / name).unlink()
        yield Case(f"picture: {kind}", [CAPTION[0], name, *CAPTION[2:]],
                   lambda place, write=write: write(place) and None, expect="fine" if good else "refused")
    for kind, name in {"300 letters": "x" * 300 + ".jpg", "a NUL": "a\0b.jpg", "empty": "",
                       "the root": "/", "gone": "gone.jpg", "a device": "/dev/zero", "/proc": "/proc/self/mem"}.items():
        yield Case(f"picture name: {kind}", [CAPTION[0], name, *CAPTION[2:]])
    for kind, name in {"a line break": b"a\nb.jpg", "a tab": b"a\tb.jpg", "Latin-1": b"caf\xe9.jpg",
                       "escape": b"\x1b[2J.jpg", "a dash": b"-x.jpg", "emoji": "😀.jpg".encode(),
                       "right to left": "\u202egpj.exe.jpg".encode()}.items():
        def put(place: Path, name=name) -> None:
            (place / "odd").mkdir()
            shutil.copy(place / "photo.jpg", os.path.join(os.fsencode(place / "odd"), name))
        yield Case(f"picture name: {kind}", [CAPTION[0], "odd", *CAPTION[2:]], put, expect="fine")


def outputs(template: Path) -> Iterator[Case]:
    """Every option that writes, to every place where it should not."""
    commands = {"caption --figure": [*CAPTION, "--figure"], "caption --results": [*CAPTION, "--results"],
                "caption many --figure": [CAPTION[0], "photos", *CAPTION[2:], "--figure"],
                "evaluate --out": [*EVALUATE, "--out"], "evaluate --results": [*EVALUATE, "--results"],
                "evaluate --html": [*EVALUATE, "--html"], "evaluate captions --out": [*SCORE, "--out"],
                "average --out": ["average", "model", "--out"], "train --out": [*TRAIN, "--out"],
                "data scenes --out": ["data", "scenes", "--n", "2", "--size", "32", "--out"],
                "data shards --out": ["data", "shards", "--dataset", "coco", "--root", "coco", "--split", "val",
                                      "--no-progress", "--out"],
                "data features --out": [*FEATURES[:-3], "--no-progress", "--out"],
                "data coco --root": ["data", "coco", "--only", "annotations", "--from", "user", "--root"],
                "cost --figure": ["cost", "--checkpoint", "model", "--figure"]}
    for name, argv in commands.items():
        for kind, where in damage.OUTPUTS.items():
            yield _blocked(f"{name} {kind}", argv, where)
        yield Case(f"{name} on a full disk", [*argv, "new" if "--figure" not in argv else "new.png"], expect="any",
                   ours=("new",), file_limit=2000)


def _blocked(name: str, argv: list[str], where: Callable[[Path], str]) -> Case:
    case = Case(name, argv, expect="any")

    def spoil(place: Path) -> None:
        case.argv = [*argv, where(place)]
    case.spoil = spoil
    return case


def options(template: Path) -> Iterator[Case]:
    """Every option of every command that takes a number or text, with every wild number or text."""
    from prunecap_lib.cli import average, caption, cost, evaluate, train
    from prunecap_lib.cli.data import FeaturesCommand, InfoCommand, ScenesCommand, ShardsCommand
    places = {"caption": (caption.CaptionCommand, CAPTION), "evaluate": (evaluate.EvaluateCommand, EVALUATE),
              "train": (train.TrainCommand, [*TRAIN, "--out", "new"]),
              "average": (average.AverageCommand, ["average", "model", "--out", "new"]),
              "cost": (cost.CostCommand, ["cost", "--checkpoint", "model"]),
              "data features": (FeaturesCommand, [*FEATURES[:-3], "--no-progress", "--out", "new"]),
              "data info": (InfoCommand, INFO),
              "data scenes": (ScenesCommand, ["data", "scenes", "--size", "32", "--n", "2", "--out", "new"]),
              "data shards": (ShardsCommand, ["data", "shards", "--dataset", "coco", "--root", "coco", "--split", "val",
                                              "--no-progress", "--out", "new"])}
    for name, (command, argv) in places.items():
        for field, kinds in _kinds(command):
            option = "--" + field.replace("_", "-")
            if kinds & {int, float}:
                hopeless = damage.NO_NUMBERS if float in kinds else {*damage.NO_NUMBERS, *damage.NO_WHOLE_NUMBERS}
                for value in damage.NUMBERS:
                    yield Case(f"{name} {option} {value or 'nothing'}", [*argv, f"{option}={value}"],
                               expect="refused" if value in hopeless else "any", ours=("new",))
            else:
                for value in damage.TEXTS:
                    yield Case(f"{name} {option} {value[:20]!r}", [*argv, option, value], expect="any", ours=("new",))
    for option, around in (("--gpu-memory", "{}GB"), ("--schedule", "{}@2"), ("--schedule", "{}%@2"),
                           ("--schedule", "0.7@{}")):
        for number in (*damage.NUMBERS, "9" * 5000):
            written = around.format(number)
            if written == "１GB":
                continue  # one gigabyte, as good as 1GB: what fits is counted, for longer than a refusal may take
            yield Case(f"cost {option} {written[:50]}", ["cost", "--checkpoint", "model", f"{option}={written}"],
                       expect="refused" if number in damage.NO_NUMBERS else "any")
    for argv in (["caption"], ["nothing"], ["caption", "--help-me"], ["train", "--encoder"], ["data"], ["data", "moon"],
                 [""], ["caption", "photo.jpg", "--beam_siz", "3"], ["--", "x"], ["evaluate"], ["average"]):
        yield Case(f"prunecap {' '.join(argv)}", argv, expect="any")


def _kinds(command: type) -> Iterator[tuple[str, set]]:
    """Each option of a command that is no switch, and the types of what may stand there, without their ranges."""
    with_ranges = get_type_hints(command, include_extras=True)
    for name, hint in get_type_hints(command).items():
        if hint is not bool and Positional not in getattr(with_ranges[name], "__metadata__", ()):
            yield name, {hint, *get_args(hint)}


def pairs(template: Path) -> Iterator[Case]:
    """Files that are each well formed, and do not belong together."""
    def edit(file: str, change: Callable[[object], object]) -> Callable[[Path], None]:
        def act(place: Path) -> None:
            content = json.loads((place / file).read_text())
            write_json(place / file, change(content) or content)
        return act

    captions, karpathy, index = ("coco/annotations/captions_val2017.json", "karpathy/dataset_coco.json",
                                 "shards/val/index.json")

    def both(first: dict, second: dict, **same) -> None:
        second.update({key: first[key] for key in same})

    yield Case("COCO: one id twice", EVALUATE, edit(captions, lambda c: both(c["images"][0], c["images"][1], id=1)))
    yield Case("COCO: ids are texts in images", EVALUATE,
               edit(captions, lambda c: [i.update(id=str(i["id"])) for i in c["images"]] and None))
    yield Case("COCO: ids are texts in annotations", EVALUATE,
               edit(captions, lambda c: [a.update(image_id=str(a["image_id"])) for a in c["annotations"]] and None))
    for name in ("../../user/holiday.png", "/etc/passwd", "", ".", "a\0b.jpg", "x" * 300, "../val2017/../../photo.jpg"):
        yield Case(f"COCO: file_name {name[:30]!r}", EVALUATE,
                   edit(captions, lambda c, name=name: c["images"][0].update(file_name=name)))
        yield Case(f"Karpathy: filename {name[:30]!r}", KARPATHY + ["--split", "train"],
                   edit(karpathy, lambda c, name=name: c["images"][0].update(filename=name)),
                   expect="refused" if ".." in name or "\0" in name or name in ("", ".") else "any")  # found by number
    yield Case("Karpathy: one id twice", KARPATHY + ["--split", "train"],
               edit(karpathy, lambda c: both(c["images"][0], c["images"][1], cocoid=1)))
    yield Case("Karpathy: a split that is none", KARPATHY + ["--split", "train"],
               edit(karpathy, lambda c: c["images"][0].update(split="training")))
    for what in ("image_ids", "captions", "offsets", "lengths"):
        yield Case(f"shards: {what} in reverse", FROM_SHARDS,
                   edit(index, lambda c, what=what: c["shards"][0][what].reverse()))
    yield Case("shards: an id twice", FROM_SHARDS,
               edit(index, lambda c: c["shards"][0]["image_ids"].__setitem__(1, c["shards"][0]["image_ids"][0])))
    yield Case("shards: train's in val's folder", FROM_SHARDS, lambda place: shutil.copytree(
        place / "shards/train", place / "shards/val", dirs_exist_ok=True) and None)
    yield Case("shards: another name", FROM_SHARDS,
               edit(index, lambda c: c["shards"][0].update(name="../../photo.jpg")))
    yield Case("captions: an id twice", SCORE, edit("captions.json", lambda c: c[1].update(image_id=c[0]["image_id"])))
    yield Case("captions: ids are texts", SCORE,
               edit("captions.json", lambda c: [a.update(image_id=str(a["image_id"])) for a in c] and None),
               expect="any")
    yield Case("captions: one is missing", SCORE, edit("captions.json", lambda c: c.pop() and None))
    yield Case("captions: one too many", SCORE,  # a results file may hold the whole of val2014
               edit("captions.json", lambda c: c.append({"image_id": 99, "caption": "x"})), expect="any")
    yield Case("captions: all are empty", SCORE,
               edit("captions.json", lambda c: [a.update(caption="") for a in c] and None),
               expect="any")
    for file in ("model/config.json",):
        yield Case("checkpoint: other words", CAPTION, edit(file, lambda c: c["vocabulary"].reverse()))
        yield Case("checkpoint: a word twice", CAPTION,
                   edit(file, lambda c: c["vocabulary"].__setitem__(5, c["vocabulary"][6])))
        yield Case("checkpoint: other sizes", CAPTION, edit(file, lambda c: c["config"].update(d_model=32)))
        for key, value in (("mean", [0.5] * 2), ("std", [0, 0, 0]), ("std", [-1, 1, 1]), ("image_size", 10**9),
                           ("interpolation", "bad"), ("crop_pct", 0), ("crop_mode", "none"), ("mean", 0.5)):
            yield Case(f"checkpoint: preprocessing {key} {value}", CAPTION,
                       edit(file, lambda c, key=key, value=value: c["preprocessing"].update({key: value})))
    for kind in ("integers", "NaN", "infinite", "another shape", "lacking", "too many", "complex"):
        yield Case(f"weights: {kind}", CAPTION,
                   lambda place, kind=kind: _weights(place / "model/model.safetensors", kind))


def _weights(path: Path, kind: str) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    with safe_open(path, framework="pt") as file:
        state, told = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    key = "decoder.layers.0.ffn.0.weight" if "decoder.layers.0.ffn.0.weight" in state else sorted(state)[-1]
    change = {"integers": lambda v: v.to(torch.int64), "NaN": lambda v: v.clone().fill_(float("nan")),
              "infinite": lambda v: v.clone().fill_(float("inf")), "another shape": lambda v: v[:-1].contiguous(),
              "complex": lambda v: v.to(torch.complex64)}
    if kind == "lacking":
        del state[key]
    elif kind == "too many":
        state["encoder.extra"] = torch.zeros(3)
    else:
        state[key] = change[kind](state[key])
    save_file(state, path, metadata=told)


FAMILIES = {"fields": fields_with_wrong_values, "files": files_with_damage, "pictures": pictures, "outputs": outputs,
            "options": options, "pairs": pairs}
