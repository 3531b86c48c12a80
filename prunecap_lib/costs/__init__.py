"""What does a captioner cost, and what does pruning save? Operations, parameters, seconds and memory."""

from .budget import BreakEven, break_even, schedule_for_flops
from .flops import count_flops
from .latency import Latency, Quartiles, latency
from .ledger import STAGES, Ledger, ledger
from .memory import largest_batch, training_memory

__all__ = ["STAGES", "BreakEven", "Latency", "Ledger", "Quartiles", "break_even", "count_flops", "largest_batch",
           "latency", "ledger", "schedule_for_flops", "training_memory"]
