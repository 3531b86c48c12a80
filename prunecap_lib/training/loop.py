"""How does a captioner learn? One page: batches in, next-word loss, a step downhill; logged, saved, resumable."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

from .. import checkpoint
from ..captioner import Captioner
from ..errors import TrainingError
from ..evaluation import token_accuracy
from ..files import recover_folder, replace_folder
from .batches import Batches, open_split
from .config import TrainConfig
from .objective import next_words, objective
from .self_critical import SampledBatches, SelfCritical, validate_captions
from .self_critical import signature as reward_signature
from .start import first_captioner, load_teacher
from .state import load_state, save_state, saved_step


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

    Raises TrainingError where the loss is no longer a number, CheckpointError where ``out`` holds another
    run; in both cases the last good checkpoint stays.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from tqdm import tqdm
    AcceleratorState._reset_state()  # a run before this one, in this process, may have had another precision
    accelerator = Accelerator(mixed_precision="bf16" if config.precision == "bf16" else "no",
                              cpu=not torch.cuda.is_available())
    torch.manual_seed(config.seed)
    folder, saved = config.folder, config.folder / "checkpoint"
    recover_folder(saved)
    dataset = open_split(config, "train", config.limit)
    step = saved_step(saved, config) if saved.exists() else 0
    captioner = Captioner.load(saved) if step else first_captioner(config, dataset.captions)
    critic = SelfCritical(dataset.captions, captioner.vocabulary, config) if config.self_critical else None
    batches = (SampledBatches if critic else Batches)(dataset, captioner, config)
    val = Batches(open_split(config, "val", config.val_limit), captioner, config)
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config.weight_decay), lr=config.lr, betas=(0.9, 0.98))
    total = batches.steps * config.epochs
    log = Log(folder / "metrics.jsonl", step)
    model, optimizer = accelerator.prepare(captioner, optimizer)
    teacher = accelerator.prepare_model(load_teacher(config), evaluation_mode=True) if config.taught else None
    if step:
        load_state(saved, optimizer)
    bar = tqdm(total=total, initial=step, disable=not config.progress, desc=folder.name, unit="step")
    for epoch in range(step // batches.steps, config.epochs):
        model.train()
        for images, ids in batches.epoch(epoch):
            lr = learning_rate(step, total, config.lr, config.warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr
            images, ids = images.to(accelerator.device), ids.to(accelerator.device)
            loss, logits, due = (critic or objective)(model, images, ids, config, teacher)
            if not math.isfinite(loss.item()):
                raise TrainingError(f"the loss is {loss.item()} at step {step}; the checkpoint in {saved} is from "
                                    "before. Lower --lr or train with --precision fp32")
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            bar.update()
            if step % config.log_every == 0:
                log.write(step=step, epoch=step / batches.steps, lr=lr, loss=loss.item(),
                          accuracy=token_accuracy(logits, due), **(critic.figures() if critic else {}))
                bar.set_postfix(loss=f"{loss.item():.3f}")
        log.write(step=step, epoch=epoch + 1, **validate(model, val, accelerator.device),
                  **(validate_captions(accelerator.unwrap_model(model), val) if critic else {}))
        if (epoch + 1) % config.save_every == 0 or epoch + 1 == config.epochs:
            save(saved, accelerator.unwrap_model(model), optimizer, step, config)
    bar.close()
    # Accelerate wrapped forward for autocast; hand back the plain model
    return TrainResult(accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval(), folder, log.lines)


@torch.no_grad()
def validate(model, val: Batches, device) -> dict[str, float]:
    """Loss and token accuracy under teacher forcing, over the validation pictures."""
    model.eval()
    sums = torch.zeros(3, dtype=torch.double)
    for images, ids in val.epoch(0, shuffle=False, drop_last=False):
        images, ids = images.to(device), ids.to(device)
        logits, due = next_words(model, images, ids)
        sums += torch.tensor([F.cross_entropy(logits, due, reduction="sum"),
                              token_accuracy(logits, due) * len(due), len(due)])
    return {"val_loss": float(sums[0] / sums[2]), "val_accuracy": float(sums[1] / sums[2])}


def save(folder: Path, captioner: Captioner, optimizer, step: int, config: TrainConfig) -> None:
    """The captioner and the state to go on from, swapped in as one folder."""
    signature = {key: value for key, value in asdict(config).items() if key not in ("out", "root")}
    if config.self_critical:
        signature["reward"] = reward_signature(config)
    with replace_folder(folder) as new:
        checkpoint.write(new, captioner, signature=json.dumps(signature))
        save_state(new, optimizer, step, config)


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
