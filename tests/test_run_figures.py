"""Does a run draw what it sees, after every epoch, and from its own log?"""

import pytest
from PIL import Image

from prunecap_lib import Captioner, CaptionerConfig, TrainConfig, Vocabulary
from prunecap_lib.plotting import plot_training
from prunecap_lib.plotting.runs import RunFigures

LINES = [{"step": 1, "epoch": 0.5, "loss": 3.0, "accuracy": 0.1}, {"step": 2, "epoch": 1, "loss": 2.0, "accuracy": 0.2},
         {"step": 2, "epoch": 1, "val_loss": 2.5, "val_accuracy": 0.15, "cider": 0.3}]


@pytest.mark.slow
def test_samples_and_curves_are_drawn_each_epoch(tmp_path):
    captioner = Captioner(CaptionerConfig(d_model=8, layers=1, heads=2, ffn=8), Vocabulary.build(["a red cat"]))
    figures = RunFigures(TrainConfig(out=str(tmp_path), val_limit=4), 2)
    drawn = figures(captioner, LINES)
    assert drawn == {"curves": tmp_path / "curves.png", "samples": tmp_path / "samples" / "epoch_001.png"}
    for path in drawn.values():
        with Image.open(path) as picture:
            assert min(picture.size) > 200 and "Description" in picture.text
    assert "“" in Image.open(drawn["samples"]).text["Description"]
    figures(captioner, [*LINES, LINES[-1] | {"epoch": 2}])
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["epoch_001.png", "epoch_002.png"]
    assert set(RunFigures(TrainConfig(out=str(tmp_path)), 0)(captioner, LINES)) == {"curves"}


def test_curves_have_a_panel_for_captions_where_they_were_scored():
    assert [ax.get_title() for ax in plot_training({"run": LINES}).axes][2:] == ["captions of the validation split"]
    plain = [{key: value for key, value in line.items() if key != "cider"} for line in LINES]
    assert len(plot_training({"run": plain}).axes) == 2
