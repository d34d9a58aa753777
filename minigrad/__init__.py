"""minigrad: a tape-based autograd micro-framework for recurrent networks on a CPU."""

try:
    import minigrad.core.kernels  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "minigrad.core.kernels":
        raise
    raise ImportError(
        "minigrad is not built: Python found its source folder before any installed minigrad. "
        "Leave that folder, or build in it: pip install -e '.[dev]'"
    ) from error

from minigrad._version import __version__ as __version__
from minigrad.core.kernels import get_num_threads, set_num_threads, show_config
import minigrad.core.methods  # noqa: F401 - gives Tensor its methods
from minigrad.core.modes import detect_anomaly, enable_grad, is_grad_enabled, no_grad
from minigrad.core.operands import ones, zeros
import minigrad.core.facts  # noqa: F401 - gives Node what it tells of itself
from minigrad.core.sweep import grad
from minigrad.core.tape import record
from minigrad.core.tensor import Tensor
from minigrad.ops.elementwise import (
    abs as abs,
    add,
    cos,
    div,
    exp,
    log,
    mul,
    neg,
    pow as pow,
    relu,
    sigmoid,
    sin,
    softplus,
    sqrt,
    sub,
    tanh,
    where,
)
from minigrad.ops.bounds import clip, maximum, minimum
from minigrad.ops.special import expm1, log1p
from minigrad.ops.activations import elu, gelu, leaky_relu, silu
from minigrad.ops.rounding import ceil, floor, round as round, sign
from minigrad.ops.matmul import addmm, matmul
from minigrad.ops.index import embedding
import minigrad.ops.assign  # noqa: F401 - gives Tensor x[i] = v and x += y
from minigrad.ops.join import concatenate, split, stack
from minigrad.ops.shape import (
    astype,
    broadcast_to,
    cumsum,
    flip,
    pad,
    reshape,
    squeeze,
    swapaxes,
    transpose,
    unsqueeze,
)
from minigrad.ops.derivatives import hessian, hvp, jacobian, jvp, vjp
from minigrad.ops.function import Function
from minigrad.ops.reduce import (
    argmax,
    log_softmax,
    logsumexp,
    max as max,
    mean,
    min as min,
    prod,
    softmax,
    sum as sum,
    var,
)
from minigrad.ops.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber,
    mse,
    nll,
)
from minigrad.random import Generator, default_generator, dropout, dropout_mask, manual_seed
from minigrad.study.gradcheck import GradcheckError, gradcheck, gradgradcheck
from minigrad.study.draw import draw
import minigrad.study.notebook  # noqa: F401 - gives Tensor and Module what Jupyter shows
from minigrad.training.checkpoint import CheckpointError, load, save
from minigrad import data, metrics, nn, optim, study, training

# `from minigrad import *` must not hide a builtin: abs, max, min, pow, round and sum are mg.abs and
# so on. Their `as` says to type checkers that they are public nevertheless.
__all__ = [
    "CheckpointError",
    "Function",
    "Generator",
    "GradcheckError",
    "Tensor",
    "add",
    "addmm",
    "argmax",
    "astype",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "ceil",
    "clip",
    "concatenate",
    "cos",
    "cross_entropy",
    "cumsum",
    "data",
    "default_generator",
    "detect_anomaly",
    "div",
    "draw",
    "dropout",
    "dropout_mask",
    "elu",
    "embedding",
    "enable_grad",
    "exp",
    "expm1",
    "flip",
    "floor",
    "gelu",
    "get_num_threads",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "huber",
    "is_grad_enabled",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "leaky_relu",
    "load",
    "log",
    "log1p",
    "log_softmax",
    "logsumexp",
    "manual_seed",
    "matmul",
    "maximum",
    "mean",
    "metrics",
    "minimum",
    "mse",
    "mul",
    "neg",
    "nll",
    "nn",
    "no_grad",
    "ones",
    "optim",
    "pad",
    "prod",
    "record",
    "relu",
    "reshape",
    "save",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "study",
    "sub",
    "swapaxes",
    "tanh",
    "training",
    "transpose",
    "unsqueeze",
    "var",
    "vjp",
    "where",
    "zeros",
]
