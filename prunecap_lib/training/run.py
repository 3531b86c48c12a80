"""A training run: everything that the loop works with, found again where it stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..captioner import Captioner
from ..checkpoint import CHECKPOINT
from ..distributed import gather_numbers, is_sharded, main_process_first, raise_on_all_ranks, seed_this_rank
from ..errors import PrunecapError, TrainingError, TrainingStopped
from ..evaluation import token_accuracy
from ..evaluation.cider import check_document_frequencies
from ..files import check_output_folder, recover_folder, say, write_text
from .batches import Batch, Batches, MicroBatchKey, open_split
from .build import initial_captioner, learning_rate, load_teacher, new_optimizer
from .config import TrainConfig
from .objective import objective
from .resume import RUN, RunPosition, load_state, own_folder, save, saved_position, whole_weights
from .run_log import Log, ThroughputMonitor, Tracker
from .self_critical import SelfCritical
from .setup import (
    StopSignals,
    apply_compute_options,
    check_same_start,
    device_here,
    precision_line,
    settle_precision,
    start_accelerator,
)
from .validation import caption_score, checkpoint_folders, moving_average, out_of_patience, save_kept_epochs, validate


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    captioner: Captioner
    out: Path
    history: list[dict]  #: The lines of metrics.jsonl.
    config: TrainConfig  #: With the precision that was taken.


class Run:
    """``with Run(config, after_epoch) as run:`` a run that is begun, or found in ``config.out`` and gone on with.

    Inside, its folder is its own, and SIGTERM and SIGINT end the step, save, and raise TrainingStopped. See ``train``
    for the errors and for ``after_epoch``.

    Attributes:
        config: its precision is settled. step: optimizer steps done, of ``total`` in the whole run.
        captioner: the plain module in training. model: the same, as the accelerator has wrapped it. kept: what is
            validated and saved, that or its moving average.
    """

    def __init__(self, config: TrainConfig, after_epoch: Callable | None = None):
        check_output_folder(config.folder, RUN)
        asked, self.config = config.precision, settle_precision(config, device_here())
        self.after_epoch = after_epoch
        self.accelerator = start_accelerator(self.config)
        self.main = self.accelerator.is_main_process
        if config.progress and self.main:
            say(precision_line(asked, self.config.precision, self.accelerator.device))
        self.saved = config.folder / "checkpoint"

    def __enter__(self) -> Run:
        with ExitStack() as stack:
            stack.enter_context(own_folder(self.accelerator, self.config.folder))
            self._build()
            self.stop = stack.enter_context(StopSignals())
            stack.enter_context(self.bar)
            stack.callback(self.tracker.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._stack.__exit__(*error)

    def _build(self) -> None:
        config, accelerator = self.config, self.accelerator
        torch.manual_seed(config.seed)
        main_process_first(accelerator, lambda: recover_folder(self.saved, CHECKPOINT))
        dataset = open_split(config, "train", config.limit)
        self.position = saved_position(self.saved, config, accelerator.num_processes)
        self.step = self.position.step
        check_same_start(accelerator, self.step, config, self.saved)
        self.captioner = main_process_first(accelerator, lambda: Captioner.load(self.saved) if self.step else
                                            initial_captioner(config, dataset.captions))
        self.data, self.val = main_process_first(accelerator, lambda: [
            Batches(split, self.captioner, config, process=accelerator.process_index,
                    processes=accelerator.num_processes)
            for split in (dataset, open_split(config, "val", config.val_limit))])
        self.total = self.data.steps * config.epochs
        if config.scored_every:
            self.captioned = open_split(config, "val", config.caption_limit)
            check_document_frequencies(self.captioned.captions)  # now, not after an epoch
        self.critic = config.self_critical and SelfCritical(dataset.captions, self.captioner.vocabulary, config)
        self.average = moving_average(self.captioner, config.ema) if config.ema else None
        apply_compute_options(self.captioner, config)
        self.tracker = Tracker(accelerator, config, self.step)
        self.log = Log(config.folder / "metrics.jsonl", self.step, writes=self.main, tracker=self.tracker,
                       validated=self.position.epochs * self.data.steps == self.step)
        self.model, self.optimizer = accelerator.prepare(self.captioner, new_optimizer(self.captioner, config))
        frozen = partial(accelerator.prepare_model, evaluation_mode=True)
        self.kept = frozen(self.average.module) if self.average else self.model
        self.teacher = frozen(load_teacher(config)) if config.has_teacher else None
        seed_this_rank(accelerator.process_index, config.seed)
        if self.step:
            load_state(self.saved, accelerator, self.model, self.optimizer, config)
        self.monitor = ThroughputMonitor(self.data.pictures, accelerator.device)
        self.parts: list[tuple[MicroBatchKey, Tensor, float]] = []  # of a step; no pictures: they would stay on the GPU
        self.bar = tqdm(total=self.total, initial=self.step, disable=not (config.progress and self.main),
                        desc=config.folder.name, unit="step")

    # -- what the loop asks for, in its order -------------------------------------------------------------

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, from 0; fewer where validation has not been better for ``config.patience``."""
        for epoch in range(self.position.epochs, self.config.epochs):
            if out_of_patience(self.log.lines, self.config):
                return
            yield epoch

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The epoch's micro-batches that are left, on this process's device."""
        self.epoch = epoch
        self.model.train()
        for batch in self.monitor.watch(self.data.epoch(epoch, start=self.step - epoch * self.data.steps)):
            yield batch.to(self.accelerator.device)

    def accumulate(self):
        """Around one micro-batch: processes wait for each other's gradients in the last one of a step alone."""
        return self.accelerator.accumulate(self.model)

    def objective(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss that the config names, logits [M, V] and the M targets. See ``objective`` and ``SelfCritical``."""
        loss, logits, targets = (self.critic or objective)(self.model, batch, self.config, self.teacher)
        logged = (self.step + 1) % self.config.log_every == 0
        accuracy = batch.loss_scales[0] * token_accuracy(logits, targets) if logged and len(targets) else 0.0
        self.parts.append((batch.key, loss.detach(), accuracy))
        return loss, logits, targets

    def backward(self, loss: Tensor) -> None:
        """Add this micro-batch's gradients."""
        self.accelerator.backward(loss)

    @property
    def last_of_step(self) -> bool:
        """Is this the step's last micro-batch, after which the weights move?"""
        return self.accelerator.sync_gradients

    def clip(self) -> None:
        """Shorten the gradient to ``config.clip``, and tell all processes how the step went in each.

        Raises TrainingError, in all of them, before the weights move, where the gradient or a loss is no number. The
        batch is saved then.
        """
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        keys, losses, accuracies = zip(*self.parts, strict=True)
        losses, self.parts = [float(loss) for loss in losses], []
        own = [sum(losses) / len(losses), sum(accuracies) / len(losses), self.stop.asked]
        loss, accuracy, signal = gather_numbers(self.accelerator, own).T
        self.loss, self.accuracy, self.signal = float(loss.mean()), float(accuracy.mean()), int(signal.max())
        # With fp16 a gradient may overflow: the scaler then leaves the step out and lowers the scale.
        length = 0.0 if self.accelerator.scaler else float(getattr(norm, "full_tensor", lambda: norm)())
        if not math.isfinite(self.loss) or not math.isfinite(length):
            self._fail(keys, losses, length)

    def optimizer_step(self) -> None:
        """Move the weights and their average, log, and save where it is time. Raises TrainingStopped after a signal."""
        config, lr = self.config, learning_rate(self.step, self.total, self.config.lr, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.average:
            self.average.update(self.captioner, self.step)
        self.monitor.step()
        self.bar.update()
        if self.step % config.log_every == 0:
            self.log.write(step=self.step, epoch=self.step / self.data.steps, lr=lr, loss=self.loss,
                           accuracy=self.accuracy, **self.monitor.metrics(self.total - self.step),
                           **(self.critic.metrics() if self.critic else {}))
            self.bar.set_postfix(loss=f"{self.loss:.3f}", waiting=f"{self.log.lines[-1]['data_wait']:.0%}")
        if self.signal or config.save_steps and self.step % config.save_steps == 0:
            self._save(self.epoch)
        if self.signal:
            raise TrainingStopped(f"stopped at step {self.step} of {self.total}; {self.saved} is saved, and the same "
                                  "command goes on from there", self.signal)

    def end_epoch(self, epoch: int) -> None:
        """Validate, log, keep the best and the last weights, draw, save. Raises CheckpointError, in all processes,
        where the file system refuses, or a user's file would be lost."""
        epoch, config, captioner = epoch + 1, self.config, self.accelerator.unwrap_model(self.kept)
        found, every = validate(self.kept, self.val, self.accelerator), config.scored_every
        if every and (epoch % every == 0 or epoch == config.epochs):
            found["cider"] = caption_score(captioner, self.captioned, config)
        with raise_on_all_ranks(self.accelerator):
            self.log.write(step=self.step, epoch=epoch, **found)
        folders = checkpoint_folders(self.log.lines, epoch, config)
        weights = whole_weights(self.accelerator, self.kept) if folders else None
        with raise_on_all_ranks(self.accelerator):
            if folders and self.main:
                save_kept_epochs(captioner, folders, epoch, config, weights)
        if self.after_epoch and self.main and not is_sharded(self.accelerator):
            for name, path in (self.after_epoch(captioner, self.log.lines) or {}).items():
                self.tracker.image(name, path, self.step)
        if epoch % config.save_every == 0 or epoch == config.epochs or out_of_patience(self.log.lines, config):
            self._save(epoch)

    def result(self) -> TrainResult:
        """The captioner as it is kept, without what Accelerate wrapped around it, and the log."""
        captioner = self.accelerator.unwrap_model(self.kept, keep_fp32_wrapper=False).eval()
        return TrainResult(captioner, self.config.folder, self.log.lines, self.config)

    def _save(self, epochs: int) -> None:
        save(self.saved, self.accelerator, self.model, self.optimizer, self.config, RunPosition(self.step, epochs),
             self.kept)

    def _fail(self, keys: Sequence[MicroBatchKey], losses: list[float], length: float) -> None:
        said = "another process has saved the batch"
        if not math.isfinite(sum(losses)) or math.isfinite(self.loss) and self.main:
            try:
                said = f"the batch is saved in {save_bad_batch(self.config.folder, self.data, keys, losses, self.step)}"
            except (PrunecapError, OSError, SafetensorError) as error:  # a full disk must not hide what went wrong
                said = f"the batch could not be saved ({error})"
        what = f"the loss is {self.loss}" if not math.isfinite(self.loss) else f"the gradient's length is {length}"
        kept = f"the checkpoint in {self.saved} is from before" if self.saved.exists() else "there is no checkpoint yet"
        raise TrainingError(f"{what} at step {self.step}; {said}; {kept}. Lower --lr or train with --precision fp32")


def save_bad_batch(folder: Path, batches: Batches, keys: Sequence[MicroBatchKey], losses: Sequence[float],
                   step: int) -> Path:
    """Write the first micro-batch whose loss is no number, or the last one, as bad_batch_STEP.json and .safetensors.

    The JSON has the step, the loss, the pictures' ids and their captions; the safetensors ``images`` [B, 3, S, S] (or
    features, by name) and ``ids`` [B*R, T], as the captioner got them. In several processes names end in the number of
    the process. Returns the path of the JSON.
    """
    bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses) - 1)
    batch, dataset, pictures = batches[keys[bad]], batches.dataset, batches.pictures_of(keys[bad])
    path = folder / (f"bad_batch_{step}" + (f"_process_{batches.process}" if batches.processes > 1 else "") + ".json")
    write_text(path, json.dumps({
        "step": step, "loss": str(losses[bad]), "dataset": dataset.name, "split": dataset.split,
        "pictures": [dataset.image_ids[i] for i in pictures],
        "captions": [dataset.captions[i] for i in pictures]}, indent=1, ensure_ascii=False) + "\n")
    shown = {"images": batch.images} if isinstance(batch.images, Tensor) else vars(batch.images)
    save_file({key: value.contiguous() for key, value in {**shown, "ids": batch.ids}.items()
               if isinstance(value, Tensor)}, path.with_suffix(".safetensors"))
    return path
