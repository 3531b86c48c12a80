"""How does a captioner learn? One page: batches in, next-word loss, a step downhill; logged, saved, resumable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..captioner import Captioner
from ..checkpoint import CHECKPOINT
from ..distributed import main_process_first, seed_this_rank
from ..errors import TrainingStopped
from ..evaluation import token_accuracy
from ..files import check_output_folder, recover_folder, say
from .average import moving_average
from .batches import Batches, open_split
from .config import TrainConfig
from .epoch_end import EpochEnd
from .log import Log
from .machine import fit_to_machine, precision_line, settle_precision
from .monitor import Monitor
from .objective import objective
from .outcome import Outcomes
from .processes import check_same_start, device_here, start_accelerator
from .progress import out_of_patience
from .self_critical import SampledBatches, SelfCritical
from .start import first_captioner, load_teacher
from .state import RUN, Place, load_state, own_folder, save, saved_place
from .stopping import StopSignals
from .tracking import Tracker


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    captioner: Captioner
    out: Path
    history: list[dict]
    """The lines of metrics.jsonl."""
    config: TrainConfig
    """With the precision that was taken."""


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
        after_epoch: called with the captioner as it is kept and the lines of metrics.jsonl so far, in the main process;
            may return pictures that it drew, for the tracker: {name: PNG file}. See ``plotting.RunFigures``.

    Several processes, started by ``accelerate launch`` or ``torchrun``, train one captioner: each calls this.

    Raises TrainingError where the loss is no longer a number, CheckpointError where ``out`` holds another
    run; in both cases the last good checkpoint stays. InputError where ``out`` holds something else, and while another
    process trains into it. TrainingStopped after SIGTERM or SIGINT: the run is saved.
    """
    check_output_folder(config.folder, RUN)
    asked, config = config.precision, settle_precision(config, device_here())
    accelerator = start_accelerator(config)
    if config.progress and accelerator.is_main_process:
        say(precision_line(asked, config.precision, accelerator.device))
    with own_folder(accelerator, config.folder):
        return run(accelerator, config, after_epoch)


def run(accelerator, config: TrainConfig, after_epoch: Callable | None) -> TrainResult:
    """``train``, in a folder of its own."""
    from tqdm import tqdm
    main, processes = accelerator.is_main_process, accelerator.num_processes
    torch.manual_seed(config.seed)
    folder, saved = config.folder, config.folder / "checkpoint"
    main_process_first(accelerator, lambda: recover_folder(saved, CHECKPOINT))
    dataset = open_split(config, "train", config.limit)
    place = saved_place(saved, config, processes)
    check_same_start(accelerator, step := place.step, config, saved)
    captioner = main_process_first(accelerator, lambda: Captioner.load(saved) if step else
                                  first_captioner(config, dataset.captions))
    batches, val = main_process_first(accelerator, lambda: [
        kind(split, captioner, config, process=accelerator.process_index, processes=processes)
        for kind, split in ((SampledBatches if config.self_critical else Batches, dataset),
                            (Batches, open_split(config, "val", config.val_limit)))])
    critic = SelfCritical(dataset.captions, captioner.vocabulary, config) if config.self_critical else None
    average = moving_average(captioner, config.ema) if config.ema else None
    fit_to_machine(captioner, config)
    groups = parameter_groups(captioner, config.weight_decay, (config.encoder_lr or config.lr) / config.lr)
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
    total = batches.steps * config.epochs
    tracker = Tracker(accelerator, config, step)
    log = Log(folder / "metrics.jsonl", step, validated=place.epochs * batches.steps == step, writes=main,
              tell=tracker.log)
    model, optimizer = accelerator.prepare(captioner, optimizer)
    kept = accelerator.prepare_model(average.module, evaluation_mode=True) if average else model
    teacher = accelerator.prepare_model(load_teacher(config), evaluation_mode=True) if config.taught else None
    seed_this_rank(accelerator.process_index, config.seed)
    if step:
        load_state(saved, accelerator, model, optimizer, config)
    monitor, outcomes = Monitor(batches.pictures, accelerator.device), Outcomes(accelerator, batches, folder)
    finish = EpochEnd(accelerator, config, val, log, tracker, after_epoch)
    bar = tqdm(total=total, initial=step, disable=not (config.progress and main), desc=folder.name, unit="step")
    with StopSignals() as stop, bar, tracker:
        for epoch in range(place.epochs, config.epochs):
            if out_of_patience(log.lines, config):
                break
            model.train()
            for batch in monitor.watch(batches.epoch(epoch, start=step - epoch * batches.steps)):
                logged = (step + 1) % config.log_every == 0
                lr = learning_rate(step, total, config.lr, config.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = lr * group["share"]
                with accelerator.accumulate(model):
                    images, ids = batch.to(accelerator.device)
                    loss, logits, due = (critic or objective)(model, images, ids, config, teacher, batch.weights)
                    accelerator.backward(loss)
                    outcomes.add(batch, loss, token_accuracy(logits, due) if logged and len(due) else 0.0)
                    if not accelerator.sync_gradients:
                        continue  # the weights move with the step's last part
                    norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
                    outcome = outcomes.together(step, norm, stop.asked)
                    optimizer.step()
                    optimizer.zero_grad()
                step += 1
                if average:
                    average.update(captioner, step)
                monitor.step()
                bar.update()
                if logged:
                    log.write(step=step, epoch=step / batches.steps, lr=lr, loss=outcome.loss,
                              accuracy=outcome.accuracy, **monitor.figures(total - step),
                              **(critic.figures() if critic else {}))
                    bar.set_postfix(loss=f"{outcome.loss:.3f}", waiting=f"{log.lines[-1]['data_wait']:.0%}")
                if outcome.stop or config.save_steps and step % config.save_steps == 0:
                    save(saved, accelerator, model, optimizer, config, Place(step, epoch), kept)
                if outcome.stop:
                    raise TrainingStopped(f"stopped at step {step} of {total}; {saved} is saved, and the same command "
                                          "goes on from there", outcome.stop)
            last = finish(kept, step, epoch + 1)
            if (epoch + 1) % config.save_every == 0 or last:
                save(saved, accelerator, model, optimizer, config, Place(step, epoch + 1), kept)
    # Accelerate wrapped forward for autocast; hand back the plain model
    return TrainResult(accelerator.unwrap_model(kept, keep_fp32_wrapper=False).eval(), folder, log.lines, config)
