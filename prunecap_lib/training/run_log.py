"""What a run reports: metrics.jsonl, one JSON object a line; a tracker that receives the same lines; throughput."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image

from ..errors import CheckpointError, InputError, install_hint
from ..files import write_text
from ..reading import read_text
from .config import TrainConfig

# keys of metrics.jsonl that tell of the machine and not of the model: two runs of one config differ in them alone
CLOCKS = ("seconds", "pictures_per_second", "data_wait", "memory_gib", "seconds_left")


class Log:
    """metrics.jsonl, and its ``lines``. A resumed run forgets those after its checkpoint; the main process writes."""

    def __init__(self, path: Path, step: int, *, validated: bool = True, writes: bool = True,
                 tracker: Tracker | None = None):
        """``validated``: the validation after ``step`` belongs to the checkpoint, too."""
        self.path, self.writes, self.tracker, self.started = path, writes, tracker, time.perf_counter()
        old = read_text(path, "log", error=CheckpointError).splitlines() if step and path.exists() else []
        self.lines = [line for line in _whole(old) if line["step"] < step or line["step"] == step
                      and (validated or "val_loss" not in line)]
        self.before = self.lines[-1]["seconds"] if self.lines else 0.0
        if writes:
            write_text(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def write(self, **values: float) -> None:
        """Add a line. Raises CheckpointError where the file system refuses."""
        line = {key: round(value, 6) for key, value in values.items()}
        line["seconds"] = round(self.before + time.perf_counter() - self.started, 2)
        self.lines.append(line)
        if self.writes:
            try:
                with self.path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise CheckpointError(f"could not write {self.path}: {error.strerror or error}; free some space, then "
                                      "run the same command: it goes on from the last checkpoint") from error
        if self.tracker:
            self.tracker.log(line)


def _whole(lines: list[str]) -> list[dict]:
    """The lines that are whole: a run that was killed while it wrote leaves half of its last one."""
    found = []
    for line in lines:
        try:
            numbers = msgspec.convert(json.loads(line), dict[str, int | float])  # json knows NaN, msgspec does not
        except (ValueError, RecursionError):
            break
        if not {"step", "seconds"} <= set(numbers):
            break
        found.append(numbers)
    return found


def tracker_settings(config: TrainConfig) -> dict:
    """The arguments of ``Accelerator`` for the tracker. Raises InputError, with what to install, where it is not there:
    Accelerate would go on without it."""
    name = config.tracker
    if name == "none":
        return {}
    if find_spec(name) is None:
        raise InputError(f"tracker {name} is not installed; {install_hint(name)}, or choose --tracker none: "
                         "metrics.jsonl is written all the same")
    return dict(log_with=name, project_dir=config.out)


class Tracker:
    """Experiment tracker (TensorBoard, Weights & Biases, MLflow) that also receives every line of metrics.jsonl.

    Runs of W&B and MLflow lie in the project "prunecap", named after the run's folder; TensorBoard's events in
    RUN/tensorboard. ``step``: where a resumed run goes on; TensorBoard hides what was logged beyond it.
    """

    def __init__(self, accelerator, config: TrainConfig, step: int):
        self.accelerator, self.name = accelerator, config.tracker
        settings = {key: value if isinstance(value, int | float | str) else str(value)
                    for key, value in asdict(config).items()}
        match self.name:
            case "tensorboard":  # for the settings it would open another run, at each resume; they are in config.json
                accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": step + 1}})
            case "wandb":
                accelerator.init_trackers("prunecap", settings, {"wandb": {"name": config.folder.name}})
            case "mlflow":
                accelerator.init_trackers("prunecap", settings, {"mlflow": {"run_name": config.folder.name}})

    def log(self, line: Mapping[str, float]) -> None:
        """One line of metrics.jsonl. Its keys are sorted into train/, validation/ and machine/."""
        if self.name != "none":
            self.accelerator.log({f"{_group(key)}/{key}": value for key, value in line.items() if key != "step"},
                                 step=int(line["step"]))

    def image(self, name: str, path: Path, step: int) -> None:
        """A PNG that was drawn in the main process."""
        if self.name == "mlflow":
            import mlflow  # late: it may not be installed
            mlflow.log_artifact(str(path), artifact_path=name)
        elif self.name != "none":
            picture = np.asarray(Image.open(path).convert("RGB"))[None]
            shape = {"dataformats": "NHWC"} if self.name == "tensorboard" else {}
            self.accelerator.get_tracker(self.name).log_images({name: picture}, step=step, **shape)

    def close(self) -> None:
        """Write out what is left. Accelerate's ``end_training`` would also part the processes, which may still work."""
        for tracker in self.accelerator.trackers if self.name != "none" else ():
            tracker.finish()


def _group(key: str) -> str:
    return "machine" if key in CLOCKS else "validation" if key.startswith("val_") or key == "cider" else "train"


class ThroughputMonitor:
    """Watches a training loop: ``for batch in monitor.watch(batches)``, and ``monitor.metrics(left)`` after a step.

    Args: pictures: in one step, of all processes together. device: whose memory is looked at.
    """

    def __init__(self, pictures: int, device: torch.device, clock: Callable[[], float] = time.perf_counter):
        self.pictures, self.device, self.clock = pictures, device, clock
        self._restart()

    def _restart(self) -> None:
        self.began, self.waited, self.steps = self.clock(), 0.0, 0

    def watch(self, batches: Iterable) -> Iterator:
        """The same batches, timed from here: what was done before (validation, saving) is no training."""
        self._restart()
        batches = iter(batches)
        while True:
            asked = self.clock()
            batch = next(batches, None)
            self.waited += self.clock() - asked
            if batch is None:
                return
            yield batch

    def step(self) -> None:
        """A step is finished."""
        self.steps += 1

    def metrics(self, steps_left: int) -> dict[str, float]:
        """Since they were last asked for, or the epoch began; memory since the process did. Time left: of training."""
        passed = max(self.clock() - self.began, 1e-9)
        found = {"pictures_per_second": self.steps * self.pictures / passed, "data_wait": self.waited / passed,
                 "memory_gib": peak_memory(self.device) / 2**30, "seconds_left": steps_left * passed / self.steps}
        self._restart()
        return {key: round(value, 3) for key, value in found.items()}


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use: of the GPU's memory by tensors, or of the machine's by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # late: Windows has none
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
