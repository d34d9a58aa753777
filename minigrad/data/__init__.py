"""From arrays to training data: padded batches, streams, windows, a scaler.

These are plain iterators over NumPy arrays, time first: a batch is (T, B, ...). Files are not read
here. One iteration over Batches or Stream is one epoch. `state_dict` gives the position of an
iteration as a small dict that JSON can hold. So a training that goes on from a checkpoint sees the
same batches as one that was never stopped.
"""

from minigrad.data.batches import NO_CLASS, Batches, pad
from minigrad.data.place import Epoch
from minigrad.data.scaler import Scaler
from minigrad.data.series import windows
from minigrad.data.streams import Stream

__all__ = ["NO_CLASS", "Batches", "Epoch", "Scaler", "Stream", "pad", "windows"]
