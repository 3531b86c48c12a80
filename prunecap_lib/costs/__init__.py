"""What does a captioner cost, and what does pruning save? Operations, parameters, seconds and memory."""

from .flops import count_flops
from .latency import Latency, Quartiles, latency
from .ledger import STAGES, Ledger, ledger
from .memory import largest_batch, training_memory

__all__ = ["STAGES", "Latency", "Ledger", "Quartiles", "count_flops", "largest_batch", "latency", "ledger",
           "training_memory"]
