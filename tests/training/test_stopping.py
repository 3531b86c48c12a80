"""Does a run that is stopped, killed, or fails leave all that is needed, and say so?"""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from other_process import run_script
from safetensors.torch import load_file

from prunecap_lib import Captioner, TrainConfig, cli, train
from prunecap_lib.costs.forecast import memory
from prunecap_lib.errors import CheckpointError, InputError, TrainingError, TrainingStopped
from prunecap_lib.training import resume, run, setup
from prunecap_lib.training.run_log import CLOCKS, Log
from prunecap_lib.training.setup import StopSignals

ROOT = Path(__file__).resolve().parents[2]
TINY = TrainConfig(limit=16, batch_size=4, epochs=2, image_size=32, d_model=16, layers=1, heads=2, ffn=32,
                   captions_per_image=2, val_limit=4, log_every=1, precision="fp32", progress=False, scorer="random")


def timeless(history):
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in history]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    torch.set_num_threads(1)
    return train(replace(TINY, out=str(tmp_path_factory.mktemp("unbroken"))))


def before_step(monkeypatch, number, act):
    """Call ``act`` before the objective is asked for the numberth time."""
    plain, seen = run.objective, []

    def watched(*arguments):
        seen.append(None)
        if len(seen) == number:
            act()
        return plain(*arguments)

    monkeypatch.setattr(run, "objective", watched)


def check_same(resumed, unbroken):
    expected = unbroken.captioner.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.captioner.state_dict().items())
    assert timeless(resumed.history) == timeless(unbroken.history)


@pytest.mark.parametrize("number, step", [
    (signal.SIGTERM, 2), pytest.param(signal.SIGINT, 4, marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, 8, marks=pytest.mark.slow)])
def test_a_signal_saves_and_the_run_goes_on(tmp_path, monkeypatch, unbroken, number, step):
    """In mid-epoch, in the last step of an epoch, whose validation is then still to come, and in the very last."""
    config, before = replace(TINY, out=str(tmp_path)), signal.getsignal(number)
    before_step(monkeypatch, step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(TrainingStopped, match=f"stopped at step {step} of 8.*same command") as stopped:
        train(config)
    assert stopped.value.signal == number and signal.getsignal(number) == before
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == step
    monkeypatch.undo()
    torch.rand(100)
    check_same(train(config), unbroken)


def test_a_second_signal_acts_at_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(setup.time, "monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # passed on by the launcher: the same Ctrl-C
        assert stop.asked == signal.SIGINT
        now[0] += 2
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")


def test_the_command_ends_with_the_signals_status(monkeypatch, capsys):
    def stopped(config, **more):
        raise TrainingStopped("stopped at step 3 of 8", signal.SIGTERM)

    monkeypatch.setattr("prunecap_lib.cli.train.train", stopped)
    with pytest.raises(SystemExit) as status:
        cli.main(["train", "--out", "unused"])
    assert status.value.code == 143 and "stopped at step 3" in capsys.readouterr().err


@pytest.mark.slow
def test_save_steps_bounds_what_an_interruption_loses(tmp_path, monkeypatch, unbroken):
    config = replace(TINY, out=str(tmp_path), save_steps=3)

    def cut():
        raise KeyboardInterrupt

    before_step(monkeypatch, 8, cut)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 6
    monkeypatch.undo()
    check_same(train(replace(config, save_steps=None)), unbroken)


@pytest.mark.slow
def test_a_validation_that_was_not_saved_is_told_once(tmp_path, unbroken):
    """The checkpoint is of the epoch's last step; the run ends after its validation was logged, before it is saved."""
    config = replace(TINY, out=str(tmp_path), save_steps=4)

    def cut(captioner, lines):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, after_epoch=cut)
    assert "val_loss" in (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    check_same(train(config), unbroken)


@pytest.mark.slow
def test_kill_nine(tmp_path):
    told = tmp_path / "kills.json"
    assert run_script(ROOT / "stress" / "kills.py", ["--times", "2", "--epochs", "2", "--json", str(told)]) == 0
    report = json.loads(told.read_text())
    assert report["same_weights"] == [True] and sum(kill["killed"] for kill in report["kills"]) == 2


@pytest.mark.slow
def test_a_full_disk_keeps_the_checkpoint(tmp_path, monkeypatch, unbroken):
    config, plain, seen = replace(TINY, out=str(tmp_path), save_steps=1), resume._write_state, []

    def full(*arguments):
        seen.append(None)
        if len(seen) == 3:
            raise OSError(28, "No space left on device")
        plain(*arguments)

    monkeypatch.setattr(resume, "_write_state", full)
    with pytest.raises(CheckpointError, match="No space left on device.*Free some space"):
        train(config)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 2
    monkeypatch.undo()
    check_same(train(replace(config, save_steps=None)), unbroken)


def test_a_bad_batch_is_saved_as_the_captioner_got_it(tmp_path, monkeypatch):
    config = replace(TINY, out=str(tmp_path), augment=True, accumulate=2, save_steps=1)
    plain, seen = run.objective, []

    def poisoned(model, batch, *more):
        loss, logits, targets = plain(model, batch, *more)
        seen.append((batch.images.clone(), batch.ids.clone()))
        return (loss * float("inf") if len(seen) == 3 else loss), logits, targets  # the second step's first part

    monkeypatch.setattr(run, "objective", poisoned)
    with pytest.raises(TrainingError, match=r"the loss is inf at step 1; the batch is saved in .*bad_batch_1.json"):
        train(config)
    saved = load_file(tmp_path / "bad_batch_1.safetensors")
    assert torch.equal(saved["images"], seen[2][0]) and torch.equal(saved["ids"], seen[2][1])
    told = json.loads((tmp_path / "bad_batch_1.json").read_text())
    assert told["step"] == 1 and len(told["pictures"]) == 4 and told["pictures"][0] > 1_000_000
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 1  # the last good one
    assert Captioner.load(tmp_path / "checkpoint")


def test_a_full_disk_does_not_hide_that_the_loss_is_no_number(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "save_bad_batch", full)
    plain = run.objective
    monkeypatch.setattr(run, "objective", lambda *a: (plain(*a)[0] * float("nan"), *plain(*a)[1:]))
    with pytest.raises(TrainingError, match="the loss is nan at step 0; the batch could not be saved .*No space left"):
        train(replace(TINY, out=str(tmp_path)))


@pytest.mark.parametrize("lacks", ["step", "accumulate", "batch_size"])
def test_a_state_that_lacks_something_is_named(tmp_path, lacks):
    held = {**dict.fromkeys(("step", "epochs", "processes", "batch_size", "accumulate"), 1), "config": {}}
    del held[lacks]
    (tmp_path / "state.json").write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match=f"state.json: .*{lacks}"):
        resume.read_state(tmp_path)


def test_a_gradient_that_is_no_number_stops_before_the_weights_move(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a, **k: torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match="the gradient's length is nan at step 0.*there is no checkpoint yet"):
        train(replace(TINY, out=str(tmp_path)))


@pytest.mark.slow
def test_another_teacher_is_noticed(tmp_path, unbroken):
    other = train(replace(TINY, out=str(tmp_path / "other"), seed=1)).out / "checkpoint" / "model.safetensors"
    start = tmp_path / "start"
    unbroken.captioner.save(start)
    config = replace(TINY, out=str(tmp_path / "run"), start=str(start), epochs=1)
    train(config)
    assert train(config).history[-1]["step"] == 4
    (start / "model.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match="is taught by, another"):
        train(config)


def test_fp16_needs_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="fp16 needs a GPU.*bf16 or fp32"):
        train(replace(TINY, precision="fp16", out=str(tmp_path)))


def test_out_of_memory_names_what_fits(monkeypatch, capsys):
    def full(config, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("prunecap_lib.cli.train.train", full)
    monkeypatch.setattr(memory, "memory_here", lambda: 24 * 10**9)
    monkeypatch.setattr(memory, "largest_batch",
                        lambda config, *_, **__: 20 if config.checkpoint_activations else 9)
    with pytest.raises(SystemExit) as status:
        cli.main(["train", "--limit", "10", "--batch-size", "16", "--out", "unused"])
    assert status.value.code == 2
    assert ("16 pictures together, on 24.0 GB; by estimate 9 fit. Train with --batch-size 8 --accumulate 2, which sees "
            "as many in a step, or --checkpoint-activations, with which 20 fit") in capsys.readouterr().err


def test_half_a_line_is_forgotten(tmp_path):
    log = Log(tmp_path / "metrics.jsonl", 0)
    log.write(step=1, loss=2.0), log.write(step=2, loss=1.0)
    with log.path.open("a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in Log(log.path, 2).lines] == [1, 2]
    assert log.path.read_text().endswith("}\n")


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9)
    log = Log(tmp_path / "metrics.jsonl", 0)
    log.write(step=1), log.write(step=2)
    assert 0 <= log.lines[0]["seconds"] <= log.lines[1]["seconds"] < 60
