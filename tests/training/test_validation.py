"""Does the log alone tell which epoch was best, when to stop, and what to keep?"""

import pytest
import torch
from test_training import tiny

from prunecap_lib import Captioner, CaptionerConfig, Vocabulary
from prunecap_lib.training.validation import (
    checkpoint_folders,
    epochs_kept,
    is_best,
    out_of_patience,
    save_kept_epochs,
    scores,
)


def log(key, *values):
    """A line of training after each validation, as in a run."""
    return [line for i, value in enumerate(values)
            for line in ({"step": i, "loss": 1.0}, {"step": i, "val_loss": 1.0, key: value})][: 2 * len(values)]


@pytest.mark.parametrize("key, sign, changes", [("cider", 1, dict(caption_every=1)), ("val_loss", -1, {})])
def test_best_and_patience(tmp_path, key, sign, changes):
    config = tiny(tmp_path, patience=2, **changes)
    values = [0.5, 0.7, 0.6, 0.7, 0.4]  # equal to the best is not better
    best = [is_best(log(key, *[sign * v for v in values[:n]]), config) for n in range(1, 6)]
    over = [out_of_patience(log(key, *[sign * v for v in values[:n]]), config) for n in range(1, 6)]
    assert best == [True, True, False, False, False] and over == [False, False, False, True, True]
    assert not out_of_patience(log(key, *[sign * v for v in values]), tiny(tmp_path, **changes))


def test_epochs_without_captions_do_not_count(tmp_path):
    config = tiny(tmp_path, caption_every=2, patience=1)
    lines = [{"val_loss": 3.0}, {"val_loss": 2.0, "cider": 0.4}, {"val_loss": 1.0}]
    assert scores(lines, config) == [0.4] and not is_best(lines, config) and is_best(lines[:2], config)
    assert not out_of_patience(lines, config)
    assert out_of_patience([*lines, {"val_loss": 0.5, "cider": 0.3}], config)


def test_best_and_the_last_epochs_stay(tmp_path):
    captioner = Captioner(CaptionerConfig(d_model=8, layers=1, heads=2, ffn=8), Vocabulary.build(["a cat"]))
    config = tiny(tmp_path / "run", keep_last=2, caption_every=1)
    lines = []
    for epoch, cider in enumerate([0.2, 0.5, 0.3, 0.1], start=1):
        lines.append({"val_loss": 1.0, "cider": cider})
        with torch.no_grad():
            captioner.projection.linear.bias.fill_(epoch)
        save_kept_epochs(captioner, checkpoint_folders(lines, epoch, config), epoch, config)
    assert [path.name for path in epochs_kept(config.folder)] == ["epoch_003", "epoch_004"]
    assert Captioner.load(config.folder / "best").projection.linear.bias[0] == 2
    plain = tiny(tmp_path / "plain")
    assert checkpoint_folders(lines[:1], 1, plain) == []  # who asks for nothing keeps the last checkpoint alone
    again = checkpoint_folders([{"val_loss": 1.0, "cider": 0.1}], 1, config)  # another run in the same folder
    save_kept_epochs(captioner, again, 1, config)
    assert [path.name for path in epochs_kept(config.folder)] == ["epoch_001"]
