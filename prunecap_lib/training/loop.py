"""How does a captioner learn? One page: batches in, next-word loss, a step downhill; logged, saved, resumable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from .. import checkpoint
from ..captioner import Captioner
from ..errors import TrainingError
from ..evaluation import token_accuracy
from ..files import recover_folder, replace_folder
from .average import moving_average
from .batches import Batches, open_split
from .config import TrainConfig
from .monitor import Monitor
from .objective import objective
from .progress import keep, out_of_patience
from .start import first_captioner, load_teacher
from .state import load_state, save_state, saved_step
from .tracking import Tracker, accelerator_settings
from .validation import Judge


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    captioner: Captioner
    out: Path
    history: list[dict]
    """The lines of metrics.jsonl."""


def learning_rate(step: int, total: int, peak: float, warmup: float) -> float:
    """Linear warm-up, then half a cosine down to 1% of the peak (Loshchilov & Hutter 2017)."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return peak * (step + 1) / rise
    progress = (step - rise) / max(1, total - rise)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def parameter_groups(captioner: Captioner, weight_decay: float, encoder_share: float = 1.0) -> list[dict]:
    """Matrices decay; biases, norms and position tables do not.

    Args: encoder_share: of the learning rate, what the encoder's parameters get; each group knows its "share".
    """
    trained = {name: p for name, p in captioner.named_parameters() if p.requires_grad}
    share = {name: encoder_share if name.startswith("encoder.") else 1.0 for name in trained}
    return [{"params": [p for name, p in trained.items() if share[name] == one and (p.dim() > 1) == matrix],
             "weight_decay": weight_decay if matrix else 0.0, "share": one}
            for one in sorted(set(share.values()), reverse=True) for matrix in (True, False)]


def train(config: TrainConfig, *, after_epoch: Callable | None = None) -> TrainResult:
    """Train a captioner, or go on with the run found in ``config.out``.

    Args:
        after_epoch: called with the captioner (the moving average, where there is one) and the lines of metrics.jsonl
            so far; may return pictures that it drew for the tracker, {name: PNG file}. See ``plotting.RunFigures``.

    Raises TrainingError where the loss is no longer a number, CheckpointError where ``out`` holds another
    run; in both cases the last good checkpoint stays.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from tqdm import tqdm
    AcceleratorState._reset_state()  # a run before this one, in this process, may have had another precision
    accelerator = Accelerator(mixed_precision="bf16" if config.precision == "bf16" else "no",
                              cpu=not torch.cuda.is_available(), **accelerator_settings(config))
    torch.manual_seed(config.seed)
    folder, saved = config.folder, config.folder / "checkpoint"
    recover_folder(saved)
    dataset = open_split(config, "train", config.limit)
    step = saved_step(saved, config) if saved.exists() else 0
    captioner = Captioner.load(saved) if step else first_captioner(config, dataset.captions)
    batches = Batches(dataset, captioner, config)
    val = Batches(open_split(config, "val", config.val_limit), captioner, config)
    groups = parameter_groups(captioner, config.weight_decay, (config.encoder_lr or config.lr) / config.lr)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
    total = batches.steps * config.epochs
    log, tracker = Log(folder / "metrics.jsonl", step), Tracker(accelerator, config, step)
    average = moving_average(captioner, config.ema) if config.ema else None
    model, optimizer = accelerator.prepare(captioner, optimizer)
    kept = accelerator.prepare_model(average.module, evaluation_mode=True) if average else model
    teacher = accelerator.prepare_model(load_teacher(config), evaluation_mode=True) if config.start else None
    if step:
        load_state(saved, optimizer, captioner)
    bar = tqdm(total=total, initial=step, disable=not config.progress, desc=folder.name, unit="step")
    judge, monitor = Judge(val, config), Monitor(config.batch_size, accelerator.device)
    for epoch in range(step // batches.steps, config.epochs):
        if out_of_patience(log.lines, config):
            break
        model.train()
        for images, ids in monitor.watch(batches.epoch(epoch)):
            lr = learning_rate(step, total, config.lr, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr * group["share"]
            images, ids = images.to(accelerator.device), ids.to(accelerator.device)
            loss, logits, due = objective(model, images, ids, config, teacher)
            if not math.isfinite(loss.item()):
                raise TrainingError(f"the loss is {loss.item()} at step {step}; the checkpoint in {saved} is from "
                                    "before. Lower --lr or train with --precision fp32")
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if average:
                average.update(captioner, step)
            bar.update()
            if step % config.log_every == 0:
                log.write(step=step, epoch=step / batches.steps, lr=lr, loss=loss.item(),
                          accuracy=token_accuracy(logits, due), **monitor.figures(total - step))
                tracker.log(log.lines[-1])
                bar.set_postfix(loss=f"{loss.item():.3f}")
        best = accelerator.unwrap_model(kept)
        log.write(step=step, epoch=epoch + 1, **judge(kept, best, epoch + 1))
        tracker.log(log.lines[-1])
        last = epoch + 1 == config.epochs or out_of_patience(log.lines, config)
        keep(best, log.lines, epoch + 1, config, signature(config))
        for name, path in ((after_epoch(best, log.lines) if after_epoch else None) or {}).items():
            tracker.image(name, path, step)
        if (epoch + 1) % config.save_every == 0 or last:
            save(saved, best, optimizer, step, config, captioner if average else None)
    bar.close()
    tracker.end()
    # Accelerate wrapped forward for autocast; hand back the plain model
    return TrainResult(accelerator.unwrap_model(kept, keep_fp32_wrapper=False).eval(), folder, log.lines)


def signature(config: TrainConfig) -> str:
    """What a checkpoint says of its origin."""
    return json.dumps({key: value for key, value in asdict(config).items() if key not in ("out", "root")})


def save(folder: Path, captioner: Captioner, optimizer, step: int, config: TrainConfig, trained=None) -> None:
    """The captioner and the state to go on from, swapped in as one folder."""
    with replace_folder(folder) as new:
        checkpoint.write(new, captioner, signature=signature(config))
        save_state(new, optimizer, step, config, trained)


class Log:
    """metrics.jsonl: one JSON object a line. A resumed run forgets the lines after its checkpoint."""

    def __init__(self, path: Path, step: int):
        self.path, self.started = path, time.perf_counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_text().splitlines() if step and path.exists() else []
        self.lines = [line for line in map(json.loads, old) if line["step"] <= step]
        self.before = self.lines[-1]["seconds"] if self.lines else 0.0
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def write(self, **values: float) -> None:
        line = {key: round(value, 6) for key, value in values.items()}
        line["seconds"] = round(self.before + time.perf_counter() - self.started, 2)
        self.lines.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
