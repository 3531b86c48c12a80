"""What does a captioner cost, and what does pruning save? Operations, parameters, seconds; ``forecast``: training."""

from .budget import BreakEven, break_even, fastest_schedule, schedule_for_flops, usual_schedule
from .flops import count_flops
from .ledger import STAGES, Latency, Ledger, Quartiles, latency, ledger

__all__ = ["STAGES", "BreakEven", "Latency", "Ledger", "Quartiles", "break_even", "count_flops", "fastest_schedule",
           "latency", "ledger", "schedule_for_flops", "usual_schedule"]
