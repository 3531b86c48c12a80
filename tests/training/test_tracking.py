"""Is TensorBoard told what the log is told, and is nothing of it imported by whoever does not ask?"""


import pytest
from PIL import Image
from test_training import tiny

from prunecap_lib import train
from prunecap_lib.errors import InputError
from prunecap_lib.training.run_log import tracker_settings


@pytest.mark.slow
def test_tensorboard_is_told_what_the_log_is_told(tmp_path):
    def draw(captioner, lines):
        path = tmp_path / "picture.png"
        Image.new("RGB", (4, 3), "red").save(path)
        return {"samples": path}

    result = train(tiny(tmp_path / "run", tracker="tensorboard", epochs=2), after_epoch=draw)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for key, tag in (("loss", "train/loss"), ("val_loss", "validation/val_loss")):
        assert [(event.step, pytest.approx(event.value, rel=1e-4)) for event in events.Scalars(tag)] == [
            (line["step"], line[key]) for line in result.history if key in line]
    assert "machine/pictures_per_second" in events.Tags()["scalars"]
    assert [image.step for image in events.Images("samples")] == [2, 4]


def test_a_tracker_that_is_not_installed_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("prunecap_lib.training.run_log.find_spec", lambda name: None)
    for name in ("tensorboard", "wandb", "mlflow"):
        with pytest.raises(InputError, match=f"{name} is not installed; pip install"):
            train(tiny(tmp_path / name, tracker=name))
        assert not (tmp_path / name).exists()
    assert tracker_settings(tiny(tmp_path)) == {}
