"""Does a run learn, stop, go on and fail as it should?"""

import json
from dataclasses import replace

import pytest
import torch
from close import assert_close
from other_process import train_until_there

from prunecap_lib import Captioner, TrainConfig, train
from prunecap_lib.errors import CheckpointError, InputError, TrainingError
from prunecap_lib.files import alone
from prunecap_lib.text import PAD
from prunecap_lib.training import run
from prunecap_lib.training.batches import Batches, open_split
from prunecap_lib.training.build import learning_rate, new_captioner
from prunecap_lib.training.objective import masked_logits_and_targets
from prunecap_lib.training.resume import LOCK, RUN
from prunecap_lib.training.run_log import CLOCKS


def tiny(out, **changes):
    settings = dict(encoder="convnext", image_size=32, limit=16, batch_size=8, epochs=3, d_model=16, layers=1, heads=2,
                    ffn=32, captions_per_image=2, val_limit=4, log_every=1, lr=3e-3, precision="fp32", progress=False,
                    scorer="random", out=str(out))
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    torch.set_num_threads(1)
    return train(tiny(tmp_path_factory.mktemp("runs") / "unbroken"))


def weights(captioner):
    return {key: value.clone() for key, value in captioner.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def timeless(history):
    """Its lines without what only tells of the machine."""
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in history]


def test_log_and_checkpoint_are_there(unbroken):
    lines = [json.loads(line) for line in (unbroken.out / "metrics.jsonl").read_text().splitlines()]
    assert lines == unbroken.history
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["epoch"] for line in lines if "val_loss" in line] == [1, 2, 3]
    assert lines[-2]["loss"] < lines[0]["loss"]
    assert same(weights(Captioner.load(unbroken.out / "checkpoint")), weights(unbroken.captioner))


def test_the_returned_captioner_is_the_plain_one(unbroken):
    assert "forward" not in vars(unbroken.captioner) and not unbroken.captioner.training


@pytest.mark.slow
def test_same_seed_same_weights_other_seed_others(tmp_path, unbroken):
    assert same(weights(train(tiny(tmp_path / "again")).captioner), weights(unbroken.captioner))
    assert not same(weights(train(tiny(tmp_path / "other", seed=1)).captioner), weights(unbroken.captioner))


@pytest.mark.parametrize("augment", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_equals_unbroken(tmp_path, monkeypatch, unbroken, augment):
    """Stopped in the middle of the third epoch, with a random scorer and random crops."""
    config = tiny(tmp_path / "broken", augment=augment)
    expected = train(replace(config, out=str(tmp_path / "whole"))) if augment else unbroken
    plain, seen = run.objective, []

    def stop_at_step_six(*arguments):
        seen.append(None)
        if len(seen) == 2 * 2 + 2:  # two epochs of two batches, and the second of the third
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(run, "objective", stop_at_step_six)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    torch.rand(100)  # the resumed process has another random state
    resumed = train(config)
    assert same(weights(resumed.captioner), weights(expected.captioner))
    assert timeless(resumed.history) == timeless(expected.history)


@pytest.mark.slow
def test_killed_and_resumed_equals_unbroken(tmp_path, unbroken):
    config = tiny(tmp_path / "killed")
    train_until_there(config, config.folder / "checkpoint" / "state.json")
    assert same(weights(train(config).captioner), weights(unbroken.captioner))


def test_a_finished_run_is_left_alone(unbroken):
    before = (unbroken.out / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    again = train(tiny(unbroken.out))
    assert (unbroken.out / "checkpoint" / "model.safetensors").stat().st_mtime_ns == before
    assert again.history == unbroken.history


def test_a_folder_is_one_trainings_at_a_time(unbroken):
    before = (unbroken.out / "metrics.jsonl").read_bytes()
    with alone(unbroken.out / LOCK, "x"), pytest.raises(InputError, match=r"unbroken: another process .* \(process "):
        train(tiny(unbroken.out))
    assert (unbroken.out / "metrics.jsonl").read_bytes() == before
    train(tiny(unbroken.out))  # the lock is given back


def test_only_a_runs_folder_is_trained_into(tmp_path):
    """A user's folder stays as it is, whatever its files are called; a run is known before its first checkpoint."""
    (tmp_path / "metrics.jsonl").write_text('{"accuracy": 0.9}\n')
    with pytest.raises(InputError, match="left as it is"):
        train(tiny(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "seconds": 1.0}\n')
    assert RUN.owns(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / LOCK).touch()
    assert RUN.owns(tmp_path)


def test_another_runs_folder_is_refused(unbroken):
    with pytest.raises(CheckpointError, match="lr 0.003 -> 0.002"):
        train(tiny(unbroken.out, lr=2e-3))


def test_nan_stops_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    config = tiny(tmp_path / "nan")
    plain, seen = run.objective, []

    def poisoned(*arguments):
        loss, logits, targets = plain(*arguments)
        seen.append(None)
        return (loss * float("nan") if len(seen) == 4 else loss), logits, targets

    monkeypatch.setattr(run, "objective", poisoned)
    with pytest.raises(TrainingError, match="nan at step 3"):
        train(config)
    assert Captioner.load(config.folder / "checkpoint").config.encoder == "convnext"


@pytest.mark.parametrize("changes, says", [
    (dict(prune_ratio=1.0), "prune_ratio"), (dict(scorer="luck"), "scorer"),
    (dict(scorer="relevance"), "cannot train.*'pilot'"), (dict(epochs=0), "epochs"),
    (dict(lr=0.0), "lr"), (dict(lr=float("nan")), "lr"), (dict(cache_features=True), "freeze_encoder"),
    (dict(cache_pruned=True, scorer="grid"), "give both"), (dict(workers=-1), "workers"), (dict(d_model=0), "d_model"),
    (dict(dropout=1.5), "dropout"), (dict(label_smoothing=2.0), "label_smoothing"), (dict(warmup=2.0), "warmup"),
    (dict(weight_decay=-0.1), "weight_decay"),
    (dict(cache_pruned=True, scorer="pilot"), "cannot be stored"),
])
def test_impossible_settings_are_refused(tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        tiny(tmp_path, **changes)


@pytest.mark.slow
def test_view_whole_is_seen_in_training_and_after_loading(tmp_path):
    """tf_efficientnet_lite0 would see the middle 87.5% of each side."""
    config = tiny(tmp_path, encoder="tf_efficientnet_lite0", image_size=32, freeze_encoder=True, cache_features=True,
                  epochs=1)
    for view, seen in (("middle", (1.8, 1.8, 30.2, 30.2)), ("whole", (0, 0, 32, 32))):
        captioner = new_captioner(replace(config, view=view), [["a cat"]])
        captioner.save(tmp_path / view)
        for one in (captioner, Captioner.load(tmp_path / view)):
            box = one.encoder.preprocessing.picture_box((32, 32))
            assert one.preprocessing is one.encoder.preprocessing  # what feature caches go by
            assert all(abs(a - b) < 0.1 for a, b in zip(box, seen, strict=True)), view


@pytest.mark.slow
def test_training_from_tokens_stored_pruned_is_the_same(tmp_path, monkeypatch):
    runs = []
    for name in ("all", "pruned"):
        monkeypatch.setenv("PRUNECAP_DATA", str(tmp_path / name))
        runs.append(train(tiny(tmp_path / name / "run", scorer="grid", freeze_encoder=True, cache_features=True,
                               cache_pruned=name == "pruned", epochs=1)))
    stored = {folder.parent.name: folder.stat().st_size for folder in tmp_path.rglob("x.bin")
              if folder.parent.name.startswith("scenes-train")}
    assert sorted(stored.values()) == [16 * 12 * 128 * 2, 16 * 16 * 128 * 2]
    assert same(weights(runs[0].captioner), weights(runs[1].captioner))


def test_batches_give_each_picture_once_and_its_own_captions(tmp_path):
    config = tiny(tmp_path)
    dataset = open_split(config, "train", config.limit)
    captioner = new_captioner(config, dataset.captions)
    batches, seen = Batches(dataset, captioner, config), []
    for images, ids in batches.epoch(0):
        assert images.shape == (8, 3, 32, 32) and len(ids) == 16
        for picture, rows in zip(images, ids.view(8, 2, -1), strict=True):
            distance = [(captioner.preprocessing(dataset.image(i)) - picture).abs().max() for i in range(16)]
            i = int(torch.stack(distance).argmin())
            assert distance[i] < 1e-6
            seen.append(i)
            assert {captioner.vocabulary.decode(row) for row in rows} <= set(dataset.captions[i])
    assert sorted(seen) == list(range(16))


def test_padding_costs_nothing(tmp_path):
    """masked_logits_and_targets gives the logits of the real positions, and their targets."""
    config = tiny(tmp_path, scorer="pilot")
    dataset = open_split(config, "train", config.limit)
    captioner = new_captioner(config, dataset.captions).eval()
    images, ids = next(iter(Batches(dataset, captioner, config).epoch(0)))
    logits, targets = masked_logits_and_targets(captioner, images, ids)
    full = captioner(images, ids[:, :-1])
    real = ids[:, 1:] != PAD
    assert_close(logits, full[real])
    assert targets.tolist() == [word for row in ids[:, 1:].tolist() for word in row if word != PAD]


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and rates[99] < 0.02
    assert rates.index(max(rates)) == 9 and all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_seed_preset_is_the_presentations_table():
    preset = TrainConfig.seed_preset()
    assert (preset.batch_size, preset.epochs, preset.vocabulary_size, preset.d_model) == (128, 100, 2033, 512)
    assert (preset.layers, preset.heads, preset.ffn, preset.dropout) == (2, 4, 2048, 0.1)
    assert (preset.lr, preset.prune_ratio) == (1e-3, 0.3)
    assert TrainConfig.seed_preset(epochs=1).epochs == 1
