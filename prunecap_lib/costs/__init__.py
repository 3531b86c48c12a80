"""What does a captioner cost, and what does pruning save? Operations, parameters, seconds and memory."""

from .budget import BreakEven, break_even, fastest_schedule, schedule_for_flops, usual_schedule
from .flops import count_flops
from .latency import Latency, Quartiles, latency
from .ledger import STAGES, Ledger, ledger
from .memory import largest_batch, training_memory
from .predict import GPUS, Device, Prediction, find_gpu, predict

__all__ = ["GPUS", "STAGES", "BreakEven", "Device", "Latency", "Ledger", "Prediction", "Quartiles", "break_even",
           "count_flops", "fastest_schedule", "find_gpu", "largest_batch", "latency", "ledger", "predict",
           "schedule_for_flops", "training_memory", "usual_schedule"]
