"""How is a captioner trained? A configuration, batches, one readable loop, and a state to go on from."""

from .config import TrainConfig
from .loop import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]
