"""minigrad: a tape-based autograd micro-framework for recurrent networks on a CPU."""

from minigrad.core.kernels import get_num_threads, set_num_threads, show_config
from minigrad.core.modes import detect_anomaly, enable_grad, is_grad_enabled, no_grad
from minigrad.core.sweep import grad
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor, ones, zeros
from minigrad.ops.elementwise import (
    abs,
    add,
    clip,
    cos,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    relu,
    sigmoid,
    sin,
    softplus,
    sqrt,
    sub,
    tanh,
    where,
)
from minigrad.ops.matmul import addmm, matmul
from minigrad.ops.index import embedding
from minigrad.ops.shape import (
    astype,
    broadcast_to,
    concatenate,
    cumsum,
    flip,
    pad,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    transpose,
    unsqueeze,
)
from minigrad.ops.function import Function, jacobian, vjp  # isort: skip
from minigrad.ops.reduce import (
    argmax,
    log_softmax,
    logsumexp,
    max,
    mean,
    min,
    prod,
    softmax,
    sum,
    var,
)  # isort: skip
from minigrad.ops.losses import binary_cross_entropy_with_logits, cross_entropy, huber, mse, nll  # isort: skip
from minigrad.random import Generator, default_generator, dropout, dropout_mask, manual_seed  # isort: skip
from minigrad.study.gradcheck import GradcheckError, gradcheck, gradgradcheck  # isort: skip
from minigrad.study.draw import draw  # isort: skip
from minigrad.training.checkpoint import CheckpointError, load, save  # isort: skip
from minigrad import data, metrics, nn, optim, training  # isort: skip

__version__ = "0.1.0"
