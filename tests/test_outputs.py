"""Is nothing of the user's lost, whatever a command is told to write to, and is that said before any work?"""

import argparse
import os
import resource
import shutil
from pathlib import Path
from typing import get_type_hints

import matplotlib.pyplot as plt  # it looks for fonts once, and keeps what it finds at home
import pytest
import torch
from msgspec import Meta
from PIL import Image
from test_cli import run

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
from prunecap_lib.checkpoint import CHECKPOINT
from prunecap_lib.cli.caption import CaptionCommand
from prunecap_lib.cli.cost import CostCommand
from prunecap_lib.cli.data import FeaturesCommand, InfoCommand, ScenesCommand, ShardsCommand
from prunecap_lib.cli.evaluate import EvaluateCommand
from prunecap_lib.cli.options import check_figures
from prunecap_lib.cli.train import TrainCommand
from prunecap_lib.datasets.scenes import ScenesDataset, make_scenes, write_coco
from prunecap_lib.datasets.shards import ShardSettings
from prunecap_lib.datasets.shards.build import SPLIT, build_shards
from prunecap_lib.datasets.shards.dataset import ShardCache
from prunecap_lib.errors import InputError
from prunecap_lib.evaluation import metrics
from prunecap_lib.features.checks import FEATURES
from prunecap_lib.files import replace_folder
from prunecap_lib.provenance import provenance, report_path, write_json
from prunecap_lib.ranges import in_words, is_within, ranges
from prunecap_lib.reports import write_results
from prunecap_lib.training.resume import RUN

COMMANDS = {  # each option that says where to write, and the ending that its files have
    "caption --figure": (["caption", "a.png", "--checkpoint", "model", "--figure"], ".png"),
    "caption --figure of many": (["caption", "a.png", "b.png", "--checkpoint", "model", "--figure"], ""),
    "caption --results": (["caption", "a1.png", "--checkpoint", "model", "--results"], ".json"),
    "evaluate --out": (["evaluate", "--checkpoint", "model", "--limit", "4", "--out"], ".json"),
    "evaluate --results": (["evaluate", "--checkpoint", "model", "--limit", "4", "--results"], ".json"),
    "evaluate --html page": (["evaluate", "--checkpoint", "model", "--limit", "4", "--html"], ".html"),
    "evaluate --html folder": (["evaluate", "--checkpoint", "model", "--limit", "4", "--html"], ""),
    "evaluate captions --out": (["evaluate", "--captions", "captions.json", "--limit", "4", "--out"], ".json"),
    "average --out": (["average", "model", "--out"], ""),
    "train --out": (["train", "--limit", "8", "--no-progress", "--out"], ""),
    "cost --figure": (["cost", "--checkpoint", "model", "--figure"], ".svg"),
    "data scenes --out": (["data", "scenes", "--n", "2", "--size", "32", "--out"], ""),
    "data shards --out": (["data", "shards", "--dataset", "scenes", "--limit", "4", "--no-progress", "--out"], ""),
    "data features --out": (["data", "features", "--checkpoint", "model", "--limit", "4", "--out"], ""),
    "data coco --root": (["data", "coco", "--only", "annotations", "--from", "user", "--root"], ""),
}
LEFT_ALONE = ("a folder", "the working folder", "the folder above", "home", "a link to a folder")  # by `data coco`
PLACES = {
    "a file": lambda here, ending: here / f"user/notes{ending or '.txt'}",
    "a folder": lambda here, ending: here / "user",
    "the working folder": lambda here, ending: ".",
    "the folder above": lambda here, ending: "..",
    "the root": lambda here, ending: "/",
    "home": lambda here, ending: Path.home(),
    "nothing": lambda here, ending: "",
    "below a file": lambda here, ending: here / f"user/notes.txt/new{ending}",
    "below a file, deep": lambda here, ending: here / f"user/notes.txt/new/new{ending}",
    "a link to a file": lambda here, ending: link(here / f"link{ending}", f"user/notes{ending or '.txt'}"),
    "a link to a folder": lambda here, ending: link(here / "link", "user"),
    "a link to itself": lambda here, ending: link(here / f"link{ending}", f"link{ending}"),
    "below a link to nowhere": lambda here, ending: link(here / "link", "nowhere") / f"new{ending}",
    "300 letters": lambda here, ending: here / ("x" * 300 + ending),
    "300 letters in a new folder": lambda here, ending: here / "new" / ("x" * 300 + ending),
    "5,000 letters": lambda here, ending: here / ("new/" * 1250 + "x" + ending),
    "a NUL": lambda here, ending: here / f"a\0b{ending}",
    "a line break": lambda here, ending: here / f"a\nb{ending}",
    "where nobody writes": lambda here, ending: f"/proc/prunecap{ending}",
    "a device": lambda here, ending: "/dev/full",
    "a full disk": lambda here, ending: here / f"new{ending}",
}


def link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def tree(folder: Path) -> dict:
    """All that lies there: files with their bytes, links with their targets."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[path] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder that is full of somebody's things."""
    here = tmp_path / "here"
    for folder in (here / "user", tmp_path / "home"):
        folder.mkdir(parents=True)
        for name in ("notes.txt", "notes.json", "notes.html", "notes.png", "notes.svg", "config.json", "metrics.jsonl"):
            (folder / name).write_text('{"years": "of work"}')
    (here / "captions.json").write_text("[]")
    for name in ("a.png", "a1.png", "b.png"):
        Image.new("RGB", (20, 20)).save(here / name)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return here


@pytest.fixture
def no_work(monkeypatch):
    """Whatever a command would begin its work with."""
    def began(*_, **__):
        raise InputError("it began to work")

    for place in ("prunecap_lib.captioner.Captioner.load", "prunecap_lib.datasets.open_dataset",
                  "prunecap_lib.datasets.scenes.make_scenes", "prunecap_lib.training.run.open_split",
                  "prunecap_lib.datasets.download.get_coco", "prunecap_lib.cli.cost.model_of"):
        monkeypatch.setattr(place, began)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_cannot_be_written_is_refused_before_any_work(name, here, no_work, capsys):
    command, ending = COMMANDS[name]
    root = sorted(os.listdir("/"))
    for kind, place in PLACES.items():
        if name == "data coco --root" and kind in (*LEFT_ALONE, "the root", "nothing", "a full disk"):
            continue
        path = place(here, ending)
        before, limits = tree(here.parent), resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            if kind == "a full disk":
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            status, _, err = run(capsys, *command, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (status, err.count("\n")) == (2, 1) and err.startswith("prunecap: error: "), f"{kind}: {err}"
        assert "it began to work" not in err, kind
        assert tree(here.parent) == before and sorted(os.listdir("/")) == root, kind
        for one in ("link", f"link{ending}"):
            if (here / one).is_symlink():
                (here / one).unlink()


def test_averaging_into_somebodys_folder_or_file(capsys, tmp_path):
    """As it was found: ``prunecap average photos-lite0 --out DIR`` deleted what lay in DIR, or made a file a folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("years of work")
    before = tree(tmp_path)
    for place in ("folder", "file"):
        status, _, err = run(capsys, "average", "photos-lite0", "--out", tmp_path / place)
        assert status == 2 and str(tmp_path / place) in err and tree(tmp_path) == before


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    captions = [caption for scene in make_scenes(8) for caption in scene.captions]
    captioner = Captioner(CaptionerConfig(d_model=8, layers=1, heads=1, ffn=8), Vocabulary.build(captions))
    captioner.save(folder := tmp_path_factory.mktemp("model") / "model")
    return folder


@pytest.mark.slow
def test_what_a_command_wrote_it_may_write_again(model, here, capsys, monkeypatch):
    monkeypatch.setattr(metrics.java, "ptb_tokenize", list)  # no Java, and nothing in the figures: both take their time
    for draw in ("draw_caption", "plot_ledger"):
        monkeypatch.setattr(f"prunecap_lib.plotting.{draw}", lambda *_: plt.figure())
    captions = ["evaluate", "--checkpoint", model, "--dataset", "scenes", "--limit", 3, "--max-length", 3,
                "--metrics", "CIDEr", "--no-progress"]
    for command in (["caption", "a.png", "--checkpoint", model, "--max-length", 3, "--figure", "new/one.png"],
                    ["caption", "a.png", "b.png", "--checkpoint", model, "--max-length", 3, "--figure", "new/many"],
                    ["caption", "a1.png", "--checkpoint", model, "--max-length", 3, "--results", "new/results.json"],
                    [*captions, "--out", "new/report.json", "--html", "new/page", "--results", "new/all.json"],
                    [*captions, "--html", "new/page.html"],
                    ["average", model, "--out", "new/mean"],
                    ["cost", "--checkpoint", model, "--figure", "new/cost.pdf"],
                    ["data", "scenes", "--n", 2, "--size", 32, "--out", "new/scenes"],
                    ["data", "scenes", "--n", 1, "--size", 32, "--split", "val", "--out", "new/scenes"],
                    ["data", "shards", "--dataset", "scenes", "--limit", 2, "--no-progress", "--out", "new/shards"]):
        for _ in range(2):
            status, _, err = run(capsys, *command)
            assert status == 0, err
    hidden = [path for path in (here / "new").rglob(".*")]
    assert hidden == [] and (here / "new" / "scenes" / "captions_train.json").exists()


def test_one_file_for_two_outputs_or_for_in_and_out(here, no_work, capsys):
    (here / "x").mkdir()
    for command, says in (
            (["evaluate", "--checkpoint", "m", "--out", "x.json", "--results", "x/../x.json"], "--out and --results"),
            (["evaluate", "--captions", "captions.json", "--results", "captions.json"], "--captions and --results"),
            (["caption", "a1.png", "--figure", "x.png", "--results", "./x.png"], "--figure and --results")):
        status, _, err = run(capsys, *command)
        assert status == 2 and f"{says} both name" in err


def test_averaging_into_one_of_the_averaged_is_refused(model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "one")
    before = tree(tmp_path)
    status, _, err = run(capsys, "average", model, tmp_path / "one", "--out", tmp_path / "one")
    assert status == 2 and "would be lost" in err and tree(tmp_path) == before


def test_a_users_file_in_a_checkpoint_goes_over_into_the_next(model, tmp_path):
    captioner, folder = Captioner.load(model), tmp_path / "model"
    captioner.save(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "plots").mkdir()
    captioner.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "notes.txt", "plots"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_link_to_a_checkpoint_stays_one(model, tmp_path):
    captioner = Captioner.load(model)
    captioner.save(tmp_path / "disk" / "model")
    (tmp_path / "link").symlink_to("disk/model")
    (tmp_path / "disk" / "model").rename(tmp_path / "disk" / ".model.previous")  # a crash
    Captioner.load(tmp_path / "link")
    captioner.save(tmp_path / "link")
    assert os.readlink(tmp_path / "link") == "disk/model" and os.listdir(tmp_path / "disk") == ["model"]


@pytest.mark.parametrize("hidden", [".model.partial", ".model.previous"])
def test_a_hidden_sibling_is_only_deleted_if_a_crash_left_it(model, tmp_path, hidden):
    captioner = Captioner.load(model)
    (tmp_path / hidden).mkdir()
    (tmp_path / hidden / "thesis.txt").write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=f"{hidden} is in the way"):
        captioner.save(tmp_path / "model")
    with pytest.raises(Exception, match="no folder with a config.json"):
        Captioner.load(tmp_path / "model")  # looks for what a crash left
    assert tree(tmp_path) == before
    (tmp_path / hidden / "thesis.txt").rename(tmp_path / hidden / "state.safetensors")  # half a checkpoint
    captioner.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_comes_while_one_is_written_stays(tmp_path):
    with pytest.raises(InputError, match="left as it is"), replace_folder(tmp_path / "x", CHECKPOINT) as new:
        (new / "model.safetensors").write_text("weights")
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "thesis.txt").write_text("years of work")
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "thesis.txt"]


def test_the_library_itself_refuses_too(here):
    (here / "user" / "train").mkdir()
    (here / "user" / "train" / "00000.tar").write_text("mine")
    before = tree(here)
    user, vocabulary = here / "user", Vocabulary.build(["a cat"])
    for write in (lambda: write_json(user / "notes.json", {}), lambda: write_results(user / "notes.json", {1: "a cat"}),
                  lambda: vocabulary.save(user / "notes.json"), lambda: write_coco(make_scenes(1), user),
                  lambda: build_shards(ScenesDataset(n=2), user, ShardSettings(16))):
        with pytest.raises(InputError, match="left as it is"):
            write()
    assert tree(here) == before


def test_results_that_somebody_has_edited_are_the_users(tmp_path):
    write_results(tmp_path / "r.json", {1: "a cat"})
    write_results(tmp_path / "r.json", {1: "a dog"})
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text() + "\n")
    with pytest.raises(InputError, match="left as it is"):
        write_results(tmp_path / "r.json", {1: "a bird"})


def test_the_cache_of_shards_drops_only_shards(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNECAP_CACHE", str(tmp_path))
    (tmp_path / "shards").mkdir()
    names = ("thesis.tar", "tmp notes", "0" * 64 + ".tar")
    for name in names:
        (tmp_path / "shards" / name).write_bytes(bytes(10))
    cache = ShardCache("http://nowhere", [])
    cache.most = 1
    cache._make_room(0)
    assert sorted(os.listdir(tmp_path / "shards")) == sorted(names[:2])


def test_figures_of_pictures_with_one_name_differ(tmp_path):
    pictures = [Path(name) for name in ("a/x.jpg", "b/x.jpg", "x.png", "X.jpg", "x-2.jpg", "e\u0301.jpg", "\u00e9.jpg",
                                        "y" * 250 + ".jpg")]
    names = [path.name for path in check_figures(tmp_path / "new", pictures)]
    assert names[:5] == ["x.png", "x-2.png", "x-3.png", "X-4.png", "x-2-2.png"]
    assert len({name.casefold() for name in names}) == len(names) and names[6] == "\u00e9-2.png"
    assert max(map(len, names)) < 250 and names == [path.name for path in check_figures(tmp_path / "new", pictures)]


def test_metrics_that_cannot_be_had_are_told_before_any_work(here, no_work, capsys, monkeypatch):
    evaluate = ["evaluate", "--checkpoint", "model", "--metrics"]
    status, _, err = run(capsys, *evaluate, "CIDEr", "FID")
    assert status == 2 and "no metric 'FID'; choose of BLEU" in err
    status, _, err = run(capsys, *evaluate, "SPICE")
    assert status == 2 and "SPICE needs stanford-corenlp" in err

    def no_java():
        raise InputError("Java not found")

    monkeypatch.setattr(metrics.java, "java_folder", no_java)
    status, _, err = run(capsys, *evaluate, "CIDEr")
    assert status == 2 and "Java not found" in err


NUMBERS = {
    "caption": (CaptionCommand, ["caption", "a.png"]), "evaluate": (EvaluateCommand, ["evaluate", "--checkpoint", "m"]),
    "cost": (CostCommand, ["cost"]), "train": (TrainCommand, ["train", "--out", "new"]),
    "data scenes": (ScenesCommand, ["data", "scenes", "--out", "new"]),
    "data shards": (ShardsCommand, ["data", "shards", "--out", "new"]),
    "data features": (FeaturesCommand, ["data", "features", "--out", "new"]),
    "data info": (InfoCommand, ["data", "info"]),
}


@pytest.mark.parametrize("allowed, inside, outside, says", [
    (Meta(ge=1), (1, 10**40), (0, -1), "at least 1"), (Meta(gt=0), (1e-9,), (0, -1), "above 0"),
    (Meta(ge=0, lt=1), (0, 0.999), (1, -1e-9), "at least 0 and below 1"),
    (Meta(ge=1, le=95), (1, 95), (0, 96, 500), "at least 1 and at most 95")])
def test_a_range_holds_finite_numbers(allowed, inside, outside, says):
    nan, inf = float("nan"), float("inf")
    assert all(is_within(value, allowed) for value in inside) and in_words(allowed).startswith(says)
    assert not any(is_within(value, allowed) for value in (*outside, nan, inf, -inf))


def test_a_bound_of_the_machine_is_told_only_beyond_it():
    allowed = ranges(TrainCommand)["lr"]
    assert in_words(allowed, -1.0) == "above 0" and in_words(allowed, 1e40) == "above 0 and at most 1e+30"


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_make_no_sense_are_refused(name, here, no_work, capsys):
    kind, command = NUMBERS[name]
    found, before = ranges(kind), tree(here)
    for field, hint in get_type_hints(kind).items():
        whole = hint in (int, int | None)
        if not whole and hint not in (float, float | None):
            continue
        option = "--" + field.replace("_", "-")
        wrong = [value for value in (-1, 0, 10**40) if not is_within(value, found[field])]
        assert {-1, 10**40} <= set(wrong)  # every number has a range, and it ends below what float32 can hold
        value = wrong[0] if whole else float("nan")
        status, _, err = run(capsys, *command, f"{option}={value}")
        assert status == 2 and err.count("\n") == 1, f"{option} {value}: {err}"
        assert err.startswith(f"prunecap: error: {option} is {value}; it must be "), err
    assert tree(here) == before


def test_scripts_refuse_a_file_that_is_no_report_of_theirs(tmp_path):
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=report_path)
    (tmp_path / "mine.json").write_text('{"rows": []}')
    write_json(tmp_path / "new.json", {"provenance": provenance()})
    assert parser.parse_args(["--out", str(tmp_path / "new.json")]).out == tmp_path / "new.json"
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", str(tmp_path / "mine.json")])


@pytest.mark.parametrize("kind, name", [(CHECKPOINT, "config.json"), (FEATURES, "features.json"),
                                        (RUN, "metrics.jsonl"), (SPLIT, "index.json")])
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path, kind, name):
    os.mkfifo(tmp_path / name)
    assert not kind.owns(tmp_path)
