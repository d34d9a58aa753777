"""Optimisers, gradient clipping, and schedules of the learning rate (`minigrad.optim.schedule`)."""

from minigrad.optim import schedule
from minigrad.optim.clip import clip_grad_norm_, clip_grad_value_
from minigrad.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "schedule",
]
