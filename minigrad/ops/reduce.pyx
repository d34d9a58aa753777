# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""Reductions over axes: sum, mean, var, prod, max, min, argmax, logsumexp; and softmax and
log_softmax, which keep the shape.

Everywhere axis is None (all dimensions), an int, or a tuple of ints, see axes.pyx. keepdims=True
leaves the reduced dimensions in the result with size 1.

A kernel sees its input as a contiguous array (outer, n, inner) of which it reduces the middle. That
is the input itself when it is contiguous and the reduced dimensions are neighbours, else a copy
with the reduced dimensions moved to the end. In both, the elements that are reduced together come
in the order in which NumPy counts them, so the result has the same bits.

As in every op module, the rule is under the op; dy is the gradient of the op's output.
"""
cimport numpy as cnp
from libc.stdint cimport int64_t
from minigrad.core.array cimport PyArray_CHKFLAGS, kernels_of, view_of
from minigrad.core.kernels cimport (
    LONG,
    MAX_DIMS,
    array_like,
    mg_kernels,
    new_array,
)
from minigrad.core.operands cimport as_input
from minigrad.core.tape cimport mark_view, record1, record2, save, save_output, saved
from minigrad.core.tensor cimport (
    Node,
    Rule,
    Tensor,
    contiguous,
    tracked,
    tracked2,
    wrap,
)
from minigrad.ops.axes cimport mark_axes, plain_axis
from minigrad.ops.elementwise cimport div, exp, mul, neg, sub, where

import reprlib

import numpy as np

from minigrad import checks
from minigrad.core.tensor import install

cnp.import_array()

cdef extern from "kernels.h" nogil:
    enum: mg_map2_div


ctypedef void (*Reduction)(size_t outer, size_t n, size_t inner, const void *x,
                           void *y) noexcept nogil
ctypedef void (*RowKernel)(size_t rows, size_t n, const void *x, void *y) noexcept nogil
ctypedef void (*RowGradient)(size_t rows, size_t n, const void *dy, const void *y,
                             void *dx) noexcept nogil


# ---------------------------------------------------------------- how a reduction is run

cdef struct Plan:
    bint reduced[MAX_DIMS]      # for each dimension
    bint moved                  # the kernel gets a transposed form: reduced dimensions last
    size_t outer, n, inner


cdef int plan(Plan *p, cnp.ndarray x, object axis, bint rows, str op) except -1:
    """Which dimensions are reduced, and how the kernel shall see x; with `rows` it needs inner =
    1."""
    cdef int nd = cnp.PyArray_NDIM(x), d
    cdef int part = 0           # 0 before the reduced dimensions, 1 among them, 2 behind
    cdef size_t size
    mark_axes(p.reduced, axis, nd, op)
    p.moved = not PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS)
    p.outer = p.n = p.inner = 1
    for d in range(nd):
        size = cnp.PyArray_DIM(x, d)
        if size == 1:
            continue
        if p.reduced[d]:
            p.moved |= part == 2
            part = 1
            p.n *= size
        elif part == 0:
            p.outer *= size
        else:
            part = 2
            p.inner *= size
    if p.moved or (rows and p.inner != 1):
        p.moved = True
        p.outer *= p.inner
        p.inner = 1
    return 0


cdef tuple order(Plan *p, int nd):
    """The dimensions, kept ones first."""
    cdef int d
    kept, reduced = [], []
    for d in range(nd):
        if p.reduced[d]:
            reduced.append(d)
        else:
            kept.append(d)
    return tuple(kept + reduced)


cdef cnp.ndarray arranged(cnp.ndarray x, Plan *p):
    """x as the plan says: contiguous (outer, n, inner)."""
    return contiguous(wrap(x.transpose(order(p, cnp.PyArray_NDIM(x))))) if p.moved else x


cdef Tensor restored(cnp.ndarray y, Plan *p):
    """A result of the shape that `arranged` made, with the dimensions where they were."""
    if not p.moved:
        return wrap(y)
    cdef int place, nd = cnp.PyArray_NDIM(y)
    cdef tuple moved = order(p, nd)
    places = [0] * nd
    for place in range(nd):
        places[moved[place]] = place
    return wrap(contiguous(wrap(y.transpose(places))))


cdef cnp.ndarray without_reduced(cnp.ndarray x, Plan *p, bint keepdims, int typenum):
    """An empty result, x's shape without the reduced dimensions."""
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef int nd = 0, d
    for d in range(cnp.PyArray_NDIM(x)):
        if not p.reduced[d] or keepdims:
            shape[nd] = 1 if p.reduced[d] else cnp.PyArray_DIM(x, d)
            nd += 1
    return new_array(nd, shape, typenum, False)


cdef Tensor reduced(Tensor x, Plan *p, bint keepdims, Reduction kernel):
    """y = the kernel's reduction of x."""
    cdef Tensor y = wrap(without_reduced(x._array, p, keepdims, cnp.PyArray_TYPE(x._array)))
    cdef cnp.ndarray source = arranged(x._array, p)
    cdef void *data = cnp.PyArray_DATA(source)
    cdef void *to = cnp.PyArray_DATA(y._array)
    if p.outer * p.n * p.inner < LONG:
        kernel(p.outer, p.n, p.inner, data, to)
    else:
        with nogil:
            kernel(p.outer, p.n, p.inner, data, to)
    return y


# y = dy repeated along the reduced dimensions to `shape`: a view, with strides of zero
# d(dy) = sum of g over them

cdef Tensor spread(Tensor dy, tuple shape, object axis):
    """What undoes the shape of a reduction of an array of `shape`, made with or without
    keepdims."""
    cdef cnp.ndarray array = dy._array
    cdef int nd = len(shape), d, own = 0
    cdef bint keepdims = cnp.PyArray_NDIM(array) == nd
    cdef cnp.npy_intp dims[MAX_DIMS]
    cdef cnp.npy_intp strides[MAX_DIMS]
    cdef Plan p
    mark_axes(p.reduced, axis, nd, "spread")
    for d in range(nd):
        dims[d] = shape[d]
        strides[d] = 0 if p.reduced[d] else cnp.PyArray_STRIDE(array, own)
        own += keepdims or not p.reduced[d]
    cdef char *data = <char *>cnp.PyArray_DATA(array)
    cdef Tensor y = wrap(view_of(array, nd, dims, strides, data))
    if tracked(dy):
        mark_view(y, dy)
        record1(y, spread_rule, "spread", dy).extra = (axis, keepdims)
    return y

cdef int spread_rule(Node node, Tensor g) except -1:
    axis, keepdims = node.extra
    return node.give(0, sum(g, axis, keepdims), True)


# ---------------------------------------------------------------- sums

# y = sum x        dx = dy, repeated

cpdef Tensor sum(x, axis=None, bint keepdims=False):
    """The sum of the elements along `axis`; 0 for no elements. The order of the additions depends
    on their number alone.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: None.
        keepdims: Whether the reduced axes stay, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice.

    >>> import minigrad as mg
    >>> mg.sum(mg.Tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    Tensor([4., 6.])
    """
    cdef Tensor t = as_input(x, "sum"), y
    cdef Plan p
    axis = plain_axis(axis, "sum")
    plan(&p, t._array, axis, False, "sum")
    y = reduced(t, &p, keepdims, kernels_of(t._array).sum)
    if tracked(t):
        record1(y, sum_rule, "sum", t).extra = (t.shape, axis)
    return y

cdef int sum_rule(Node node, Tensor dy) except -1:
    shape, axis = node.extra
    return node.give(0, spread(dy, shape, axis), False)


# y = (sum x) / n          dx = dy / n, repeated

cdef Tensor over(Tensor y, double n):
    """y / n in place, for a y of our own."""
    cdef float n32 = <float>n
    cdef cnp.ndarray array = y._array
    cdef void *data = cnp.PyArray_DATA(array)
    cdef void *divisor = <void *>&n32 if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT else <void *>&n
    kernels_of(array).map2[mg_map2_div](cnp.PyArray_SIZE(array), data, 1, divisor, 0, data)
    return y

cpdef Tensor mean(x, axis=None, bint keepdims=False):
    """The arithmetic mean of the elements along `axis`: their sum divided by their number; NaN for
    no elements.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: None.
        keepdims: Whether the reduced axes stay, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice.

    >>> import minigrad as mg
    >>> mg.mean(mg.Tensor([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    Tensor([1.5, 3.5])
    """
    cdef Tensor t = as_input(x, "mean"), y
    cdef Plan p
    axis = plain_axis(axis, "mean")
    plan(&p, t._array, axis, False, "mean")
    y = over(reduced(t, &p, keepdims, kernels_of(t._array).sum), p.n)
    if tracked(t):
        record1(y, mean_rule, "mean", t).extra = (t.shape, axis, <double>p.n)
    return y

cdef int mean_rule(Node node, Tensor dy) except -1:
    shape, axis, n = node.extra
    return node.give(0, spread(div(dy, n), shape, axis), False)


# y = sum (x - mean x)^2 / (n - ddof)          dx = 2 dy / (n - ddof) (x - mean x)

def var(x, axis=None, ddof=0, bint keepdims=False):
    """The variance of the elements along `axis`: the mean square of their distances from their
    mean. NaN for no elements, and for one element with ddof=1.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: None.
        ddof: The sum of the squares is divided by n - ddof, or by 0 if that is negative. 0, the
            default as in NumPy, gives the variance of a whole population; 1 the unbiased estimate
            from a sample.
        keepdims: Whether the reduced axes stay, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind,
            or ddof is not an int.
        ValueError: x does not have the axis, or it is named twice.

    >>> import minigrad as mg
    >>> mg.var(mg.Tensor([1.0, 2.0, 3.0, 6.0]))
    Tensor(3.5)
    """
    cdef Tensor t = as_input(x, "var"), y, distance
    cdef Plan p
    cdef double divisor
    ddof = checks.integer("var", "ddof", ddof, -2**63, 2**63 - 1)
    axis = plain_axis(axis, "var")
    plan(&p, t._array, axis, False, "var")
    divisor = <double>p.n - <double>ddof
    divisor = divisor if divisor > 0 else 0
    distance = centred(wrap(t._array), axis)
    distance = mul(distance, distance)
    plan(&p, distance._array, axis, False, "var")
    y = over(reduced(distance, &p, keepdims, kernels_of(t._array).sum), divisor)
    if tracked(t):
        node = record1(y, var_rule, "var", t)
        save(node, 0, t)
        node.extra = (axis, 2 / divisor)
    return y

cdef int var_rule(Node node, Tensor dy) except -1:
    cdef Tensor x = saved(node, 0)
    axis, factor = node.extra
    return node.give(0, mul(centred(x, axis), spread(mul(dy, factor), x.shape, axis)), True)

cdef Tensor centred(Tensor x, object axis):
    """x - mean x, twice: the first mean is rounded to a number of x's size, what it leaves is small
    and has an exact mean."""
    cdef Tensor distance = sub(x, mean(x, axis, True))
    return sub(distance, mean(distance, axis, True))


# ---------------------------------------------------------------- products

# y = product of the x_i           dx_i = dy * the product of the others: not y / x_i, which a zero
# among the x_i would spoil

def prod(x, axis=None, bint keepdims=False):
    """The product of the elements along `axis`; 1 for no elements. The gradient is exact with any
    number of zeros among them.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: None.
        keepdims: Whether the reduced axes stay, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice.

    >>> import minigrad as mg
    >>> x = mg.Tensor([2.0, 0.0, 4.0], requires_grad=True)
    >>> mg.prod(x).backward()
    >>> x.grad
    Tensor([0., 8., 0.])
    """
    cdef Tensor t = as_input(x, "prod"), y
    cdef Plan p
    axis = plain_axis(axis, "prod")
    plan(&p, t._array, axis, False, "prod")
    y = reduced(t, &p, keepdims, kernels_of(t._array).prod)
    if tracked(t):
        node = record1(y, prod_rule, "prod", t)
        save(node, 0, t)
        node.extra = axis
    return y

cdef int prod_rule(Node node, Tensor dy) except -1:
    cdef Tensor x = saved(node, 0)
    cdef Plan p
    cdef object rows = x
    plan(&p, x._array, node.extra, True, "prod")
    axes = order(&p, cnp.PyArray_NDIM(x._array))
    rows = rows.transpose(axes)
    others = others_of(rows.reshape((p.outer, p.n)), p.n)
    others = others.reshape(rows.shape).transpose(tuple(np.argsort(axes)))
    return node.give(0, mul(spread(dy, x.shape, node.extra), others), True)

cdef object others_of(object x, Py_ssize_t n):
    """For each element of the rows of x (rows, n), the product of the others in its row.

    By a tree: the others of an element are its neighbour in the pair and the others of the pair
    among the pairs. Made of ops, so it can be differentiated again, in about 4 n multiplications.
    """
    if n <= 1:
        return wrap(np.ones(x.shape, x.dtype))
    if n == 2:
        return x[:, ::-1]
    from minigrad.ops.join import concatenate
    rows, half = x.shape[0], (n + 1) // 2
    if n % 2:
        x = concatenate([x, wrap(np.ones((rows, 1), x.dtype))], 1)
    pairs = x.reshape((rows, half, 2))
    of_pairs = others_of(pairs[:, :, 0] * pairs[:, :, 1], half)
    return (of_pairs.reshape((rows, half, 1)) * pairs[:, :, ::-1]).reshape((rows, 2 * half))[:, :n]


# ---------------------------------------------------------------- extremes

cdef int refuse_empty(Plan *p, Tensor x, object axis, str op, str name) except -1:
    if p.n == 0 and p.outer * p.inner != 0:
        raise ValueError(f"{op}: zero-size array to reduction operation {name} which has no "
                         f"identity: x has shape {x.shape}, axis is {axis}")
    return 0

# y = max x        dx = dy / (how many are largest) where x = y, else 0

def max(x, axis=None, bint keepdims=False):
    """The largest element along `axis`; NaN if there is one. Elements that tie for it share the
    gradient equally.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: None.
        keepdims: Whether the reduced axes stay, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice, or there are no elements.

    >>> import minigrad as mg
    >>> x = mg.Tensor([1.0, 3.0, 3.0], requires_grad=True)
    >>> mg.max(x).backward()
    >>> x.grad
    Tensor([0. , 0.5, 0.5])
    """
    cdef Tensor t = as_input(x, "max"), y
    cdef Plan p
    axis = plain_axis(axis, "max")
    plan(&p, t._array, axis, False, "max")
    refuse_empty(&p, t, axis, "max", "maximum")
    y = reduced(t, &p, keepdims, kernels_of(t._array).max)
    if tracked(t):
        record_extreme(y, "max", t, axis)
    return y

# y = min x        dx = dy / (how many are smallest) where x = y, else 0

def min(x, axis=None, bint keepdims=False):
    """The smallest element along `axis`; NaN if there is one. Elements that tie for it share the
    gradient equally.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: None.
        keepdims: Whether the reduced axes stay, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice, or there are no elements.

    >>> import minigrad as mg
    >>> mg.min(mg.Tensor([[1.0, 3.0], [4.0, 2.0]]), axis=1)
    Tensor([1., 2.])
    """
    cdef Tensor t = as_input(x, "min"), y
    cdef Plan p
    axis = plain_axis(axis, "min")
    plan(&p, t._array, axis, False, "min")
    refuse_empty(&p, t, axis, "min", "minimum")
    y = reduced(t, &p, keepdims, kernels_of(t._array).min)
    if tracked(t):
        record_extreme(y, "min", t, axis)
    return y

cdef int record_extreme(Tensor y, str name, Tensor x, object axis) except -1:
    cdef Node node = record1(y, extreme_rule, name, x)
    save_output(node, 0, y)
    save(node, 1, x)
    node.extra = axis
    return 0

cdef int extreme_rule(Node node, Tensor dy) except -1:
    cdef Tensor x = saved(node, 1), y = spread(saved(node, 0), x.shape, node.extra), share
    hit = np.asarray((x._array == y._array) | np.isnan(x._array))       # y is NaN where an x is
    count = np.sum(hit, axis=node.extra, keepdims=dy.ndim == hit.ndim, dtype=x._array.dtype)
    share = div(dy, wrap(np.asarray(count)))
    return node.give(0, where(hit, spread(share, x.shape, node.extra), 0.0), True)


# i = argmax x     no gradient

def argmax(x, axis=None, bint keepdims=False):
    """Where the largest element along `axis` (an int, or None to count through all dimensions) is:
    a NumPy array of int64.

    Of several the first; the first NaN if there is one.

    Args:
        x: Of any shape.
        axis: An int, or None to count through all dimensions. Default: None.
        keepdims: Whether the reduced axis stays, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or there are no elements.

    >>> import minigrad as mg
    >>> mg.argmax(mg.Tensor([[1.0, 3.0], [4.0, 2.0]]), axis=1)
    array([1, 0])
    """
    cdef Tensor t = as_input(x, "argmax")
    cdef Plan p
    if type(axis) is tuple:
        raise TypeError(f"argmax: axis must be None or an int, got {reprlib.repr(axis)}")
    axis = plain_axis(axis, "argmax")
    plan(&p, t._array, axis, False, "argmax")
    if p.n == 0 and p.outer * p.inner != 0:
        raise ValueError(f"argmax: attempt to get argmax of an empty sequence: "
                         f"x has shape {t.shape}, axis is {axis}")
    cdef cnp.ndarray found = without_reduced(t._array, &p, keepdims, cnp.NPY_INT64)
    cdef cnp.ndarray source = arranged(t._array, &p)
    cdef const mg_kernels *K = kernels_of(source)
    cdef void *data = cnp.PyArray_DATA(source)
    cdef int64_t *to = <int64_t *>cnp.PyArray_DATA(found)
    with nogil:
        K.argmax(p.outer, p.n, p.inner, data, to)
    return found


# ---------------------------------------------------------------- sums of exponentials

cdef cnp.ndarray by_rows(cnp.ndarray source, Plan *p, RowKernel kernel):
    """The kernel over the rows of an arranged array, with a result of the same shape."""
    cdef cnp.ndarray y = array_like(source)
    cdef void *data = cnp.PyArray_DATA(source)
    cdef void *to = cnp.PyArray_DATA(y)
    if p.outer * p.n < LONG:
        kernel(p.outer, p.n, data, to)
    else:
        with nogil:
            kernel(p.outer, p.n, data, to)
    return y


# y = log sum e^x          dx = dy softmax(x)

cpdef Tensor logsumexp(x, axis=None, bint keepdims=False):
    """log(sum(exp(x))) along `axis`, without overflow: the largest x is taken out first. -inf for
    no elements.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: None.
        keepdims: Whether the reduced axes stay, with length 1. Default: False.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice.

    >>> import minigrad as mg
    >>> mg.logsumexp(mg.Tensor([1000.0, 1000.0]))
    Tensor(1000.6932)
    """
    cdef Tensor t = as_input(x, "logsumexp"), y
    cdef Plan p
    axis = plain_axis(axis, "logsumexp")
    plan(&p, t._array, axis, True, "logsumexp")
    y = wrap(without_reduced(t._array, &p, keepdims, cnp.PyArray_TYPE(t._array)))
    cdef cnp.ndarray source = arranged(t._array, &p)
    cdef const mg_kernels *K = kernels_of(source)
    cdef void *data = cnp.PyArray_DATA(source)
    cdef void *to = cnp.PyArray_DATA(y._array)
    with nogil:
        K.logsumexp(p.outer, p.n, data, to)
    if tracked(t):
        node = record1(y, logsumexp_rule, "logsumexp", t)
        save(node, 0, t)
        node.extra = axis
    return y

cdef int logsumexp_rule(Node node, Tensor dy) except -1:
    cdef Tensor x = saved(node, 0)
    return node.give(0, mul(softmax(x, node.extra), spread(dy, x.shape, node.extra)), True)


# y = e^x / sum e^x        dx = y (dy - sum(dy y))

cpdef Tensor softmax(x, axis=-1):
    """exp(x) / sum(exp(x)) along `axis`: positive numbers that sum to 1. Along an axis of no
    elements the result is empty.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: -1.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice.

    >>> import minigrad as mg
    >>> mg.softmax(mg.Tensor([0.0, 0.0, -np.inf]))
    Tensor([0.5, 0.5, 0. ])
    """
    cdef Tensor t = as_input(x, "softmax"), y
    cdef Plan p
    axis = plain_axis(axis, "softmax")
    plan(&p, t._array, axis, True, "softmax")
    y = restored(by_rows(arranged(t._array, &p), &p, kernels_of(t._array).softmax), &p)
    if tracked(t):
        node = record1(y, softmax_rule, "softmax", t)
        save_output(node, 0, y)
        node.extra = axis
    return y

cdef int softmax_rule(Node node, Tensor dy) except -1:
    return node.give(0, softmax_grad(dy, saved(node, 0), node.extra), True)

cdef Tensor softmax_grad(Tensor dy, Tensor y, object axis):
    return gradient_op(dy, y, axis, kernels_of(dy._array).softmax_grad, softmax_grad_rule,
                       "softmax_grad")

cdef Tensor gradient_op(Tensor dy, Tensor y, object axis, RowGradient kernel, Rule rule, str name):
    """dx out of dy and the forward's output y, as an op of its own, for second order."""
    cdef Plan p
    cdef Plan q
    plan(&p, y._array, axis, True, name)
    plan(&q, dy._array, axis, True, name)
    p.moved = q.moved = p.moved or q.moved
    cdef cnp.ndarray given = arranged(dy._array, &p), value = arranged(y._array, &p)
    cdef cnp.ndarray to = array_like(given)
    cdef void *data_dy = cnp.PyArray_DATA(given)
    cdef void *data_y = cnp.PyArray_DATA(value)
    cdef void *data_dx = cnp.PyArray_DATA(to)
    with nogil:
        kernel(p.outer, p.n, data_dy, data_y, data_dx)
    cdef Tensor dx = restored(to, &p)
    cdef Node node
    if tracked2(dy, y):
        node = record2(dx, rule, name, dy, y)
        save(node, 0, dy)
        save(node, 1, y)
        node.extra = axis
    return dx

# z = y (dy - s), s = sum(dy y):       d(dy) = y (g - sum(g y)), d(y) = g (dy - s) - dy sum(g y)

cdef int softmax_grad_rule(Node node, Tensor g) except -1:
    cdef Tensor dy = saved(node, 0), y = saved(node, 1), s, gy
    axis = node.extra
    if node.wants(0):
        node.give(0, softmax_grad(g, y, axis), True)
    if node.wants(1):
        gy = sum(mul(g, y), axis, True)
        s = sum(mul(dy, y), axis, True)
        node.give(1, sub(mul(g, sub(dy, s)), mul(dy, gy)), True)
    return 0


# y = x - log sum e^x      dx = dy - e^y sum(dy)

cpdef Tensor log_softmax(x, axis=-1):
    """The logarithm of softmax, x - logsumexp(x), along `axis`.

    Args:
        x: Of any shape.
        axis: An int, a tuple of ints, or None for all axes. Negative ones count from the end.
            Default: -1.

    Raises:
        TypeError: The dtype of x is neither float32 nor float64, or axis is of another kind.
        ValueError: x does not have the axis, or it is named twice.

    >>> import minigrad as mg
    >>> mg.log_softmax(mg.Tensor([1000.0, 0.0]))
    Tensor([    0., -1000.])
    """
    cdef Tensor t = as_input(x, "log_softmax"), y
    cdef Plan p
    axis = plain_axis(axis, "log_softmax")
    plan(&p, t._array, axis, True, "log_softmax")
    y = restored(by_rows(arranged(t._array, &p), &p, kernels_of(t._array).log_softmax), &p)
    if tracked(t):
        node = record1(y, log_softmax_rule, "log_softmax", t)
        save_output(node, 0, y)
        node.extra = axis
    return y

cdef int log_softmax_rule(Node node, Tensor dy) except -1:
    cdef Tensor dx = gradient_op(dy, saved(node, 0), node.extra,
                                 kernels_of(dy._array).log_softmax_grad,
                                 log_softmax_grad_rule, "log_softmax_grad")
    return node.give(0, dx, True)

# z = dy - e^y s, s = sum(dy):         d(dy) = g - sum(g e^y), d(y) = -g e^y s

cdef int log_softmax_grad_rule(Node node, Tensor g) except -1:
    cdef Tensor dy = saved(node, 0), y = saved(node, 1), gp
    axis = node.extra
    gp = mul(g, exp(y))
    if node.wants(0):
        node.give(0, sub(g, sum(gp, axis, True)), True)
    if node.wants(1):
        node.give(1, mul(neg(gp), sum(dy, axis, True)), True)
    return 0


for function in (sum, mean, var, prod, max, min, argmax, logsumexp, softmax, log_softmax):
    install(function.__name__, function)
