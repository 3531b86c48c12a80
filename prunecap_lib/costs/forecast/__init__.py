"""What would training take on a GPU that is not here? Memory, the largest batch, and seconds, by one step's shapes."""

from .memory import largest_batch, out_of_memory, training_memory
from .speed import GPUS, Device, Prediction, find_gpu, predict, this_machine

__all__ = ["GPUS", "Device", "Prediction", "find_gpu", "largest_batch", "out_of_memory", "predict", "this_machine",
           "training_memory"]
