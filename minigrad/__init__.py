"""minigrad: a tape-based autograd micro-framework for recurrent networks on a CPU."""
from minigrad.kernels import get_num_threads, set_num_threads, show_config
from minigrad.tensor import (
    Tensor,
    detect_anomaly,
    enable_grad,
    grad,
    is_grad_enabled,
    no_grad,
    ones,
    record,
    zeros,
)
from minigrad.elementwise import (  # isort: skip
    abs, add, clip, cos, div, exp, log, maximum, minimum, mul, neg, pow, relu, sigmoid, sin, softplus, sqrt, sub, tanh, where,
)
from minigrad.matmul import addmm, matmul
from minigrad.index import embedding
from minigrad.shape import (  # isort: skip
    astype, broadcast_to, concatenate, cumsum, flip, pad, reshape, split, squeeze, stack, swapaxes, transpose, unsqueeze,
)
from minigrad.autograd import Function, jacobian, vjp  # isort: skip
from minigrad.reduce import argmax, log_softmax, logsumexp, max, mean, min, prod, softmax, sum, var  # isort: skip
from minigrad.losses import binary_cross_entropy_with_logits, cross_entropy, huber, mse, nll  # isort: skip
from minigrad.random import Generator, default_generator, dropout, dropout_mask, manual_seed  # isort: skip
from minigrad.gradcheck import GradcheckError, gradcheck, gradgradcheck  # isort: skip
from minigrad.draw import draw  # isort: skip
from minigrad.checkpoint import CheckpointError, load, save  # isort: skip
from minigrad import data, metrics, nn, optim, schedule, training  # isort: skip

__version__ = "0.1.0"
