"""How does a captioner learn? One page: batches in, next-word loss, a step downhill; logged, saved, resumable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from ..captioner import Captioner
from ..errors import TrainingStopped
from ..evaluation import token_accuracy
from ..files import recover_folder
from .batches import Batches, open_split
from .config import TrainConfig
from .log import Log
from .machine import fit_to_machine
from .monitor import Monitor
from .objective import next_words, objective
from .outcome import Outcomes
from .processes import check_same_step, gather_numbers, one_after_another, own_random_state, start_accelerator
from .start import first_captioner, load_teacher
from .state import Place, load_state, save, saved_place
from .stopping import StopSignals


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


def parameter_groups(captioner: Captioner, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and position tables do not."""
    trained = [p for p in captioner.parameters() if p.requires_grad]
    return [{"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0}]


def train(config: TrainConfig) -> TrainResult:
    """Train a captioner, or go on with the run found in ``config.out``.

    Several processes, started by ``accelerate launch`` or ``torchrun``, train one captioner: each calls this.

    Raises TrainingError where the loss is no longer a number, CheckpointError where ``out`` holds another
    run; in both cases the last good checkpoint stays. TrainingStopped after SIGTERM or SIGINT: the run is saved.
    """
    from tqdm import tqdm
    accelerator = start_accelerator(config)
    main, processes = accelerator.is_main_process, accelerator.num_processes
    torch.manual_seed(config.seed)
    folder, saved = config.folder, config.folder / "checkpoint"
    one_after_another(accelerator, lambda: recover_folder(saved))
    dataset = open_split(config, "train", config.limit)
    place = saved_place(saved, config, processes)
    check_same_step(accelerator, step := place.step, saved)
    captioner = one_after_another(accelerator, lambda: Captioner.load(saved) if step else
                                  first_captioner(config, dataset.captions))
    batches, val = one_after_another(accelerator, lambda: [
        Batches(split, captioner, config, process=accelerator.process_index, processes=processes)
        for split in (dataset, open_split(config, "val", config.val_limit))])
    fit_to_machine(captioner, config)
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    total = batches.steps * config.epochs
    log = Log(folder / "metrics.jsonl", step, validated=place.epochs * batches.steps == step, writes=main)
    model, optimizer = accelerator.prepare(captioner, optimizer)
    teacher = accelerator.prepare_model(load_teacher(config), evaluation_mode=True) if config.start else None
    own_random_state(accelerator, config)
    if step:
        load_state(saved, accelerator, model, optimizer, config)
    monitor, outcomes = Monitor(batches.pictures), Outcomes(accelerator, batches, folder)
    bar = tqdm(total=total, initial=step, disable=not (config.progress and main), desc=folder.name, unit="step")
    with StopSignals() as stop, bar:
        for epoch in range(place.epochs, config.epochs):
            model.train()
            for batch in monitor.watch(batches.epoch(epoch, start=step - epoch * batches.steps)):
                logged = (step + 1) % config.log_every == 0
                lr = learning_rate(step, total, config.lr, config.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                with accelerator.accumulate(model):
                    images, ids = batch.to(accelerator.device)
                    loss, logits, due = objective(model, images, ids, config, teacher, batch.weights)
                    accelerator.backward(loss)
                    outcomes.add(batch, loss, token_accuracy(logits, due) if logged else 0.0)
                    if not accelerator.sync_gradients:
                        continue  # the weights move with the step's last part
                    norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
                    outcome = outcomes.together(step, norm, stop.asked)
                    optimizer.step()
                    optimizer.zero_grad()
                step += 1
                monitor.step()
                bar.update()
                if logged:
                    log.write(step=step, epoch=step / batches.steps, lr=lr, loss=outcome.loss,
                              accuracy=outcome.accuracy, **monitor.figures())
                    bar.set_postfix(loss=f"{outcome.loss:.3f}")
                if outcome.stop or config.save_steps and step % config.save_steps == 0:
                    save(saved, accelerator, model, optimizer, config, Place(step, epoch))
                if outcome.stop:
                    raise TrainingStopped(f"stopped at step {step} of {total}; {saved} is saved, and the same command "
                                          "goes on from there", outcome.stop)
            log.write(step=step, epoch=epoch + 1, **validate(model, val, accelerator))
            if (epoch + 1) % config.save_every == 0 or epoch + 1 == config.epochs:
                save(saved, accelerator, model, optimizer, config, Place(step, epoch + 1))
    # Accelerate wrapped forward for autocast; hand back the plain model
    return TrainResult(accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval(), folder, log.lines)


@torch.no_grad()
def validate(model, val: Batches, accelerator) -> dict[str, float]:
    """Loss and token accuracy under teacher forcing, over the validation pictures: each process looks at its share."""
    model.eval()
    sums = torch.zeros(3, dtype=torch.double)
    for batch in val.epoch(0, shuffle=False, drop_last=False):
        images, ids = batch.to(accelerator.device)
        logits, due = next_words(model, images, ids)
        if len(due):
            sums += torch.tensor([F.cross_entropy(logits, due, reduction="sum"),
                                  token_accuracy(logits, due) * len(due), len(due)])
    loss, hits, words = gather_numbers(accelerator, sums.tolist()).sum(dim=0).tolist()
    return {"val_loss": loss / words, "val_accuracy": hits / words}
