"""Do two processes train as one does with the doubled batch, stop together, and go on exactly?"""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch
from close import assert_close
from doubles import trained_in_double
from safetensors.torch import load_file
from two_processes import run_two
from worker import train_all

from prunecap_lib import Captioner, TrainConfig, train
from prunecap_lib.datasets.shards import ShardSettings
from prunecap_lib.datasets.shards.build import build_shards
from prunecap_lib.errors import CheckpointError, InputError
from prunecap_lib.text import PAD
from prunecap_lib.training.batches import Batches, open_split
from prunecap_lib.training.build import new_captioner
from prunecap_lib.training.run_log import CLOCKS

pytestmark = pytest.mark.slow

TINY = TrainConfig(limit=40, batch_size=4, epochs=5, image_size=32, d_model=16, layers=1, heads=2, ffn=32, dropout=0.0,
                   captions_per_image=2, val_limit=9, log_every=1, precision="fp32", progress=False)
NOISY = replace(TINY, epochs=2, dropout=0.3, augment=True, scorer="random", ema=0.9, keep_last=1)
DRAWN = replace(TINY, objective="self_critical", start="first/checkpoint", samples=3, epochs=2, max_words=12, lr=3e-3,
                caption_limit=9)
RUNS = {"trained": replace(TINY, save_every=5),
        "frozen, from shards": replace(TINY, epochs=2, freeze_encoder=True, dataset="shards"), "noisy": NOISY,
        "stopped": NOISY, "nan": replace(NOISY, epochs=1), "self-critical": DRAWN,
        "early stop": replace(TINY, lr=1e-30, patience=2, keep_last=2, tracker="tensorboard"), "after it": NOISY}
EXTRA = {"stopped": {"interrupt": 3}, "nan": {"poison": 2},
         **{name: {"double": True} for name in ("trained", "frozen, from shards", "self-critical")}}  # meet one process


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for split, n in (("train", TINY.limit), ("val", TINY.val_limit)):
        build_shards(open_split(TINY, split, n), folder, ShardSettings(side=32, per_shard=16), progress=False,
                     say=lambda line: None)
    return str(folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A captioner that has seen a few words, for a second stage to start from."""
    return str(train(replace(TINY, epochs=4, lr=3e-3, out=str(tmp_path_factory.mktemp("first")))).out / "checkpoint")


@pytest.fixture(scope="module")
def two(tmp_path_factory, shards, first):
    """What two processes wrote: one folder a run. All in one launch, for starting is what takes time."""
    folder = tmp_path_factory.mktemp("two")
    runs = [asdict(replace(config, out=str(folder / name), root=shards, start=config.start and first))
            | EXTRA.get(name, {})
            for name, config in RUNS.items()]
    run_two(train_all, runs)
    return folder


def lines(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in found]


def weights(folder):
    return Captioner.load(folder / "checkpoint").state_dict()


def check_close(first, second, within=1e-4):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        assert all(abs(one[key] - other[key]) <= within for key in one), (one, other)


@pytest.mark.parametrize("name", ["trained", "frozen, from shards"])
def test_two_processes_have_the_losses_of_one(two, shards, tmp_path, name):
    with trained_in_double():
        train(replace(RUNS[name], batch_size=8, root=shards, out=str(tmp_path)))
    found, expected = lines(two / name), lines(tmp_path)
    assert sum("loss" in line for line in found) == 5 * RUNS[name].epochs
    check_close([line for line in found if "loss" in line], [line for line in expected if "loss" in line])
    check_close(found[:6], expected[:6])  # the first validation, too


def test_stopped_in_one_process_and_resumed_in_both_equals_unbroken(two):
    """SIGTERM in the third of five steps, with dropout, crops and a random scorer in each process."""
    assert lines(two / "stopped") == lines(two / "noisy")
    first, second = weights(two / "stopped"), weights(two / "noisy")
    assert all(torch.equal(first[key], second[key]) for key in first)
    states = load_file(two / "noisy" / "checkpoint" / "state.safetensors")["rng.cpu"]
    assert len(states) == 2 and not torch.equal(*states)  # two processes do not draw the same noise


def test_nan_in_one_process_stops_both(two):
    errors = [(two / "nan" / f"error-{rank}").read_text() for rank in (0, 1)]
    assert all("the loss is nan at step 1" in error for error in errors)
    assert "bad_batch_1_process_1.json" in errors[1] and "another process has saved" in errors[0]
    assert not list((two / "nan").glob("bad_batch_1_process_0*"))


def test_two_processes_draw_and_are_rewarded_as_one(two, first, tmp_path):
    """Self-critical training: the same samples, and the same weights in the end."""
    with trained_in_double():
        one = train(replace(DRAWN, batch_size=8, start=first, out=str(tmp_path)))
    found, expected = lines(two / "self-critical"), lines(tmp_path)
    assert sum("loss" in line for line in found) == 10 and all(("reward" in line) == ("loss" in line) for line in found)
    # rewards in the log are the main process's, and accuracy counts a part by its given captions
    own = ("reward", "accuracy")
    check_close(*[[{key: line[key] for key in line if key not in own} for line in run] for run in (found, expected)])
    before, after = Captioner.load(first).state_dict(), one.captioner.state_dict()
    for key, value in weights(two / "self-critical").items():
        if value.dim() > 1 and (moved := (after[key] - before[key]).norm()):
            assert (value - after[key]).norm() < 1e-3 * moved, key
    assert (after["projection.linear.weight"] - before["projection.linear.weight"]).abs().max() > 5e-3


def test_two_processes_stop_early_together_and_stay_joined(two):
    """Nothing is learned, so that patience ends; what is kept is written by one; they stay connected."""
    run = two / "early stop"
    assert [line["epoch"] for line in lines(run) if "val_loss" in line] == [1, 2, 3]
    assert sorted(path.name for path in (run / "last").iterdir()) == ["epoch_002", "epoch_003"]
    assert (run / "best" / "model.safetensors").exists() and list((run / "tensorboard").rglob("events*"))
    assert lines(two / "after it") == lines(two / "noisy")


def test_one_process_goes_on_where_two_stopped(two, tmp_path):
    """The order of the data does not depend on their number, so long as a step sees as many pictures."""
    shutil.copytree(two / "trained", tmp_path / "run")
    more = replace(TINY, out=str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"8 pictures a step \(batch_size 4 x processes 2 x accumulate 1\).*4 .*"
                                              r"--accumulate 2"):
        train(more)
    assert lines(train(replace(more, accumulate=2)).out) == lines(two / "trained")  # finished: nothing was left to do


def test_accumulated_parts_are_one_batch(tmp_path):
    runs = [train(replace(TINY, epochs=2, out=str(tmp_path / name), **changes)).history for name, changes in
            (("whole", dict(batch_size=8)), ("parts", dict(accumulate=2)))]
    check_close(*[[{key: value for key, value in line.items() if key not in CLOCKS} for line in run] for run in runs])


def all_parts(processes, **changes):
    """Every process's first epoch: a list of batches each."""
    config = replace(TINY, augment=True, **changes)
    dataset = open_split(config, "train", config.limit)
    captioner = new_captioner(config, dataset.captions)
    return [list(Batches(dataset, captioner, config, process=process, processes=processes).epoch(0, start=1))
            for process in range(processes)]


def test_parts_share_out_pictures_captions_and_crops():
    (whole,), parts = all_parts(1, batch_size=8), all_parts(2, batch_size=2, accumulate=2)
    assert len(whole) == 4 and [len(part) for part in parts] == [8, 8]
    words = 0
    for step, batch in enumerate(whole):
        mine = [parts[process][2 * step + again] for again in range(2) for process in range(2)]
        assert torch.equal(torch.cat([part.images for part in mine]), batch.images)
        rows = [[i for i in row.tolist() if i != PAD] for part in mine for row in part.ids]
        assert rows == [[i for i in row.tolist() if i != PAD] for row in batch.ids]
        targets = torch.tensor([(part.ids[:, 1:] != PAD).sum() for part in mine]).double()
        assert_close(torch.tensor([part.loss_scales[0] for part in mine]), (4 * targets / targets.sum()).float())
        words += len(set(targets.tolist())) > 1
        assert batch.loss_scales == (1.0, 1.0) and {part.loss_scales[1] for part in mine} == {1.0}
    assert words  # parts do differ in their number of words, or this would have proved nothing


def test_validation_pictures_are_shared_out_once():
    config = replace(TINY, batch_size=2)
    dataset = open_split(config, "val", 9)
    captioner = new_captioner(config, dataset.captions)
    seen = [[(batch.ids[:, 1:] != PAD).any().item() and len(batch.images)
             for batch in Batches(dataset, captioner, config, process=process, processes=2).epoch(
                 0, shuffle=False, drop_last=False)] for process in range(2)]
    assert seen == [[2, 2, 1], [2, 2, False]]  # as many steps in each, and no target where no picture is left


def test_more_processes_than_pictures_are_refused():
    with pytest.raises(InputError, match="3 pictures cannot be shared out to 4 processes"):
        all_parts(4, limit=3)
