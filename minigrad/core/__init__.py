"""The engine: kernels, Tensor, the tape and the sweep."""
