"""Who else follows a run? TensorBoard, Weights & Biases or MLflow, through Accelerate; imported only when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError, install_hint
from .config import TrainConfig
from .monitor import CLOCKS

PROJECT = "prunecap"


def check_tracker(name: str) -> None:
    """Raises InputError, with what to install, where the tracker is not there: Accelerate would go on without it."""
    if name != "none" and find_spec(name) is None:
        raise InputError(f"tracker {name} is not installed; {install_hint(name)}, or choose --tracker none: "
                         "metrics.jsonl is written all the same")


def accelerator_settings(config: TrainConfig) -> dict:
    """What ``Accelerator`` must be told of the tracker. Raises what ``check_tracker`` raises."""
    check_tracker(config.tracker)
    return {} if config.tracker == "none" else dict(log_with=config.tracker, project_dir=config.out)


class Tracker:
    """What metrics.jsonl is told, told to the tracker too.

    Runs of W&B and MLflow lie in the project "prunecap", named after the run's folder; TensorBoard's events lie in
    RUN/tensorboard: ``tensorboard --logdir RUN``.

    Args: step: where a resumed run goes on; TensorBoard hides what was logged beyond it.
    """

    def __init__(self, accelerator, config: TrainConfig, step: int):
        self.accelerator, self.name = accelerator, config.tracker
        if self.name == "none":
            return
        own = {"tensorboard": {"purge_step": step + 1}, "wandb": {"name": config.folder.name},
               "mlflow": {"run_name": config.folder.name}}
        settings = {key: value if isinstance(value, int | float | str) else str(value)
                    for key, value in asdict(config).items()}
        # TensorBoard would open another run for the settings, at each resume; they are in config.json
        told = None if self.name == "tensorboard" else settings
        project = "tensorboard" if self.name == "tensorboard" else PROJECT
        accelerator.init_trackers(project, config=told, init_kwargs={self.name: own[self.name]})

    def log(self, line: Mapping[str, float]) -> None:
        """One line of metrics.jsonl. Its keys are sorted into train/, validation/ and machine/."""
        if self.name != "none":
            self.accelerator.log({f"{_group(key)}/{key}": value for key, value in line.items() if key != "step"},
                                 step=int(line["step"]))

    def image(self, name: str, path: Path, step: int) -> None:
        """A PNG that was drawn on the way."""
        if self.name == "none" or not self.accelerator.is_main_process:
            return
        import numpy as np
        from PIL import Image
        if self.name == "mlflow":
            import mlflow
            mlflow.log_artifact(str(path), artifact_path=name)
            return
        picture = np.asarray(Image.open(path).convert("RGB"))[None]
        shape = {"dataformats": "NHWC"} if self.name == "tensorboard" else {}
        self.accelerator.get_tracker(self.name).log_images({name: picture}, step=step, **shape)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_) -> None:
        if self.name == "none":
            return
        # Not Accelerate's end_training: it would also part the processes, which may still have to evaluate.
        for tracker in self.accelerator.trackers:
            tracker.finish()  # writes out what is left


def _group(key: str) -> str:
    return "machine" if key in CLOCKS else "validation" if key.startswith("val_") or key == "cider" else "train"
