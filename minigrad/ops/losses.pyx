# cython: language_level=3, initializedcheck=False, cdivision=True
"""Losses: cross_entropy and nll for classes, binary_cross_entropy_with_logits, mse and huber for
numbers.

All take (input, target) and `reduction`: "mean", "sum", or "none" for one loss per target. The mean
of no losses is NaN, their sum 0. Classes are the last dimension: input is (..., C), target (...) of
whole numbers 0 to C - 1, an integer array and no Tensor. `weight` is for each class (C,), else for
each element; the mean over classes divides by the sum of the weights of the targets, as in PyTorch.
"""
cimport numpy as cnp
from libc.stdint cimport int64_t
from minigrad.core.array cimport is_masked, kernels_of
from minigrad.core.kernels cimport mg_kernels
from minigrad.core.operands cimport as_input, as_operand
from minigrad.core.tape cimport record1, record2, save, saved
from minigrad.core.tensor cimport (
    Node,
    Tensor,
    contiguous,
    empty,
    tracked,
    tracked2,
    wrap,
)
from minigrad.ops.elementwise cimport div, mul, neg, sub, where
from minigrad.ops.reduce cimport mean, softmax, sum


import numpy as np

from minigrad import checks
from minigrad.core.array import made_array
from minigrad.ops.bounds import clip
from minigrad.ops.elementwise import softplus

cnp.import_array()


# ---------------------------------------------------------------- arguments

cdef tuple REDUCTIONS = ("mean", "sum", "none")


cdef int check_reduction(object reduction, str op) except -1:
    if type(reduction) is not str or reduction not in REDUCTIONS:
        checks.choice(op, "reduction", reduction, REDUCTIONS)
    return 0


cdef Tensor reduced(Tensor losses, object reduction):
    if reduction == "mean":
        return mean(losses)
    return sum(losses) if reduction == "sum" else losses


cdef Tensor target_like(object target, Tensor x, str op):
    """A target with one number for each element of the input: no broadcasting, which would hide a
    mistake."""
    cdef Tensor t = as_operand(target, x, op)
    if t.shape != x.shape:
        raise ValueError(f"{op}: target must have the input's shape {x.shape}, got {t.shape}")
    return t


cdef cnp.ndarray class_indices(object target, Tensor x, object ignore_index, Py_ssize_t *ignored,
                               str op):
    """The targets as int64, -1 for those to be ignored, which are counted; a copy, which nobody
    changes before the backward."""
    if cnp.PyArray_NDIM(x._array) == 0:
        raise ValueError(f"{op}: input must have shape (..., C) with the classes last, got ()")
    index = ignore_index
    if type(index) is not int or not -2**63 <= index < 2**63:
        index = checks.integer(op, "ignore_index", index, -2**63, 2**63 - 1)
    if isinstance(target, Tensor):
        raise TypeError(f"{op}: target must be an array of ints, the classes, "
                        f"got a Tensor of {target.dtype}")
    if not cnp.PyArray_CheckExact(target) and is_masked(target):
        raise TypeError(f"{op}: target must not be a masked array, the mask would be lost: "
                        f"use target.filled({index})")
    cdef cnp.ndarray array = made_array(target, op, "target")
    cdef Py_UCS4 kind = array.descr.kind
    if kind != u"i" and kind != u"u":
        raise TypeError(f"{op}: target must be an array of ints, the classes, "
                        f"got {array.dtype if target is not None else None}")
    cdef tuple shape = x.shape
    if (<object>array).shape != shape[:-1]:
        raise ValueError(f"{op}: target must have shape {shape[:-1]} = the input's without the "
                         f"classes, got {(<object>array).shape}")
    cdef cnp.ndarray classes = array.astype(np.int64, order="C")
    cdef int64_t *t = <int64_t *>cnp.PyArray_DATA(classes)
    cdef int64_t count = shape[-1], skip = index
    # An unsigned target of 2^63 or more is negative now.
    cdef bint may_skip = kind == u"i" or skip >= 0
    cdef Py_ssize_t i
    ignored[0] = 0
    for i in range(cnp.PyArray_SIZE(classes)):
        if may_skip and t[i] == skip:
            t[i] = -1
            ignored[0] += 1
        elif t[i] < 0 or t[i] >= count:
            place = list(map(int, np.unravel_index(i, (<object>array).shape)))
            raise IndexError(f"{op}: target{place if place else ''} must be from 0 to "
                             f"{count - 1} = C - 1, or ignore_index {index}, "
                             f"got {(<object>array)[tuple(place)]}")
    return classes


cdef Tensor class_weights(object weight, Tensor x, cnp.ndarray target, Py_ssize_t ignored, str op):
    """The weight of each target, 0 for ignored ones; None where all are 1."""
    cdef Tensor w
    if weight is None:
        return wrap(np.asarray(target >= 0, x._array.dtype)) if ignored else None
    w = constant(as_operand(weight, x, op), op, "weight")
    if w.shape != x.shape[-1:]:
        raise ValueError(f"{op}: weight must have shape {x.shape[-1:]} = (C,), got {w.shape}")
    if w._array.size == 0:                          # no classes: every target is ignored
        return wrap(np.zeros(x.shape[:-1], x._array.dtype))
    weights = np.asarray(w._array.take(target, mode="wrap"), x._array.dtype)
    np.copyto(weights, 0, where=target < 0)
    return wrap(weights)


cdef Tensor constant(Tensor weight, str op, str argument):
    if weight.requires_grad:
        raise RuntimeError(f"{op}: {argument} is a constant, no gradient is made for it: "
                           f"use {argument}.detach()")
    return weight


cdef Tensor reduced_with_weights(Tensor losses, Tensor weights, object reduction):
    """The losses times their weights; the mean is sum(w loss) / sum(w)."""
    if weights is None:
        return reduced(losses, reduction)
    losses = mul(losses, weights)
    if reduction == "mean":
        return div(sum(losses), sum(weights))
    return reduced(losses, reduction)


# ---------------------------------------------------------------- classes

# l_i = log(sum_c e^x_ic) - x_i,t_i
# dx_ic = dl_i (softmax(x_i)_c - [c = t_i]);  0 for ignored i

cdef Tensor cross_entropies(Tensor x, cnp.ndarray target):
    cdef cnp.ndarray source = contiguous(x)
    cdef const mg_kernels *K = kernels_of(source)
    cdef int nd = cnp.PyArray_NDIM(source) - 1
    cdef Tensor losses = empty(nd, cnp.PyArray_DIMS(source), cnp.PyArray_TYPE(source))
    cdef cnp.npy_intp rows = cnp.PyArray_SIZE(losses._array), n = cnp.PyArray_DIM(source, nd)
    cdef cnp.npy_intp[2] shape = [rows, 3]
    cdef Tensor sums = empty(2, shape, cnp.PyArray_TYPE(source))
    cdef void *data = cnp.PyArray_DATA(source)
    cdef const int64_t *classes = <const int64_t *>cnp.PyArray_DATA(target)
    cdef void *to = cnp.PyArray_DATA(losses._array)
    cdef void *to_sums = cnp.PyArray_DATA(sums._array)
    with nogil:
        K.cross_entropy(rows, n, data, classes, to, to_sums)
    if tracked(x):
        node = record1(losses, cross_entropies_rule, "cross_entropy", x)
        save(node, 0, x)
        node.extra = (target, sums)
    return losses

cdef int cross_entropies_rule(Node node, Tensor dl) except -1:
    target, sums = node.extra
    return node.give(0, logits_gradient(dl, saved(node, 0), target, sums), True)

cdef Tensor logits_gradient(Tensor dl, Tensor x, cnp.ndarray target, Tensor sums):
    """dx as an op of its own, for second order: what is differentiated again has the same bits as
    what is not."""
    cdef cnp.ndarray source = contiguous(x), scale = contiguous(dl)
    cdef const mg_kernels *K = kernels_of(source)
    cdef int nd = cnp.PyArray_NDIM(source)
    cdef Tensor dx = empty(nd, cnp.PyArray_DIMS(source), cnp.PyArray_TYPE(source))
    cdef size_t rows = cnp.PyArray_SIZE(scale), n = cnp.PyArray_DIM(source, nd - 1)
    cdef void *data = cnp.PyArray_DATA(source)
    cdef const int64_t *classes = <const int64_t *>cnp.PyArray_DATA(target)
    cdef void *row_sums = cnp.PyArray_DATA(sums._array)
    cdef void *factors = cnp.PyArray_DATA(scale)
    cdef void *to = cnp.PyArray_DATA(dx._array)
    with nogil:
        K.cross_entropy_grad(rows, n, data, classes, row_sums, factors, to)
    cdef Node node
    if tracked2(dl, x):
        node = record2(dx, logits_gradient_rule, "cross_entropy_grad", dl, x)
        save(node, 0, dl)
        save(node, 1, x)
        node.extra = (target, sums)
    return dx

# z = dl (p - onehot), p = softmax(x)
# d(dl) = sum(g (p - onehot)), d(x) = dl p (g - sum(g p));  0 for ignored i

cdef int logits_gradient_rule(Node node, Tensor g) except -1:
    cdef Tensor dl = saved(node, 0), x = saved(node, 1), p, rows, dx
    target, sums = node.extra
    if node.wants(0):
        rows = wrap(np.ones(dl.shape, x._array.dtype))
        node.give(0, sum(mul(g, logits_gradient(rows, x, target, sums)), -1), True)
    if node.wants(1):
        used = np.broadcast_to(target[..., np.newaxis] >= 0, x.shape)
        p = softmax(where(used, x, 0.0))
        rows = (<object>dl).reshape(dl.shape + (1,))
        dx = mul(rows, mul(p, sub(g, sum(mul(g, p), -1, True))))
        node.give(1, where(used, dx, 0.0), True)
    return 0


def cross_entropy(input, target, weight=None, ignore_index=-100, reduction="mean"):
    """-log softmax(input)[target]: the loss of a classifier that gives unnormalised scores
    (logits).

    Args:
        input: (..., C) logits.
        target: (...) ints, the right classes. Those equal to ignore_index have loss and gradient 0.
        weight: (C,) factors for the loss of each class. Default: None, all 1.
        ignore_index: The target to leave out. Default: -100.
        reduction: "mean" (default) is sum(weight[t] loss) / sum(weight[t]) over the targets that
            are not ignored, NaN if there are none; "sum"; or "none" for losses of the target's
            shape.

    Raises:
        TypeError: A target is not of ints, or an argument has another wrong type.
        ValueError: A shape does not fit.
        IndexError: A target is out of range.

    >>> import minigrad as mg
    >>> mg.cross_entropy(mg.zeros((2, 4)), [0, 3])
    Tensor(1.3862944)
    """
    cdef Tensor x = as_input(input, "cross_entropy")
    check_reduction(reduction, "cross_entropy")
    cdef Py_ssize_t ignored
    cdef cnp.ndarray classes = class_indices(target, x, ignore_index, &ignored, "cross_entropy")
    cdef Tensor weights = class_weights(weight, x, classes, ignored, "cross_entropy")
    return reduced_with_weights(cross_entropies(x, classes), weights, reduction)


# l_i = -x_i,t_i       dx_ic = -dl_i [c = t_i];  0 for ignored i

cdef Tensor chosen_of(Tensor x, cnp.ndarray target):
    """x_i,t_i, and 0 for t_i = -1."""
    cdef cnp.ndarray value = np.zeros(x.shape[:-1], x._array.dtype)
    if x.shape[-1]:
        places = np.where(target < 0, 0, target)[..., np.newaxis]
        taken = np.take_along_axis(x._array, places, -1)[..., 0]
        np.copyto(value, taken, where=target >= 0)
    cdef Tensor y = wrap(value)
    if tracked(x):
        record1(y, chosen_rule, "chosen", x).extra = (target, x.shape)
    return y

cdef int chosen_rule(Node node, Tensor dy) except -1:
    target, shape = node.extra
    return node.give(0, placed_at(dy, target, shape), True)

cdef Tensor placed_at(Tensor dy, cnp.ndarray target, tuple shape):
    """Zeros of `shape` with dy_i at i,t_i, and nothing for t_i = -1: the transpose of chosen_of."""
    cdef cnp.ndarray value = np.zeros(shape, dy._array.dtype)
    if shape[-1]:
        places = np.where(target < 0, 0, target)[..., np.newaxis]
        values = np.where(target < 0, 0, dy._array)[..., np.newaxis]
        np.put_along_axis(value, places, values, -1)
    cdef Tensor y = wrap(value)
    if tracked(dy):
        record1(y, placed_rule, "placed", dy).extra = target
    return y

# y = zeros, and y_i,t_i = x_i         dx_i = dy_i,t_i

cdef int placed_rule(Node node, Tensor g) except -1:
    return node.give(0, chosen_of(g, node.extra), True)


def nll(input, target, weight=None, ignore_index=-100, reduction="mean"):
    """-input[target]: the loss of a classifier that gives log-probabilities; cross_entropy(x) =
    nll(log_softmax(x)).

    Args:
        input: (..., C) log-probabilities.
        target: (...) ints, the right classes. Those equal to ignore_index have loss and gradient 0.
        weight: (C,) factors for the loss of each class. Default: None, all 1.
        ignore_index: The target to leave out. Default: -100.
        reduction: "mean" (default) is sum(weight[t] loss) / sum(weight[t]) over the targets that
            are not ignored, NaN if there are none; "sum"; or "none" for losses of the target's
            shape.

    Raises:
        TypeError: A target is not of ints, or an argument has another wrong type.
        ValueError: A shape does not fit.
        IndexError: A target is out of range.

    >>> import minigrad as mg
    >>> mg.nll(mg.Tensor([[-0.5, -1.0], [-2.0, -0.25]]), [0, 0], reduction="none")
    Tensor([0.5, 2. ])
    """
    cdef Tensor x = as_input(input, "nll")
    check_reduction(reduction, "nll")
    cdef Py_ssize_t ignored
    cdef cnp.ndarray classes = class_indices(target, x, ignore_index, &ignored, "nll")
    cdef Tensor weights = class_weights(weight, x, classes, ignored, "nll")
    return reduced_with_weights(neg(chosen_of(x, classes)), weights, reduction)


# l = p t softplus(-x) + (1 - t) softplus(x)
# from -log sigmoid(x) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x)

def binary_cross_entropy_with_logits(input, target, weight=None, pos_weight=None, reduction="mean"):
    """-pos_weight target log(sigmoid(input)) - (1 - target) log(1 - sigmoid(input)), without
    overflow or cancellation.

    Args:
        input: Logits of any shape.
        target: Probabilities of the same shape, mostly 0 and 1.
        weight: Constants that broadcast to that shape and multiply the loss of each element.
            Default: None, all 1.
        pos_weight: Constants that broadcast to that shape and multiply the part of the positive
            class. Default: None, all 1.
        reduction: "mean" (default) divides by the number of elements, NaN if there are none; "sum";
            "none".

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> mg.binary_cross_entropy_with_logits(mg.Tensor([0.0, 100.0]), [1.0, 1.0])
    Tensor(0.3465736)
    """
    name = "binary_cross_entropy_with_logits"
    cdef Tensor x = as_input(input, name), t = target_like(target, x, name)
    check_reduction(reduction, name)
    cdef Tensor factor = factors(weight, x, "weight")
    cdef Tensor positive = factors(pos_weight, x, "pos_weight")
    share = t if positive is None else mul(t, positive)
    losses = share * softplus(neg(x)) + sub(1.0, t) * softplus(x)
    return reduced(losses if factor is None else mul(losses, factor), reduction)


cdef Tensor factors(object weight, Tensor x, str argument):
    """A constant that broadcasts to x's shape, or None."""
    name = "binary_cross_entropy_with_logits"
    if weight is None:
        return None
    cdef Tensor w = constant(as_operand(weight, x, name), name, argument)
    try:
        fits = np.broadcast_shapes(w.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: {argument} must broadcast to the input's shape {x.shape}, "
                         f"got {w.shape}")
    return w


# ---------------------------------------------------------------- numbers

# l = (x - t)^2

def mse(input, target, reduction="mean"):
    """(input - target) ** 2.

    Args:
        input: Of any shape.
        target: Of the same shape.
        reduction: "mean" (default; NaN for no elements), "sum" or "none".

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> mg.mse(mg.Tensor([1.0, 2.0]), [1.0, 4.0])
    Tensor(2.)
    """
    cdef Tensor x = as_input(input, "mse"), t = target_like(target, x, "mse")
    check_reduction(reduction, "mse")
    cdef Tensor difference = sub(x, t)
    return reduced(mul(difference, difference), reduction)


# l = c (d - c / 2) with d = x - t and c = d kept within [-delta, delta]:
#     d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2)         Huber 1964

def huber(input, target, delta=1.0, reduction="mean"):
    """Half the square of input - target up to `delta`, and a straight line beyond it, so that
    outliers do not dominate.

    With d = input - target: d ** 2 / 2 where abs(d) <= delta, else delta * (abs(d) - delta / 2).

    Args:
        input: Of any shape.
        target: Of the same shape.
        delta: A number above 0. Default: 1.
        reduction: "mean" (default; NaN for no elements), "sum" or "none".

    Raises:
        TypeError, ValueError: An argument does not fit.

    >>> import minigrad as mg
    >>> mg.huber(mg.Tensor([0.5, 3.0]), [0.0, 0.0], reduction="none")
    Tensor([0.125, 2.5  ])
    """
    cdef Tensor x = as_input(input, "huber"), t = target_like(target, x, "huber")
    check_reduction(reduction, "huber")
    delta = checks.number("huber", "delta", delta, 0, np.inf, "(]")
    cdef Tensor difference = sub(x, t), kept = clip(difference, -delta, delta)
    return reduced(mul(kept, sub(difference, mul(kept, 0.5))), reduction)
