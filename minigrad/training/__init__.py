"""From a loss to trained weights: truncated backpropagation, the training loop, checkpoints."""

from minigrad.training.bptt import TruncatedBPTT, accumulate
from minigrad.training.history import History
from minigrad.training.loop import fit
from minigrad.training.saving import load_training, save_training

__all__ = ["History", "TruncatedBPTT", "accumulate", "fit", "load_training", "save_training"]
