# cython: language_level=3, wraparound=False, initializedcheck=False
# cython: cdivision=True
"""The elementwise ops: arithmetic with broadcasting, `where`, and functions of one variable.
Maximum, minimum and clip are in bounds.pyx.

Each op is one block: the formula and its derivative, the value, the rule. In the rules dy (dz) is
the gradient of the op's output and `deliver` sums a gradient over the dimensions along which its
input was broadcast. Rules are made of ops, so they can be differentiated again.
"""
cimport numpy as cnp
from libc.stddef cimport ptrdiff_t
from minigrad.core.kernels cimport *
from minigrad.core.array cimport PyArray_CHKFLAGS, add_into, kernels_of, same_shape
from minigrad.core.operands cimport as_input, as_operand, first_operand
from minigrad.core.tape cimport record1, record2, save, save_output, saved
from minigrad.core.tensor cimport (
    Binary,
    Node,
    Rule,
    Tensor,
    empty,
    operators,
    tracked,
    tracked2,
    Unary,
    wrap,
)

import numpy as np

from minigrad.core.array import made_array
from minigrad.core.tensor import install

cnp.import_array()

cdef extern from "kernels.h" nogil:
    enum:
        mg_map_neg, mg_map_abs, mg_map_exp, mg_map_log, mg_map_sqrt, mg_map_sin, mg_map_cos
        mg_map_tanh, mg_map_sigmoid, mg_map_relu, mg_map_softplus
        mg_map2_add, mg_map2_sub, mg_map2_mul, mg_map2_div, mg_map2_pow
        mg_map2_tanh_grad, mg_map2_sigmoid_grad, mg_map2_relu_grad, mg_map2_softplus_grad


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
    cdef ptrdiff_t strides[MAX_DIMS]
    if n < LONG and PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_C_CONTIGUOUS):
        K.map[id](n, source, 1, to)
        return y
    for d in range(nd):
        strides[d] = cnp.PyArray_STRIDE(array, d) // <ptrdiff_t>K.itemsize
    with nogil:
        csrc.map_strided(K, id, nd, shape, source, strides, to)
    return y


cdef Tensor map2(Tensor a, Tensor b, int id, str op, bint *broadcast):
    """z = f(a, b) for the kernel `id`; a and b have one dtype. `broadcast` becomes whether their
    shapes differ."""
    cdef cnp.ndarray x = a._array, y = b._array
    cdef const mg_kernels *K = kernels_of(x)
    cdef int nd = cnp.PyArray_NDIM(x)
    cdef cnp.npy_intp *shape = cnp.PyArray_DIMS(x)
    cdef Tensor z
    cdef size_t n
    broadcast[0] = not same_shape(x, y)
    if (PyArray_CHKFLAGS(x, cnp.NPY_ARRAY_C_CONTIGUOUS)
            and PyArray_CHKFLAGS(y, cnp.NPY_ARRAY_C_CONTIGUOUS)
            and (not broadcast[0] or cnp.PyArray_NDIM(y) == 0)):
        n = cnp.PyArray_SIZE(x)
        if n < LONG:
            z = empty(nd, shape, cnp.PyArray_TYPE(x))
            K.map2[id](n, cnp.PyArray_DATA(x), 1, cnp.PyArray_DATA(y), not broadcast[0],
                       cnp.PyArray_DATA(z._array))
            return z
    return map2_strided(a, b, id, op)


cdef Tensor map2_strided(Tensor a, Tensor b, int id, str op):
    """map2 for any strides, with broadcasting: a dimension of length 1 has a stride of 0."""
    cdef cnp.ndarray x = a._array, y = b._array
    cdef const mg_kernels *K = kernels_of(x)
    cdef int rank = max(cnp.PyArray_NDIM(x), cnp.PyArray_NDIM(y)), d
    cdef int lead_x = rank - cnp.PyArray_NDIM(x), lead_y = rank - cnp.PyArray_NDIM(y)
    cdef cnp.npy_intp shape[MAX_DIMS]
    cdef ptrdiff_t sx[MAX_DIMS]
    cdef ptrdiff_t sy[MAX_DIMS]
    cdef cnp.npy_intp p, q
    for d in range(rank):
        p = cnp.PyArray_DIM(x, d - lead_x) if d >= lead_x else 1
        q = cnp.PyArray_DIM(y, d - lead_y) if d >= lead_y else 1
        if p != q and p != 1 and q != 1:
            raise ValueError(f"{op}: operands could not be broadcast together with shapes "
                             f"{a.shape} {b.shape}")
        shape[d] = q if p == 1 else p
        sx[d] = cnp.PyArray_STRIDE(x, d - lead_x) // <ptrdiff_t>K.itemsize if p != 1 else 0
        sy[d] = cnp.PyArray_STRIDE(y, d - lead_y) // <ptrdiff_t>K.itemsize if q != 1 else 0
    cdef Tensor z = empty(rank, shape, cnp.PyArray_TYPE(x))
    cdef void *data_x = cnp.PyArray_DATA(x)
    cdef void *data_y = cnp.PyArray_DATA(y)
    cdef void *data_z = cnp.PyArray_DATA(z._array)
    with nogil:
        csrc.map2_strided(K, id, rank, <const ptrdiff_t *>shape, data_x, sx, data_y, sy, data_z)
    return z


cdef Tensor map2_same(Tensor a, Tensor b, int id, str op):
    """map2 for two tensors of one shape."""
    cdef bint broadcast
    return map2(a, b, id, op, &broadcast)


cdef Node record_pair(Tensor z, Rule rule, str name, Tensor a, Tensor b, bint broadcast):
    """Record z = f(a, b); the shapes are kept where broadcasting took place."""
    cdef Node node = record2(z, rule, name, a, b)
    if broadcast:
        node.extra = (a.shape, b.shape)
    return node


cdef int deliver(Node node, Py_ssize_t i, Tensor dx, bint fresh) except -1:
    """Give dx to input i, which wants it, summed over the dimensions along which it was
    broadcast."""
    if node.extra is None:
        return node.give(i, dx, fresh)
    return node.give_unbroadcast(i, dx, <tuple>(<tuple>node.extra)[i], fresh)


# ---------------------------------------------------------------- arithmetic

# z = a + b        da = dz, db = dz

cpdef Tensor add(a, b):
    """a + b, element by element, with NumPy's broadcasting. Python numbers take the other's dtype.

    Args:
        a, b: Tensors, arrays or numbers of one dtype, whose shapes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not broadcast.

    >>> import minigrad as mg
    >>> mg.add(mg.Tensor([[1.0], [2.0]]), mg.Tensor([10.0, 20.0]))
    Tensor([[11., 21.],
            [12., 22.]])
    """
    cdef Tensor x = first_operand(a, b, "add"), y = as_operand(b, x, "add")
    cdef bint broadcast
    cdef Tensor z = map2(x, y, mg_map2_add, "add", &broadcast)
    if tracked2(x, y):
        record_pair(z, add_rule, "add", x, y, broadcast)
    return z

cdef int add_rule(Node node, Tensor dz) except -1:
    if node.wants(0):
        deliver(node, 0, dz, False)
    if node.wants(1):
        deliver(node, 1, dz, False)
    return 0


# z = a - b        da = dz, db = -dz

cpdef Tensor sub(a, b):
    """a - b, element by element, with broadcasting.

    Args:
        a, b: Tensors, arrays or numbers of one dtype, whose shapes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not broadcast.

    >>> import minigrad as mg
    >>> mg.sub(mg.Tensor([1.0, 2.0]), 0.5)
    Tensor([0.5, 1.5])
    """
    cdef Tensor x = first_operand(a, b, "sub"), y = as_operand(b, x, "sub")
    cdef bint broadcast
    cdef Tensor z = map2(x, y, mg_map2_sub, "sub", &broadcast)
    if tracked2(x, y):
        record_pair(z, sub_rule, "sub", x, y, broadcast)
    return z

cdef int sub_rule(Node node, Tensor dz) except -1:
    if node.wants(0):
        deliver(node, 0, dz, False)
    if node.wants(1):
        deliver(node, 1, neg(dz), True)
    return 0


# z = a b          da = dz b, db = dz a

cpdef Tensor mul(a, b):
    """a * b, element by element, with broadcasting.

    Args:
        a, b: Tensors, arrays or numbers of one dtype, whose shapes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not broadcast.

    >>> import minigrad as mg
    >>> mg.mul(mg.Tensor([1.0, 2.0]), mg.Tensor([3.0, 4.0]))
    Tensor([3., 8.])
    """
    cdef Tensor x = first_operand(a, b, "mul"), y = as_operand(b, x, "mul")
    cdef bint broadcast
    cdef Tensor z = map2(x, y, mg_map2_mul, "mul", &broadcast)
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, mul_rule, "mul", x, y, broadcast)
        if y._requires_grad:
            save(node, 0, x)
        if x._requires_grad:
            save(node, 1, y)
    return z

cdef int mul_rule(Node node, Tensor dz) except -1:
    cdef Tensor dx
    if node.slots[0] is node.slots[1] and not node.run.create_graph:
        # x * x: the two gradients are one and the same.
        dx = mul(dz, saved(node, 0))
        add_into(dx._array, dx._array)
        return deliver(node, 0, dx, True)
    if node.wants(0):
        deliver(node, 0, mul(dz, saved(node, 1)), True)
    if node.wants(1):
        deliver(node, 1, mul(dz, saved(node, 0)), True)
    return 0


# z = a / b        da = dz / b, db = -(dz / b) (a / b);  a is saved and not z, which may then be
# changed in place

cpdef Tensor div(a, b):
    """a / b, element by element, with broadcasting.

    Args:
        a, b: Tensors, arrays or numbers of one dtype, whose shapes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not broadcast.

    >>> import minigrad as mg
    >>> mg.div(1, mg.Tensor([2.0, 4.0]))
    Tensor([0.5 , 0.25])
    """
    cdef Tensor x = first_operand(a, b, "div"), y = as_operand(b, x, "div")
    cdef bint broadcast
    cdef Tensor z = map2(x, y, mg_map2_div, "div", &broadcast)
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, div_rule, "div", x, y, broadcast)
        save(node, 1, y)
        if y._requires_grad:
            save(node, 0, x)
    return z

cdef int div_rule(Node node, Tensor dz) except -1:
    cdef Tensor b = saved(node, 1), da = div(dz, b)
    if node.wants(1):
        deliver(node, 1, neg(mul(da, div(saved(node, 0), b))), True)
    if node.wants(0):
        # With create_graph the gradient of b is made of da, and is still to be differentiated.
        deliver(node, 0, da, not node.run.create_graph)
    return 0


# z = a ^ b        da = dz b a^(b-1), db = dz z log a   (0 where a = 0 and b >= 0)

cdef Tensor power(Tensor x, Tensor y, bint *broadcast):
    """x ^ y; the exponents 2, 0.5 and -1 by the op that they are."""
    cdef double exponent
    if cnp.PyArray_NDIM(y._array) == 0:
        exponent = y._array.item()
        broadcast[0] = cnp.PyArray_NDIM(x._array) != 0
        if exponent == 2:
            return map2_same(x, x, mg_map2_mul, "pow")
        if exponent == 0.5:
            return map1(x, mg_map_sqrt)
        if exponent == -1:
            return div(1.0, wrap(x._array))
    return map2(x, y, mg_map2_pow, "pow", broadcast)

cpdef Tensor pow(a, b):
    """a ** b, element by element, with broadcasting; NaN where a is negative and b is not a whole
    number.

    Args:
        a, b: Tensors, arrays or numbers of one dtype, whose shapes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not broadcast.

    >>> import minigrad as mg
    >>> mg.pow(mg.Tensor([-2.0, 3.0]), 3)
    Tensor([-8., 27.])
    """
    cdef Tensor x = first_operand(a, b, "pow"), y = as_operand(b, x, "pow")
    cdef bint broadcast
    cdef Tensor z = power(x, y, &broadcast)
    cdef Node node
    if tracked2(x, y):
        node = record_pair(z, pow_rule, "pow", x, y, broadcast)
        save(node, 0, x)
        save(node, 1, y)
    return z

cdef int pow_rule(Node node, Tensor dz) except -1:
    cdef Tensor a = saved(node, 0), b = saved(node, 1), da, z, log_a
    if node.wants(0):
        da = mul(dz, mul(b, pow(a, sub(b, 1.0))))
        if (b._array == 0).any():
            da = where(np.broadcast_to(b._array == 0, da.shape), 0.0, da)
        deliver(node, 0, da, True)
    if node.wants(1):
        dead = (a._array == 0) & (b._array >= 0)
        z = pow(a, b)
        log_a = log(where(a._array == 0, 1.0, a) if dead.any() else a)
        deliver(node, 1, where(dead, 0.0, mul(dz, mul(z, log_a))), True)
    return 0


# y = -x           dx = -dy

cpdef Tensor neg(x):
    """-x.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

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


# z = a where the condition holds, else b        da = dz where it holds, else 0; db the rest

cpdef Tensor where(condition, a, b):
    """a where `condition` (bool, a constant) is true, else b; all three broadcast.

    Args:
        condition: An array or Tensor of bools.
        a, b: Tensors, arrays or numbers, of one dtype.

    Raises:
        TypeError, ValueError: `condition` is not of bools, the dtypes differ, or the shapes do not
            broadcast.

    >>> import minigrad as mg
    >>> x = mg.Tensor([-1.0, 2.0])
    >>> mg.where(x > 0, x, x * 0.5)
    Tensor([-0.5,  2. ])
    """
    cdef Tensor x = first_operand(a, b, "where"), y = as_operand(b, x, "where")
    cdef cnp.ndarray mask = made_array(condition, "where", "condition")
    if cnp.PyArray_TYPE(mask) != cnp.NPY_BOOL:
        raise TypeError(f"where: condition must be an array of bool, got {mask.dtype}")
    try:
        z = wrap(np.asarray(cnp.PyArray_Where(mask, x._array, y._array)))
    except ValueError as error:
        raise ValueError(f"where: {error}") from None
    if tracked2(x, y):
        node = record2(z, where_rule, "where", x, y)
        # The mask is copied: the caller may change it before backward.
        node.extra = (x.shape, y.shape, cnp.PyArray_NewCopy(mask, cnp.NPY_ANYORDER))
    return z

cdef int where_rule(Node node, Tensor dz) except -1:
    mask = (<tuple>node.extra)[2]
    if node.wants(0):
        deliver(node, 0, where(mask, dz, 0.0), True)
    if node.wants(1):
        deliver(node, 1, where(mask, 0.0, dz), True)
    return 0


# ---------------------------------------------------------------- functions of one variable

cdef Tensor of_input(object x, int id, Rule rule, str name):
    """y = f(x) for a rule that needs x."""
    cdef Tensor t = as_input(x, name), y = map1(t, id)
    if tracked(t):
        save(record1(y, rule, name, t), 0, t)
    return y

cdef Tensor of_output(object x, int id, Rule rule, str name):
    """y = f(x) for a rule that needs y."""
    cdef Tensor t = as_input(x, name), y = map1(t, id)
    if tracked(t):
        save_output(record1(y, rule, name, t), 0, y)
    return y


# y = |x|          dx = dy sign x   (0 at 0 and NaN)

cpdef Tensor abs(x):
    """|x|; the gradient at 0 is 0.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.abs(mg.Tensor([-1.5, 2.0]))
    Tensor([1.5, 2. ])
    """
    return of_input(x, mg_map_abs, abs_rule, "abs")

cdef int abs_rule(Node node, Tensor dy) except -1:
    x = saved(node, 0)._array
    sign = np.asarray(np.subtract(x > 0, x < 0, dtype=x.dtype))
    return node.give(0, mul(dy, wrap(sign)), True)


# y = e^x          dx = dy y

cpdef Tensor exp(x):
    """e ** x, within 1 ulp.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.exp(mg.Tensor([0.0, 1.0], dtype="float64"))
    Tensor([1.        , 2.71828183], dtype=float64)
    """
    return of_output(x, mg_map_exp, exp_rule, "exp")

cdef int exp_rule(Node node, Tensor dy) except -1:
    return node.give(0, mul(dy, saved(node, 0)), True)


# y = log x        dx = dy / x

cpdef Tensor log(x):
    """The natural logarithm of x: -inf at 0, NaN below.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.log(mg.Tensor([1.0, 0.0]))
    Tensor([  0., -inf])
    """
    return of_input(x, mg_map_log, log_rule, "log")

cdef int log_rule(Node node, Tensor dy) except -1:
    return node.give(0, div(dy, saved(node, 0)), True)


# y = sqrt x       dx = dy / (2 y)

cpdef Tensor sqrt(x):
    """The square root of x, correctly rounded; NaN below 0.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.sqrt(mg.Tensor([4.0, 2.25]))
    Tensor([2. , 1.5])
    """
    return of_output(x, mg_map_sqrt, sqrt_rule, "sqrt")

cdef int sqrt_rule(Node node, Tensor dy) except -1:
    return node.give(0, div(dy, mul(saved(node, 0), 2.0)), True)


# y = sin x        dx = dy cos x

cpdef Tensor sin(x):
    """The sine of x in radians.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.sin(mg.Tensor([0.0, 1.0], dtype="float64"))
    Tensor([0.        , 0.84147098], dtype=float64)
    """
    return of_input(x, mg_map_sin, sin_rule, "sin")

cdef int sin_rule(Node node, Tensor dy) except -1:
    return node.give(0, mul(dy, cos(saved(node, 0))), True)


# y = cos x        dx = -dy sin x

cpdef Tensor cos(x):
    """The cosine of x in radians.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.cos(mg.Tensor([0.0, 1.0], dtype="float64"))
    Tensor([1.        , 0.54030231], dtype=float64)
    """
    return of_input(x, mg_map_cos, cos_rule, "cos")

cdef int cos_rule(Node node, Tensor dy) except -1:
    return node.give(0, neg(mul(dy, sin(saved(node, 0)))), True)


# ---------------------------------------------------------------- activations
#
# The slide "activation function".

cdef Tensor gradient_op(Tensor dy, Tensor t, int id, Rule rule, str name):
    """dx = dy f'(t) as an op of its own, for second order."""
    cdef Tensor dx = map2_same(dy, t, id, name)
    cdef Node node
    if tracked2(dy, t):
        node = record2(dx, rule, name, dy, t)
        save(node, 0, dy)
        save(node, 1, t)
    return dx


# y = tanh x       dx = dy (1 - y^2)

cpdef Tensor tanh(x):
    """The hyperbolic tangent of x.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.tanh(mg.Tensor([0.0, 1.0, 20.0], dtype="float64"))
    Tensor([0.        , 0.76159416, 1.        ], dtype=float64)
    """
    return of_output(x, mg_map_tanh, tanh_rule, "tanh")

cdef int tanh_rule(Node node, Tensor dy) except -1:
    return node.give(0, tanh_grad(dy, saved(node, 0)), True)

cdef Tensor tanh_grad(Tensor dy, Tensor y):
    return gradient_op(dy, y, mg_map2_tanh_grad, tanh_grad_rule, "tanh_grad")

# z = dy (1 - y^2):     d(dy) = g (1 - y^2), d(y) = -2 g dy y

cdef int tanh_grad_rule(Node node, Tensor g) except -1:
    cdef Tensor dy = saved(node, 0), y = saved(node, 1)
    if node.wants(0):
        node.give(0, tanh_grad(g, y), True)
    if node.wants(1):
        node.give(1, mul(mul(g, dy), mul(y, -2.0)), True)
    return 0


# y = 1 / (1 + e^-x)       dx = dy y (1 - y)

cpdef Tensor sigmoid(x):
    """The logistic function of x: 1 / (1 + e ** -x).

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.sigmoid(mg.Tensor([0.0, 100.0]))
    Tensor([0.5, 1. ])
    """
    return of_output(x, mg_map_sigmoid, sigmoid_rule, "sigmoid")

cdef int sigmoid_rule(Node node, Tensor dy) except -1:
    return node.give(0, sigmoid_grad(dy, saved(node, 0)), True)

cdef Tensor sigmoid_grad(Tensor dy, Tensor y):
    return gradient_op(dy, y, mg_map2_sigmoid_grad, sigmoid_grad_rule, "sigmoid_grad")

# z = dy y (1 - y):     d(dy) = g y (1 - y), d(y) = g dy (1 - 2 y)

cdef int sigmoid_grad_rule(Node node, Tensor g) except -1:
    cdef Tensor dy = saved(node, 0), y = saved(node, 1)
    if node.wants(0):
        node.give(0, sigmoid_grad(g, y), True)
    if node.wants(1):
        node.give(1, mul(mul(g, dy), sub(1.0, mul(y, 2.0))), True)
    return 0


# y = max(x, 0)    dx = 0 where y <= 0, else dy

cpdef Tensor relu(x):
    """max(x, 0); the gradient at 0 is 0.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.relu(mg.Tensor([-1.0, 2.0]))
    Tensor([0., 2.])
    """
    return of_output(x, mg_map_relu, relu_rule, "relu")

cdef int relu_rule(Node node, Tensor dy) except -1:
    cdef Tensor y = saved(node, 0), dx
    if node.run.create_graph:
        dx = where(y._array <= 0, 0.0, dy)
    else:
        dx = map2_same(dy, y, mg_map2_relu_grad, "relu")
    return node.give(0, dx, True)


# y = log(1 + e^x)         dx = dy sigmoid(x)

cpdef Tensor softplus(x):
    """log(1 + e ** x), without overflow.

    Args:
        x: Of any shape.

    Raises:
        TypeError: Its dtype is neither float32 nor float64.

    >>> import minigrad as mg
    >>> mg.softplus(mg.Tensor([0.0, 1000.0], dtype="float64"))
    Tensor([6.93147181e-01, 1.00000000e+03], dtype=float64)
    """
    return of_input(x, mg_map_softplus, softplus_rule, "softplus")

cdef int softplus_rule(Node node, Tensor dy) except -1:
    cdef Tensor x = saved(node, 0), dx
    if node.run.create_graph:
        dx = mul(dy, sigmoid(x))
    else:
        dx = map2_same(dy, x, mg_map2_softplus_grad, "softplus")
    return node.give(0, dx, True)


# ---------------------------------------------------------------- operators and methods of Tensor

operators.add = <Binary>add
operators.sub = <Binary>sub
operators.mul = <Binary>mul
operators.div = <Binary>div
operators.pow = <Binary>pow
operators.neg = <Unary>neg
operators.abs = <Unary>abs
for _function in (abs, exp, log, sqrt, sin, cos, tanh, sigmoid, relu, softplus):
    install(_function.__name__, _function)
