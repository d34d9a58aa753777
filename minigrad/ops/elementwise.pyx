# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The elementwise ops: arithmetic with broadcasting, and functions of one variable.

Each op is one block: the formula and its derivative, the value, the rule. In the rules dy (dz) is
the gradient of the op's output and `deliver` sums a gradient over the dimensions along which its
input was broadcast. Rules are made of ops, so they can be differentiated again.
"""
cimport numpy as cnp
from libc.stddef cimport ptrdiff_t
from minigrad.core.kernels cimport *
from minigrad.core.array cimport PyArray_CHKFLAGS, add_into, kernels_of
from minigrad.core.tape cimport record1, record2, recordn, save0, save1, save_output
from minigrad.core.tensor cimport (
    Node,
    Operators,
    Rule,
    Tensor,
    as_input,
    as_operand,
    empty,
    operators,
    tracked,
    tracked2,
    wrap,
)

import numpy as np

from minigrad.core.array import made_array
from minigrad.core.tensor import install

cnp.import_array()




# ---------------------------------------------------------------- how a map is run

cdef Tensor map1(Tensor x, int id):
    """y = f(x) for the kernel `id`."""
    cdef cnp.ndarray array = x._array
    cdef const mg_kernels *K = kernels_of(array)
    cdef int nd = cnp.PyArray_NDIM(array), d
    cdef Tensor y = empty(nd, cnp.PyArray_DIMS(array), cnp.PyArray_TYPE(array))
    cdef size_t n = cnp.PyArray_SIZE(array)
    cdef void *to = cnp.PyArray_DATA(y._array)
    cdef void *source = cnp.PyArray_DATA(array)
    cdef const ptrdiff_t *shape = <const ptrdiff_t *>cnp.PyArray_DIMS(array)
    cdef ptrdiff_t strides[64]
    if n < LONG and PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_C_CONTIGUOUS):
        K.map[id](n, source, 1, to)
        return y
    for d in range(nd):
        strides[d] = cnp.PyArray_STRIDE(array, d) // <ptrdiff_t>K.itemsize
    with nogil:
        map_strided(K, id, nd, shape, source, strides, to)
    return y


cdef Tensor map2(Tensor a, Tensor b, int id, str op):
    """z = f(a, b) with broadcasting for the kernel `id`; a and b have one dtype."""
    cdef cnp.ndarray x = a._array, y = b._array
    cdef const mg_kernels *K = kernels_of(x)
    cdef int nd = cnp.PyArray_NDIM(x), md = cnp.PyArray_NDIM(y), d, rank
    cdef cnp.npy_intp *xs = cnp.PyArray_DIMS(x)
    cdef cnp.npy_intp *ys = cnp.PyArray_DIMS(y)
    cdef bint same = nd == md, fits = True
    cdef bint dense = PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS) and PyArray_CHKFLAGS(y, cnp.NPY_ARRAY_C_CONTIGUOUS)
    cdef Tensor z
    cdef size_t n
    if same:
        for d in range(nd):
            if xs[d] != ys[d]:
                same = False
                break
    if dense and same:
        n = cnp.PyArray_SIZE(x)
        if n < LONG:
            z = empty(nd, xs, cnp.PyArray_TYPE(x))
            K.map2[id](n, cnp.PyArray_DATA(x), 1, cnp.PyArray_DATA(y), 1, cnp.PyArray_DATA(z._array))
            return z
    elif dense and md == 0:
        n = cnp.PyArray_SIZE(x)
        if n < LONG:
            z = empty(nd, xs, cnp.PyArray_TYPE(x))
            K.map2[id](n, cnp.PyArray_DATA(x), 1, cnp.PyArray_DATA(y), 0, cnp.PyArray_DATA(z._array))
            return z
    cdef cnp.npy_intp shape[64]
    cdef ptrdiff_t sx[64]
    cdef ptrdiff_t sy[64]
    cdef cnp.npy_intp p, q
    rank = max(nd, md)
    for d in range(rank):
        p = xs[d - rank + nd] if d >= rank - nd else 1
        q = ys[d - rank + md] if d >= rank - md else 1
        if p != q and p != 1 and q != 1:
            raise ValueError(f"{op}: operands could not be broadcast together with shapes {a.shape} {b.shape}")
        shape[d] = q if p == 1 else p
        sx[d] = cnp.PyArray_STRIDE(x, d - rank + nd) // <ptrdiff_t>K.itemsize if p != 1 else 0
        sy[d] = cnp.PyArray_STRIDE(y, d - rank + md) // <ptrdiff_t>K.itemsize if q != 1 else 0
    z = empty(rank, shape, cnp.PyArray_TYPE(x))
    cdef void *data_x = cnp.PyArray_DATA(x)
    cdef void *data_y = cnp.PyArray_DATA(y)
    cdef void *data_z = cnp.PyArray_DATA(z._array)
    with nogil:
        map2_strided(K, id, rank, <const ptrdiff_t *>shape, data_x, sx, data_y, sy, data_z)
    return z


cdef inline Tensor left(object a, object b, str op):
    """The first operand of a binary op: a number beside a Tensor takes the Tensor's dtype."""
    if isinstance(a, Tensor):
        return <Tensor>a
    return as_operand(a, <Tensor>b, op) if isinstance(b, Tensor) else as_input(a, op)


cdef Node record_pair(Tensor z, Rule rule, str name, Tensor a, Tensor b):
    """Record z = f(a, b); the shapes are kept where broadcasting took place."""
    cdef Node node = record2(z, rule, name, a, b)
    cdef int d, nd = cnp.PyArray_NDIM(a._array)
    cdef bint same = nd == cnp.PyArray_NDIM(b._array)
    if same:
        for d in range(nd):
            if cnp.PyArray_DIM(a._array, d) != cnp.PyArray_DIM(b._array, d):
                same = False
                break
    if not same:
        node.extra = (a.shape, b.shape)
    return node


cdef int deliver(Node node, Py_ssize_t i, Tensor dx, bint fresh) except -1:
    """Give dx to input i, summed over the dimensions along which it was broadcast."""
    if node.extra is None:
        return node.give(i, dx, fresh)
    return node.give_unbroadcast(i, dx, <tuple>(<tuple>node.extra)[i], fresh)


# ---------------------------------------------------------------- arithmetic

# z = a + b        da = dz, db = dz

cpdef Tensor add(a, b):
    """a + b, element by element, with NumPy's broadcasting; both of one dtype, Python numbers take
    the Tensor's.

    >>> import minigrad as mg
    >>> mg.add(mg.Tensor([[1.0], [2.0]]), mg.Tensor([10.0, 20.0]))
    Tensor([[11., 21.],
            [12., 22.]])
    """
    cdef Tensor x = left(a, b, "add"), y = as_operand(b, x, "add")
    cdef Tensor z = map2(x, y, mg_map2_add, "add")
    if tracked2(x, y):
        record_pair(z, add_rule, "add", x, y)
    return z

cdef int add_rule(Node node, Tensor dz) except -1:
    deliver(node, 0, dz, False)
    deliver(node, 1, dz, False)
    return 0


# z = a - b        da = dz, db = -dz

cpdef Tensor sub(a, b):
    """a - b, element by element, with broadcasting.

    >>> import minigrad as mg
    >>> mg.sub(mg.Tensor([1.0, 2.0]), 0.5)
    Tensor([0.5, 1.5])
    """
    cdef Tensor x = left(a, b, "sub"), y = as_operand(b, x, "sub")
    cdef Tensor z = map2(x, y, mg_map2_sub, "sub")
    if tracked2(x, y):
        record_pair(z, sub_rule, "sub", x, y)
    return z

cdef int sub_rule(Node node, Tensor dz) except -1:
    deliver(node, 0, dz, False)
    if node.wants(1):
        deliver(node, 1, neg(dz), True)
    return 0


# z = a b          da = dz b, db = dz a

cpdef Tensor mul(a, b):
    """a * b, element by element, with broadcasting.

    >>> import minigrad as mg
    >>> mg.mul(mg.Tensor([1.0, 2.0]), mg.Tensor([3.0, 4.0]))
    Tensor([3., 8.])
    """
    cdef Tensor x = left(a, b, "mul"), y = as_operand(b, x, "mul")
    cdef Tensor z = map2(x, y, mg_map2_mul, "mul")
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, mul_rule, "mul", x, y)
        if y._requires_grad:
            save0(node, x)
        if x._requires_grad:
            save1(node, y)
    return z

cdef int mul_rule(Node node, Tensor dz) except -1:
    cdef Tensor dx
    if node.slots[0] is node.slots[1] and not node.run.create_graph:    # x * x: the two gradients are one and the same
        dx = mul(dz, node.get0())
        add_into(dx._array, dx._array)
        return deliver(node, 0, dx, True)
    if node.wants(0):
        deliver(node, 0, mul(dz, node.get1()), True)
    if node.wants(1):
        deliver(node, 1, mul(dz, node.get0()), True)
    return 0


# z = a / b        da = dz / b, db = -(dz / b) (a / b);  a is saved and not z, which may then be
# changed in place

cpdef Tensor div(a, b):
    """a / b, element by element, with broadcasting.

    >>> import minigrad as mg
    >>> mg.div(1, mg.Tensor([2.0, 4.0]))
    Tensor([0.5 , 0.25])
    """
    cdef Tensor x = left(a, b, "div"), y = as_operand(b, x, "div")
    cdef Tensor z = map2(x, y, mg_map2_div, "div")
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, div_rule, "div", x, y)
        save1(node, y)
        if y._requires_grad:
            save0(node, x)
    return z

cdef int div_rule(Node node, Tensor dz) except -1:
    cdef Tensor b = node.get1(), da = div(dz, b)
    if node.wants(1):
        deliver(node, 1, neg(mul(da, div(node.get0(), b))), True)
    deliver(node, 0, da, not node.wants(1) or not node.run.create_graph)
    return 0


# z = a ^ b        da = dz b a^(b-1), db = dz z log a   (0 where a = 0 and b >= 0)

cdef Tensor power(Tensor x, Tensor y):
    """x ^ y; the exponents 2, 1, 0.5 and -1 by the op that they are."""
    cdef double exponent
    if cnp.PyArray_NDIM(y._array) == 0:
        exponent = y._array.item()
        if exponent == 2:
            return map2(x, x, mg_map2_mul, "pow")
        if exponent == 0.5:
            return map1(x, mg_map_sqrt)
        if exponent == -1:
            return map2(as_operand(1.0, x, "pow"), x, mg_map2_div, "pow")
    return map2(x, y, mg_map2_pow, "pow")

cpdef Tensor pow(a, b):
    """a ** b, element by element, with broadcasting; NaN where a is negative and b is not a whole
    number.

    >>> import minigrad as mg
    >>> mg.pow(mg.Tensor([-2.0, 3.0]), 3)
    Tensor([-8., 27.])
    """
    cdef Tensor x = left(a, b, "pow"), y = as_operand(b, x, "pow")
    cdef Tensor z = power(x, y)
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, pow_rule, "pow", x, y)
        save0(node, x)
        save1(node, y)
    return z

cdef int pow_rule(Node node, Tensor dz) except -1:
    cdef Tensor a = node.get0(), b = node.get1(), g
    if node.wants(0):
        g = mul(dz, mul(b, pow(a, sub(b, 1.0))))
        g = where(np.broadcast_to(b._array == 0, g.shape), 0.0, g) if (b._array == 0).any() else g
        deliver(node, 0, g, True)
    if node.wants(1):
        dead = (a._array == 0) & (b._array >= 0)
        deliver(node, 1, where(dead, 0.0, mul(dz, mul(pow(a, b), log(where(a._array == 0, 1.0, a) if dead.any() else a)))), True)
    return 0


# y = -x           dx = -dy

cpdef Tensor neg(x):
    """-x.

    >>> import minigrad as mg
    >>> mg.neg(mg.Tensor([1.0, -2.0]))
    Tensor([-1.,  2.])
    """
    cdef Tensor t = as_input(x, "neg"), y = map1(t, mg_map_neg)
    if tracked(t):
        record1(y, neg_rule, "neg", t)
    return y

cdef int neg_rule(Node node, Tensor dy) except -1:
    return node.give(0, neg(dy), True)


# z = max(a, b)    da = 0 where a < b, dz / 2 where a = b, else dz; db the same with b < a. Where
# either is NaN both get dz.

cdef Tensor extreme(object a, object b, int id, Rule rule, str name):
    cdef Tensor x = left(a, b, name), y = as_operand(b, x, name)
    cdef Tensor z = map2(x, y, id, name)
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, rule, name, x, y)
        save0(node, x)
        save1(node, y)
    return z

cpdef Tensor maximum(a, b):
    """The larger of a and b, element by element, with broadcasting; NaN where either is. Ties share
    the gradient.

    >>> import minigrad as mg
    >>> mg.maximum(mg.Tensor([1.0, 5.0]), 3)
    Tensor([3., 5.])
    """
    return extreme(a, b, mg_map2_maximum, maximum_rule, "maximum")

cdef int maximum_rule(Node node, Tensor dz) except -1:
    a, b = node.get0()._array, node.get1()._array
    return extreme_rule(node, dz, a < b, b < a, a == b)

cdef int extreme_rule(Node node, Tensor dz, a_loses, b_loses, ties) except -1:
    if ties.any():
        dz = mul(dz, wrap(np.asarray(np.where(ties, 0.5, 1.0), dz._array.dtype)))
    if node.wants(0):
        deliver(node, 0, where(a_loses, 0.0, dz), True)
    if node.wants(1):
        deliver(node, 1, where(b_loses, 0.0, dz), True)
    return 0

# z = min(a, b)    the same, with the larger one in place of the smaller

cpdef Tensor minimum(a, b):
    """The smaller of a and b, element by element, with broadcasting; NaN where either is. Ties
    share the gradient.

    >>> import minigrad as mg
    >>> mg.minimum(mg.Tensor([1.0, 5.0]), 3)
    Tensor([1., 3.])
    """
    return extreme(a, b, mg_map2_minimum, minimum_rule, "minimum")

cdef int minimum_rule(Node node, Tensor dz) except -1:
    a, b = node.get0()._array, node.get1()._array
    return extreme_rule(node, dz, b < a, a < b, a == b)


# z = a where the condition holds, else b        da = dz where it holds, else 0; db the rest

cpdef Tensor where(condition, a, b):
    """a where `condition` (bool, a constant) is true, else b; all three broadcast.

    >>> import minigrad as mg
    >>> x = mg.Tensor([-1.0, 2.0])
    >>> mg.where(x > 0, x, x * 0.5)
    Tensor([-0.5,  2. ])
    """
    cdef Tensor x = left(a, b, "where"), y = as_operand(b, x, "where")
    mask = made_array(condition, "where", "condition")
    if mask.dtype != np.bool_:
        raise TypeError(f"where: condition must be an array of bool, got {mask.dtype}")
    try:
        z = wrap(np.asarray(np.where(mask, x._array, y._array)))
    except ValueError as error:
        raise ValueError(f"where: {error}") from None
    if tracked2(x, y):
        node = record2(z, where_rule, "where", x, y)
        node.extra = (x.shape, y.shape, mask.copy())        # the caller may change it before backward
    return z

cdef int where_rule(Node node, Tensor dz) except -1:
    mask = (<tuple>node.extra)[2]
    if node.wants(0):
        deliver(node, 0, where(mask, dz, 0.0), True)
    if node.wants(1):
        deliver(node, 1, where(mask, 0.0, dz), True)
    return 0


# y = min(max(x, low), high)           dx = dy where low <= x <= high, else 0

cdef object clip_bound(object bound, object dtype, str name):
    """A bound as the input's dtype has it: infinite where that cannot hold it."""
    if isinstance(bound, (bool, complex)) or not isinstance(bound, (int, float, np.integer, np.floating)):
        raise TypeError(f"clip: {name} must be a number or None, got {type(bound).__name__}")
    try:
        bound = float(bound)
    except OverflowError:
        raise ValueError(f"clip: {name} must be a number within the range of float64, got an int of {bound.bit_length()} bits"
                         ) from None
    with np.errstate(all="ignore"):
        return dtype.type(bound)

def clip(x, low=None, high=None) -> Tensor:
    """x with what is below `low` or above `high` (numbers, or None for no bound) replaced by the
    bound.

    The gradient passes where low <= x <= high, the bounds belong to it. If low is above high the
    result is high everywhere and no gradient passes; a bound that is NaN makes everything NaN. A
    bound that float32 cannot hold is infinite for a float32 x.

    >>> import minigrad as mg
    >>> mg.clip(mg.Tensor([-2.0, 0.5, 3.0]), -1, 1)
    Tensor([-1. ,  0.5,  1. ])
    """
    cdef Tensor t = as_input(x, "clip"), y
    if low is None and high is None:
        raise ValueError("clip: low and high must not both be None")
    array = t._array
    low = None if low is None else clip_bound(low, array.dtype, "low")
    high = None if high is None else clip_bound(high, array.dtype, "high")
    y = wrap(np.asarray(np.clip(array, low, high)))
    if tracked(t):
        within = array <= high if low is None else array >= low
        if low is not None and high is not None:
            within &= array <= high
        record1(y, clip_rule, "clip", t).extra = np.asarray(within)
    return y

cdef int clip_rule(Node node, Tensor dy) except -1:
    return node.give(0, where(node.extra, dy, 0.0), True)


# ---------------------------------------------------------------- functions of one variable

cdef Tensor of_input(object x, int id, Rule rule, str name):
    """y = f(x) for a rule that needs x."""
    cdef Tensor t = as_input(x, name), y = map1(t, id)
    if tracked(t):
        save0(record1(y, rule, name, t), t)
    return y

cdef Tensor of_output(object x, int id, Rule rule, str name):
    """y = f(x) for a rule that needs y."""
    cdef Tensor t = as_input(x, name), y = map1(t, id)
    if tracked(t):
        save_output(record1(y, rule, name, t), y)
    return y


# y = |x|          dx = dy sign x   (0 at 0 and NaN)

cpdef Tensor abs(x):
    """|x|; the gradient at 0 is 0.

    >>> import minigrad as mg
    >>> mg.abs(mg.Tensor([-1.5, 2.0]))
    Tensor([1.5, 2. ])
    """
    return of_input(x, mg_map_abs, abs_rule, "abs")

cdef int abs_rule(Node node, Tensor dy) except -1:
    x = node.get0()._array
    return node.give(0, mul(dy, wrap(np.asarray(np.subtract(x > 0, x < 0, dtype=x.dtype)))), True)


# y = e^x          dx = dy y

cpdef Tensor exp(x):
    """e ** x, within 1 ulp.

    >>> import minigrad as mg
    >>> mg.exp(mg.Tensor([0.0, 1.0], dtype="float64"))
    Tensor([1.        , 2.71828183], dtype=float64)
    """
    return of_output(x, mg_map_exp, exp_rule, "exp")

cdef int exp_rule(Node node, Tensor dy) except -1:
    return node.give(0, mul(dy, node.get0()), True)


# y = log x        dx = dy / x

cpdef Tensor log(x):
    """The natural logarithm: -inf at 0, NaN below.

    >>> import minigrad as mg
    >>> mg.log(mg.Tensor([1.0, 0.0]))
    Tensor([  0., -inf])
    """
    return of_input(x, mg_map_log, log_rule, "log")

cdef int log_rule(Node node, Tensor dy) except -1:
    return node.give(0, div(dy, node.get0()), True)


# y = sqrt x       dx = dy / (2 y)

cpdef Tensor sqrt(x):
    """The square root, correctly rounded; NaN below 0.

    >>> import minigrad as mg
    >>> mg.sqrt(mg.Tensor([4.0, 2.25]))
    Tensor([2. , 1.5])
    """
    return of_output(x, mg_map_sqrt, sqrt_rule, "sqrt")

cdef int sqrt_rule(Node node, Tensor dy) except -1:
    return node.give(0, div(dy, mul(node.get0(), 2.0)), True)


# y = sin x        dx = dy cos x

cpdef Tensor sin(x):
    """The sine of x in radians.

    >>> import minigrad as mg
    >>> mg.sin(mg.Tensor([0.0, 1.0], dtype="float64"))
    Tensor([0.        , 0.84147098], dtype=float64)
    """
    return of_input(x, mg_map_sin, sin_rule, "sin")

cdef int sin_rule(Node node, Tensor dy) except -1:
    return node.give(0, mul(dy, cos(node.get0())), True)


# y = cos x        dx = -dy sin x

cpdef Tensor cos(x):
    """The cosine of x in radians.

    >>> import minigrad as mg
    >>> mg.cos(mg.Tensor([0.0, 1.0], dtype="float64"))
    Tensor([1.        , 0.54030231], dtype=float64)
    """
    return of_input(x, mg_map_cos, cos_rule, "cos")

cdef int cos_rule(Node node, Tensor dy) except -1:
    return node.give(0, neg(mul(dy, sin(node.get0()))), True)


# ---------------------------------------------------------------- activations: the slide "activation function"

cdef Tensor gradient_op(Tensor dy, Tensor t, int id, Rule rule, str name):
    """dx = dy f'(t) as an op of its own, for second order."""
    cdef Tensor dx = map2(dy, t, id, name)
    cdef Node node
    if tracked2(dy, t):
        node = record2(dx, rule, name, dy, t)
        save0(node, dy)
        save1(node, t)
    return dx


# y = tanh x       dx = dy (1 - y^2)

cpdef Tensor tanh(x):
    """The hyperbolic tangent.

    >>> import minigrad as mg
    >>> mg.tanh(mg.Tensor([0.0, 1.0, 20.0], dtype="float64"))
    Tensor([0.        , 0.76159416, 1.        ], dtype=float64)
    """
    return of_output(x, mg_map_tanh, tanh_rule, "tanh")

cdef int tanh_rule(Node node, Tensor dy) except -1:
    return node.give(0, gradient_op(dy, node.get0(), mg_map2_tanh_grad, tanh_grad_rule, "tanh_grad"), True)

# z = dy (1 - y^2):     d(dy) = g (1 - y^2), d(y) = -2 g dy y

cdef int tanh_grad_rule(Node node, Tensor g) except -1:
    cdef Tensor dy = node.get0(), y = node.get1()
    if node.wants(0):
        node.give(0, gradient_op(g, y, mg_map2_tanh_grad, tanh_grad_rule, "tanh_grad"), True)
    if node.wants(1):
        node.give(1, mul(mul(g, dy), mul(y, -2.0)), True)
    return 0


# y = 1 / (1 + e^-x)       dx = dy y (1 - y)

cpdef Tensor sigmoid(x):
    """The logistic function 1 / (1 + e ** -x).

    >>> import minigrad as mg
    >>> mg.sigmoid(mg.Tensor([0.0, 100.0]))
    Tensor([0.5, 1. ])
    """
    return of_output(x, mg_map_sigmoid, sigmoid_rule, "sigmoid")

cdef int sigmoid_rule(Node node, Tensor dy) except -1:
    return node.give(0, gradient_op(dy, node.get0(), mg_map2_sigmoid_grad, sigmoid_grad_rule, "sigmoid_grad"), True)

# z = dy y (1 - y):     d(dy) = g y (1 - y), d(y) = g dy (1 - 2 y)

cdef int sigmoid_grad_rule(Node node, Tensor g) except -1:
    cdef Tensor dy = node.get0(), y = node.get1()
    if node.wants(0):
        node.give(0, gradient_op(g, y, mg_map2_sigmoid_grad, sigmoid_grad_rule, "sigmoid_grad"), True)
    if node.wants(1):
        node.give(1, mul(mul(g, dy), sub(1.0, mul(y, 2.0))), True)
    return 0


# y = max(x, 0)    dx = 0 where y <= 0, else dy

cpdef Tensor relu(x):
    """max(x, 0); the gradient at 0 is 0.

    >>> import minigrad as mg
    >>> mg.relu(mg.Tensor([-1.0, 2.0]))
    Tensor([0., 2.])
    """
    return of_output(x, mg_map_relu, relu_rule, "relu")

cdef int relu_rule(Node node, Tensor dy) except -1:
    return node.give(0, where(node.get0()._array <= 0, 0.0, dy) if node.run.create_graph
                     else map2(dy, node.get0(), mg_map2_relu_grad, "relu"), True)


# y = log(1 + e^x)         dx = dy sigmoid(x)

cpdef Tensor softplus(x):
    """log(1 + e ** x), without overflow.

    >>> import minigrad as mg
    >>> mg.softplus(mg.Tensor([0.0, 1000.0], dtype="float64"))
    Tensor([6.93147181e-01, 1.00000000e+03], dtype=float64)
    """
    return of_input(x, mg_map_softplus, softplus_rule, "softplus")

cdef int softplus_rule(Node node, Tensor dy) except -1:
    return node.give(0, mul(dy, sigmoid(node.get0())) if node.run.create_graph
                     else map2(dy, node.get0(), mg_map2_softplus_grad, "softplus"), True)


# ---------------------------------------------------------------- the operators and methods of Tensor

cdef Tensor operator_add(object a, object b):
    return add(a, b)

cdef Tensor operator_sub(object a, object b):
    return sub(a, b)

cdef Tensor operator_mul(object a, object b):
    return mul(a, b)

cdef Tensor operator_div(object a, object b):
    return div(a, b)

cdef Tensor operator_pow(object a, object b):
    return pow(a, b)

cdef Tensor operator_neg(object x):
    return neg(x)

cdef Tensor operator_abs(object x):
    return abs(x)

operators.add, operators.sub, operators.mul, operators.div = operator_add, operator_sub, operator_mul, operator_div
operators.pow, operators.neg, operators.abs = operator_pow, operator_neg, operator_abs
for _name, _function in (("abs", abs), ("exp", exp), ("log", log), ("sqrt", sqrt), ("sin", sin), ("cos", cos), ("tanh", tanh),
                         ("sigmoid", sigmoid), ("relu", relu), ("softplus", softplus), ("clip", clip), ("maximum", maximum),
                         ("minimum", minimum)):
    install(_name, _function)
