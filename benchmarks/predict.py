"""Does training take the time that `prunecap cost --gpu` predicts? Against published rates, and against this CPU.

    python benchmarks/predict.py --json data/results/predict.json
    python benchmarks/predict.py --json data/results/predict.json --add --kinds measured

A prediction is a limit, told from a training step's operations, times the share of it that training reaches. Both
kinds of rows ask for that share, which ought to be much the same for all models.

"published": encoders' training rates on GPUs, as others measured them. Those of timm 0.6 with PyTorch 1.12 on an RTX
3090: all plain ViT, ConvNeXt, Swin and PoolFormer for 224 pixels in its repository's
results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv (mixed precision, channels last; attention was not fused then).
And NVIDIA's of ViT-g/14 in bf16 on eight A100 or H100, from the page "Performance" of ViT in the NeMo Framework's user
guide; its table of predefined configurations has the 64 pictures a GPU. That ViT looks at 264 tokens, with eight in the
place of one CLS, and ours at 257: those two shares are told some 3% too low.

"measured": training steps of captioners on this CPU, against a limit from its own matrix rates and bandwidth, measured
just before. Each is then predicted with the mean share of the others: the error is that of the prediction.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace

import torch

from prunecap_lib import Captioner, TrainConfig
from prunecap_lib.costs.flops import Operation, Operations, total_flops
from prunecap_lib.costs.forecast import find_gpu, this_machine
from prunecap_lib.costs.forecast.memory import training_step
from prunecap_lib.costs.forecast.shapes import Shapes, UnfusedAttention, autocast
from prunecap_lib.costs.forecast.speed import roofline
from prunecap_lib.costs.meta import placeholder_vocabulary
from prunecap_lib.encoders import build_encoder
from prunecap_lib.provenance import report_path, write_rows
from prunecap_lib.pruning import Schedule
from prunecap_lib.training.batches import Batch
from prunecap_lib.training.build import parameter_groups
from prunecap_lib.training.objective import objective

PUBLISHED = [  # encoder, GPU, attention is fused, pictures a second and GPU, pictures a GPU and step
    ("vit_tiny_patch16_224", "rtx3090", False, 2299.56, 512),
    ("vit_small_patch16_224", "rtx3090", False, 1057.92, 384),
    ("vit_base_patch16_224", "rtx3090", False, 392.99, 192), ("vit_large_patch16_224", "rtx3090", False, 117.2, 64),
    ("vit_small_patch32_224", "rtx3090", False, 4445.76, 512),
    ("vit_base_patch32_224", "rtx3090", False, 1708.63, 512),
    ("vit_large_patch32_224", "rtx3090", False, 524.74, 256), ("vit_base_patch8_224", "rtx3090", False, 63.45, 24),
    ("vit_large_patch14_224", "rtx3090", False, 85.06, 48), ("vit_giant_patch14_224", "rtx3090", False, 22.32, 8),
    ("convnext_tiny", "rtx3090", False, 819.24, 256), ("convnext_small", "rtx3090", False, 487.15, 192),
    ("convnext_base", "rtx3090", False, 338.68, 128), ("convnext_large", "rtx3090", False, 187.93, 96),
    ("convnext_xlarge", "rtx3090", False, 116.37, 64),
    ("swin_tiny_patch4_window7_224", "rtx3090", False, 648.69, 256),
    ("swin_small_patch4_window7_224", "rtx3090", False, 400.37, 192),
    ("swin_base_patch4_window7_224", "rtx3090", False, 281.0, 128),
    ("swin_large_patch4_window7_224", "rtx3090", False, 153.79, 64),
    ("poolformer_s12", "rtx3090", False, 1342.54, 512), ("poolformer_s24", "rtx3090", False, 689.84, 256),
    ("poolformer_s36", "rtx3090", False, 467.39, 192), ("poolformer_m36", "rtx3090", False, 315.69, 128),
    ("poolformer_m48", "rtx3090", False, 232.43, 96),
    ("vit_giant_patch14_224", "a100", True, 693 / 8, 64), ("vit_giant_patch14_224", "h100", True, 1428 / 8, 64),
]
PRESET = TrainConfig.seed_preset(encoder="vit_small_patch16_224", batch_size=4, precision="fp32")
MEASURED = {
    "ViT-S, fp32": PRESET,
    "ViT-S, bf16": replace(PRESET, precision="bf16"),
    "ViT-S, half kept thrice, fp32": replace(PRESET, schedule=Schedule((3, 6, 9), (0.5,) * 3, "norm_smallest")),
    "ViT-S frozen, fp32": replace(PRESET, freeze_encoder=True, batch_size=8),
    "ViT-S features, fp32": replace(PRESET, freeze_encoder=True, cache_features=True, batch_size=32),
    "ViT-Ti, fp32": replace(PRESET, encoder="vit_tiny_patch16_224", batch_size=8),
    "ConvNeXt pico, fp32": replace(PRESET, encoder="convnext_pico"),
    "Swin-T, fp32": replace(PRESET, encoder="swin_tiny_patch4_window7_224", scorer="grid"),
    "Scenes ViT, bf16": TrainConfig(vocabulary_size=200, batch_size=64, precision="bf16"),
    "Scenes ConvNeXt, fp32": TrainConfig(vocabulary_size=200, batch_size=64, encoder="convnext", precision="fp32"),
}


def encoder_step(name: str, batch: int, fused: bool) -> list[Operation]:
    """Forward and backward of an encoder alone, in 16 bits. The optimizer is a hundredth of it."""
    with torch.device("meta"):
        encoder = build_encoder(name)
    with Shapes():
        encoder = encoder.to_empty(device="cpu").train()
        images = torch.zeros(batch, 3, encoder.image_size, encoder.image_size)
        with Operations() as counted:
            with autocast("bf16", "cuda"), nullcontext() if fused else UnfusedAttention():
                x = encoder(images).x
            x.float().mean().backward()
    return counted.done


def published() -> list[dict]:
    rows = []
    for name, gpu, fused, rate, batch in PUBLISHED:
        device, operations = find_gpu(gpu), encoder_step(name, batch, fused)
        share = rate / batch * roofline(operations, device)
        rows.append({"kind": "published", "name": name, "device": device.name, "batch_size": batch,
                     "gflops_a_picture": round(total_flops(operations) / batch / 1e9, 2),
                     "pictures_a_second": round(rate, 2), "limit_pictures_a_second": round(rate / share, 1),
                     "share": round(share, 3),
                     "share_of_peak": round(rate / batch * total_flops(operations) / device.half, 3)})
        print(f"{name:32} {gpu:8} {rate:7.0f} of at most {rate / share:7.0f} pictures a second: {share:.2f}; "
              f"of the peak {rows[-1]['share_of_peak']:.2f}", flush=True)
    return rows


def step_time(config: TrainConfig, steps: int = 3) -> float:
    """Seconds of a real training step on noise: the median of ``steps``, after one that warms up."""
    torch.manual_seed(0)
    encoder = build_encoder(config.encoder, image_size=config.image_size)
    captioner = Captioner(config.captioner_config(encoder.image_size), placeholder_vocabulary(config.vocabulary_size),
                          encoder=encoder).train()
    optimizer = torch.optim.AdamW(parameter_groups(captioner, config.weight_decay), lr=1e-6)
    images = torch.randn(config.batch_size, 3, encoder.image_size, encoder.image_size)
    if config.cache_features:
        images = captioner.encode(images)
    ids = torch.randint(4, config.vocabulary_size, (config.batch_size * config.captions_per_image,
                                                    config.max_words + 2))
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        with autocast(config.precision, "cpu"):
            loss, _, _ = objective(captioner, Batch(images, ids), config)
        loss.item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(captioner.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def measured() -> list[dict]:
    limits = {name: training_step(config, device="cpu").operations for name, config in MEASURED.items()}
    device = this_machine()
    print(f"{device.name}: {device.fp32 / 1e9:.0f} GFLOP/s in fp32, {device.half / 1e9:.0f} in bf16, "
          f"{device.bandwidth / 1e9:.1f} GB/s")
    seconds = {name: step_time(config) for name, config in MEASURED.items()}
    limits = {name: roofline(operations, device) for name, operations in limits.items()}
    shares, rows = {name: limits[name] / seconds[name] for name in MEASURED}, []
    for name, config in MEASURED.items():
        usual = math.exp(statistics.fmean(math.log(share) for other, share in shares.items() if other != name))
        told = limits[name] / usual
        rows.append({"kind": "measured", "name": name, "device": "this CPU", "batch_size": config.batch_size,
                     "seconds": round(seconds[name], 4), "limit_seconds": round(limits[name], 4),
                     "share": round(shares[name], 3), "predicted_seconds": round(told, 4),
                     "error": round(told / seconds[name] - 1, 3),
                     "gflops_fp32": round(device.fp32 / 1e9, 1), "gflops_bf16": round(device.half / 1e9, 1),
                     "gigabytes_a_second": round(device.bandwidth / 1e9, 2)})
        print(f"{name:32} batch {config.batch_size:3}: {seconds[name]:6.3f} s a step, at least {limits[name]:6.3f} "
              f"(share {shares[name]:.2f}); predicted {told:6.3f} ({told / seconds[name] - 1:+.0%})", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=report_path)
    parser.add_argument("--add", action="store_true", help="keep the other rows of that file")
    parser.add_argument("--kinds", nargs="+", choices=("published", "measured"), default=["published", "measured"])
    options = parser.parse_args()
    rows = [row for kind in options.kinds for row in {"published": published, "measured": measured}[kind]()]
    if options.json:
        write_rows(options.json, rows, same=("kind", "name", "device"), add=options.add)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
