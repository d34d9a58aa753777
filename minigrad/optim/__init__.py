"""Optimisers, gradient clipping, and schedules of the learning rate (`minigrad.optim.schedule`)."""

from minigrad.optim import optimizers, schedule
from minigrad.optim.clip import clip_grad_norm_, clip_grad_value_
from minigrad.optim.optimizers import *  # noqa: F403

__all__ = ["clip_grad_norm_", "clip_grad_value_", "schedule"]
__all__ += optimizers.__all__
