"""How fast would training be on a GPU that is not here? A prediction: one step's operations against speed limits.

Each operation takes at least the time to multiply its numbers at the processor's peak rate, and at least the time to
move its bytes (the roofline: Williams et al. 2009). Their sum is the limit of a step. What real training reaches of
it is an assumption, given as an interval: ``Device.share``.

Shapes: B pictures a GPU and step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from ...errors import InputError
from ...training import TrainConfig
from ..flops import Operation, total_flops
from ..ledger import check_counts, timed
from .memory import RESERVE, largest_batch, memory_here, training_step

GIB = 2**30
SHARE = (0.45, 0.9)
"""What training reaches of the limit, at least and at most. All 24 training rates of plain ViT, ConvNeXt, Swin and
PoolFormer that timm has published for an RTX 3090 (in 16 bits, at 224 pixels, of 6 to 1,013 million parameters) lie
at 0.64 to 0.90 of what is told for them here, and at 0.20 to 0.68 of the peak FLOP/s; NVIDIA's of ViT-g/14 at 0.58 on
eight A100 and 0.47 on eight H100. ``benchmarks/predict.py`` has them one by one."""

CPU_SHARE = (0.6, 0.9)
"""What training reaches of the limit that this file's rates set, on a CPU: ten captioners on one core were at 0.61 to
0.84 (``benchmarks/predict.py``)."""

LAUNCH = (5e-6, 20e-6)
"""Seconds in which the host issues one operation, at least and at most, when it runs as eager PyTorch: a step of many
small operations waits for them and not for the GPU. An assumption, not measured on a GPU."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Device:
    """A processor's speed limits.

    Attributes:
        memory: bytes.
        half, tf32, fp32: dense FLOP/s of matrix products: 16-bit factors summed in 32 bits, 32-bit factors cut to 19
            bits, and 32-bit factors.
        bandwidth: bytes a second to and from its memory.
        link: bytes a second to other GPUs of its machine, each way.
        share: what training reaches of the limit, at least and at most.
        kernels: "cuda" or "cpu".
    """

    name: str
    memory: int
    half: float
    tf32: float
    fp32: float
    bandwidth: float
    link: float = 32e9
    share: Interval = SHARE
    kernels: str = "cuda"


GPUS = (
    Device("rtx3090", 24 * GIB, half=71.2e12, tf32=35.6e12, fp32=35.6e12, bandwidth=936e9),
    Device("rtx4090", 24 * GIB, half=165.2e12, tf32=82.6e12, fp32=82.6e12, bandwidth=1008e9),
    Device("a100", 80 * GIB, half=312e12, tf32=156e12, fp32=19.5e12, bandwidth=2039e9, link=300e9),
    Device("h100", 80 * GIB, half=989.4e12, tf32=494.7e12, fp32=66.9e12, bandwidth=3350e9, link=450e9),
)
"""Rates of NVIDIA's papers on GA102 (2020) and Ada (2022), and of the data sheets of the A100 80GB SXM and the H100
SXM; the doubled rates that those print for sparse matrices do not count here. RTX cards meet over PCIe 4.0 x16."""


class DoesNotFit(InputError):
    """A batch that is too large for a GPU."""


def find_gpu(name: str) -> Device:
    """One of ``GPUS``. Raises InputError that names them."""
    for gpu in GPUS:
        if gpu.name.removeprefix("rtx") == name.lower().replace(" ", "").removeprefix("rtx"):
            return gpu
    raise InputError(f"gpu {name!r} is not known; known are {', '.join(gpu.name for gpu in GPUS)}")


def this_machine(*, side: int | None = None, numbers: int | None = None, turns: int = 5) -> Device:
    """Measure the GPU that is here, or else the CPU, in about a second: the best of ``turns`` products of square
    matrices with so many rows (``side``), and copies of so many 32-bit ``numbers``."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    side, numbers = side or (8192 if gpu else 1536), numbers or (2**28 if gpu else 2**25)

    def best(function: Callable) -> float:
        return min(timed(function, device)[0] for _ in range(turns + 1))  # the first warms up

    def rate(dtype: torch.dtype) -> float:
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / best(lambda: a @ b)

    a, b = (torch.ones(numbers, device=device) for _ in range(2))
    bandwidth = 8 * numbers / best(lambda: b.copy_(a))
    half, full = rate(torch.bfloat16), rate(torch.float32)
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name() if gpu else f"this CPU, {threads} thread{'s' if threads > 1 else ''}"
    return Device(name, memory_here(), half=half, tf32=full, fp32=full, bandwidth=bandwidth,
                  share=SHARE if gpu else CPU_SHARE, kernels=device.type)


@dataclass(frozen=True)
class Prediction:
    """What training would take on GPUs that nobody asked.

    Attributes:
        batch: B, pictures a GPU and step.
        memory: most bytes that tensors hold on each.
        flops: of one step on one GPU, forward, backward and the optimizer.
        limit: seconds that a step takes at least, by its FLOPs and bytes.
        seconds: of a step, at least and at most.
    """

    device: Device
    gpus: int
    batch: int
    memory: int
    flops: int
    limit: float
    seconds: Interval

    @property
    def pictures_a_second(self) -> Interval:
        """Of all GPUs together, at least and at most."""
        fast, slow = self.seconds
        return self.gpus * self.batch / slow, self.gpus * self.batch / fast

    @property
    def rate(self) -> Interval:
        """FLOP/s that one GPU achieves, at least and at most."""
        fast, slow = self.seconds
        return self.flops / slow, self.flops / fast

    def hours(self, pictures: int) -> Interval:
        """To see so many pictures, at least and at most."""
        low, high = self.pictures_a_second
        return pictures / high / 3600, pictures / low / 3600

    def cost(self, pictures: int, price: float) -> Interval:
        """The same in money, at so much for an hour of one GPU. Raises InputError for a negative price."""
        if not price >= 0:
            raise InputError(f"price {price} is negative; give what one GPU costs an hour")
        fast, slow = self.hours(pictures)
        return fast * self.gpus * price, slow * self.gpus * price


def roofline(operations: Iterable[Operation], device: Device) -> float:
    """Seconds that the operations take at least, one after the other, at the device's peak rates."""
    return sum(max(operation.flops / getattr(device, operation.unit), operation.bytes / device.bandwidth)
               for operation in operations)


def exchange(parameters: int, gpus: int, link: float) -> float:
    """Seconds in which GPUs in a ring add up their gradients, 4 bytes each: every byte leaves and arrives
    2 (n - 1) / n times (Patarasuk & Yuan 2009)."""
    return 2 * (gpus - 1) / gpus * 4 * parameters / link


def step_seconds(limit: float, kernels: int, share: Interval, exchanged: float = 0.0) -> Interval:
    """A step, at least and at most: ``limit`` is ``roofline``'s, ``kernels`` are operations that the host must issue,
    and ``exchanged`` seconds are hidden behind the backward pass at best, waited for at worst."""
    fast, slow = (max(limit / reached, kernels * launch) for reached, launch in zip(share[::-1], LAUNCH, strict=True))
    return max(fast, exchanged), slow + exchanged


def predict(config: TrainConfig, device: Device, *, vocabulary_size: int | None = None, batch_size: int | None = None,
            gpus: int = 1, rate: float | None = None, fused: bool = True) -> Prediction:
    """Predict training as ``config`` says it on GPUs of one kind. Nothing is computed, and none need be here.

    Args:
        batch_size: B; None: the largest that fits.
        rate: FLOP/s that training was measured to achieve on one GPU, in place of the limits and the assumption.
        fused: attention by kernels that never hold its weights.

    Every caption is taken to be ``max_words`` long, and pictures to be there when they are needed. Raises DoesNotFit
    where the GPU is too small for the batch, and InputError for counts and rates that cannot be.
    """
    check_counts(gpus=gpus, **{} if batch_size is None else {"batch_size": batch_size})
    if rate is not None and not rate > 0:
        raise InputError(f"a measured rate of {rate} FLOP/s cannot be; it must be above 0")
    settings = dict(vocabulary_size=vocabulary_size, device=device.kernels, processes=gpus, fused=fused)
    batch = batch_size or largest_batch(config, device.memory, **settings)
    step = training_step(config, batch_size=batch or 1, **settings)
    operations, memory = step.operations, step.memory
    if memory + RESERVE > device.memory:
        raise DoesNotFit(f"{device.name}: a batch of {batch or 1} takes {memory / GIB:.1f} GiB, and "
                         f"{(device.memory - RESERVE) / GIB:.1f} of {device.memory / GIB:.0f} are free for it; " + (
                             "take fewer pictures, or name no batch size to find the largest" if batch > 1 else
                             "freeze the encoder, prune inside it, take smaller pictures or a smaller encoder"))
    flops, limit = total_flops(operations), roofline(operations, device)
    exchanged = exchange(step.trained, gpus, device.link)
    seconds = step_seconds(limit, len(operations), device.share, exchanged) if rate is None else \
        (max(flops / rate, exchanged), flops / rate + exchanged)
    return Prediction(device, gpus, batch, memory, flops, limit, seconds)
