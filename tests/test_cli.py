"""Does the command line do what its help says, and fail in one line?"""

import json
import re
import shutil

import pytest
import torch
from PIL import Image

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary, datasets
from prunecap_lib.cli import COMMANDS, HELP, main
from prunecap_lib.datasets.scenes import make_scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small checkpoint, two pictures, and one that is cut short."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    captions = [caption for scene in make_scenes(20, split="train") for caption in scene.captions]
    config = CaptionerConfig(encoder="vit", d_model=16, layers=1, heads=2, ffn=16, max_length=24)
    Captioner(config, Vocabulary.build(captions)).save(folder / "model")
    for name, scene in zip("ab", make_scenes(2, split="test"), strict=True):
        scene.image.save(folder / f"{name}.png")
    (folder / "cut").mkdir()
    (folder / "cut" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + b"0" * 40)
    return folder


def run(capsys, *arguments):
    """(exit status, stdout, stderr)"""
    status = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code or 0
    return status, *capsys.readouterr()


def test_help_names_every_command(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0 and out == HELP and all(f"\n  {command} " in out for command in COMMANDS)
    assert run(capsys)[1] == HELP
    assert run(capsys, "--version")[1].startswith("prunecap ")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(capsys, command):
    status, out, _ = run(capsys, command, "--help")
    assert status == 0 and "examples:" in out and f"prunecap {command}" in out


def test_caption_prints_one_line_a_picture(capsys, folder):
    status, out, _ = run(capsys, "caption", folder / "a.png", folder / "b.png", "--checkpoint", folder / "model")
    lines = out.splitlines()
    assert status == 0 and [line.split("\t")[0] for line in lines] == [str(folder / "a.png"), str(folder / "b.png")]


def test_a_name_forges_no_line_and_clears_no_screen(capsys, folder, tmp_path):
    (tmp_path / "cut\x1b[2J.jpg").write_bytes(b"no picture")
    shutil.copy(folder / "a.png", tmp_path / "a\nb\tc\u202e.png")
    status, out, err = run(capsys, "caption", tmp_path, "--checkpoint", folder / "model")
    assert status == 2 and out.startswith(str(tmp_path / r"a\nb\tc\u202e.png") + "\t") and out.count("\n") == 1
    assert r"cut\x1b[2J.jpg" in err and "\x1b" not in out + err and err.count("\n") == 1


@pytest.mark.slow
def test_caption_as_json_with_figure(capsys, folder, tmp_path):
    status, out, err = run(capsys, "caption", folder / "a.png", "--checkpoint", folder / "model", "--json",
                           "--prune-ratio", 0.5, "--figure", tmp_path / "new" / "out.png")
    found = json.loads(out)
    assert status == 0 and len(found["kept"]) == 32 and len(found["ids"]) == len(found["words"])
    with Image.open(tmp_path / "new" / "out.png") as figure:
        assert figure.text["Title"] == found["text"] and "32 of its 64 cells" in figure.text["Description"]


def test_pruning_inside_the_encoder(capsys, folder):
    settings = ["caption", folder / "a.png", "--checkpoint", folder / "model", "--json", "--prune-ratio", 0.5]
    status, out, _ = run(capsys, *settings, "--schedule", "0.5@2,4/key_norm")
    assert status == 0 and len(json.loads(out)["kept"]) == 8
    assert len(json.loads(run(capsys, *settings, "--schedule", "none")[1])["kept"]) == 32


def test_a_broken_picture_does_not_stop_the_others(capsys, folder):
    status, out, err = run(capsys, "caption", folder / "cut", folder, "--checkpoint", folder / "model")
    assert status == 2 and len(out.splitlines()) == 2 and "cut.jpg" in err and err.count("\n") == 1


@pytest.mark.parametrize("arguments, says", [
    (["dance"], "choose caption, train, average, evaluate, cost, data"),
    (["caption", "no.jpg", "--checkpoint", "MODEL"], "no.jpg not found"),
    (["caption", "A", "--checkpoint", "no-such"], "shipped are"),
    (["caption", "A", "--checkpoint", "MODEL", "--prune-ratio", "1"], "--prune-ratio is 1.0"),
    (["caption", "A", "--checkpoint", "MODEL", "--scorer", "luck"], "choose one of random"),
    (["caption", "A", "--checkpoint", "MODEL", "--schedule", "0.5"], "schedule '0.5' cannot be read"),
    (["caption", "A", "--checkpoint", "MODEL", "--schedule", "0.5@6"], "after block 6 of 6 nothing is left"),
    (["train", "--schedule", "0@3", "--out", "OUT"], "keep rate 0.0"),
    (["train", "--schedule", "auto", "--out", "OUT"], "cannot train"),
    (["evaluate", "--checkpoint", "MODEL", "--dataset", "scenes", "--split", "summer"], "summer"),
    (["evaluate", "--checkpoint", "MODEL", "--split", "test"], "give --dataset scenes, flickr8k"),
    (["caption", "A", "--checkpoint", ""], "shipped are"), (["caption", "A", "--checkpoint", "A"], "shipped are"),
    (["caption", "A", "--checkpoint", "MODEL", "--device", "cuda:99"], "is not here; here are"),
    (["evaluate", "--checkpoint", "MODEL", "--dataset", "flickr8k", "--root", "no-such-folder"], "no-such-folder"),
    (["train", "--prune-ratio", "1.5", "--out", "OUT"], "--prune-ratio is 1.5; it must be at least 0 and below 1"),
    (["data", "features"], "either --checkpoint or --encoder"),
    (["data", "features", "--encoder", "vit"], "no weights yet"),
    (["data", "features", "--checkpoint", "MODEL", "--prune-ratio", "0.5"], "Give --scorer, one of grid"),
    (["data", "features", "--checkpoint", "MODEL", "--prune-ratio", "0.5", "--scorer", "pilot"], "cannot be stored"),
])
def test_errors_are_one_line_that_names_the_thing(capsys, folder, tmp_path, arguments, says):
    places = {"MODEL": folder / "model", "A": folder / "a.png", "OUT": tmp_path / "out"}
    status, _, err = run(capsys, *(places.get(argument, argument) for argument in arguments))
    assert status == 2 and says in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()
    assert err.splitlines()[-1].startswith("prunecap: error:")


@pytest.mark.slow
def test_train_evaluate_and_data(capsys, tmp_path, monkeypatch):
    small = ["--d-model", 16, "--layers", 1, "--heads", 2, "--ffn", 16, "--batch-size", 8, "--limit", 16,
             "--schedule", "0.75@2/fuse", "--tracker", "none", "--draw", 0]
    training = ["train", *small, "--epochs", 1, "--val-limit", 4, "--out", tmp_path / "run", "--no-progress"]
    status, out, _ = run(capsys, *training)
    assert status == 0 and "validation loss" in out
    (tmp_path / "run" / "metrics.jsonl").unlink()
    status, out, _ = run(capsys, *training)
    assert status == 0 and "its log says nothing" in out
    status, out, _ = run(capsys, "evaluate", "--checkpoint", tmp_path / "run" / "checkpoint", "--limit", 6,
                         "--metrics", "CIDEr", "--out", tmp_path / "report.json", "--no-progress")
    report = json.loads((tmp_path / "report.json").read_text())
    assert status == 0 and len(report.pop("captions")) == 6 and json.loads(out) == report
    assert report["prune_ratio"] == 0.3 and report["schedule"] == "0.75@2/fuse"
    assert set(report["scene_accuracy"]) == {"kind", "colour", "count", "relation"}
    assert {"command", "versions", "date", "machine", "seed"} <= set(report["provenance"])

    status, out, err = run(capsys, "evaluate", "--checkpoint", tmp_path / "run" / "checkpoint", "--limit", 1,
                           "--metrics", "BLEU", "CIDEr", "--html", tmp_path / "page", "--no-progress")
    one = json.loads(out)
    assert status == 0 and one["scores"].pop("CIDEr") is None
    assert set(one["scores"]) == {f"Bleu_{n}" for n in range(1, 5)}
    assert "1 picture" in one["undefined"]["CIDEr"]
    assert one["CIDEr_interval"] is one["CIDEr_constant"] is None and "not defined: CIDEr: " in err
    assert '"score": null' in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")

    status, out, _ = run(capsys, "data", "scenes", "--out", tmp_path / "scenes", "--n", 3, "--size", 64)
    assert status == 0 and len(list((tmp_path / "scenes" / "images").iterdir())) == 3
    status, out, _ = run(capsys, "data", "info", "--limit", 4)
    assert status == 0 and "4 pictures, 20 captions" in out
    monkeypatch.setitem(datasets._SCENES, "train", 500)  # whose words are counted, and 20,000 take their time
    status, out, _ = run(capsys, "data", "info", "--limit", 4, "--vocabulary-size", 40)
    assert status == 0 and "40 entries" in out and re.search(r"unknown in val: \d", out) and "CIDEr " in out
    status, _, err = run(capsys, "data", "info", "--limit", 4, "--min-count", 5, "--split", "train")
    assert status == 2 and "choose another --split" in err
    status, _, err = run(capsys, "data", "info", "--limit", 4, "--min-count", 10**9)
    assert status == 2 and "no word in it" in err


def test_features_are_forecast_then_built_then_trained_on(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNECAP_DATA", str(tmp_path))
    command = ["data", "features", "--checkpoint", folder / "model", "--limit", 8, "--no-progress",
               "--prune-ratio", 0.25, "--scorer", "key_norm"]
    status, out, _ = run(capsys, *command, "--forecast")
    assert status == 0 and "48 tokens of 64, 128 channels" in out and "12.7 kB a picture" in out
    assert not (tmp_path / "features").exists()
    status, out, _ = run(capsys, *command)
    stored = tmp_path / "features" / "scenes-train-vit-64-key_norm-0.25"
    assert status == 0 and f"features: {stored}" in out and (stored / "x.bin").stat().st_size == 8 * 48 * 128 * 2
    before = (stored / "x.bin").stat().st_mtime_ns
    assert run(capsys, *command)[0] == 0 and (stored / "x.bin").stat().st_mtime_ns == before
    status, _, err = run(capsys, *command[:-4], "--out", stored)
    assert status == 2 and "asked for are all tokens" in err
