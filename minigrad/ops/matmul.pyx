# cython: language_level=3, initializedcheck=False, cdivision=True
"""Matrix products: `matmul` for vectors, matrices and batches of them, and `addmm`, a product that
goes on from a value.

Every element of a product is one chain of fused multiply-adds (docs/design.md), and the rules
accumulate into the gradient that is already there: for the weights of a recurrent loop the whole
sum over the steps is one such chain.
"""
cimport numpy as cnp
from libc.stddef cimport ptrdiff_t
from minigrad.ops.elementwise cimport add, mul
from minigrad.core.kernels cimport array_of_shape, mg_kernels, products
from minigrad.core.array cimport kernels_of
from minigrad.core.tape cimport record2, recordn, save0, save1
from minigrad.core.tensor cimport (
    Node,
    Operators,
    Tensor,
    as_input,
    as_operand,
    operators,
    tracked,
    tracked2,
    wrap,
)

import numpy as np

from minigrad.core.tensor import install

cnp.import_array()


cdef int accumulate_product(cnp.ndarray c, cnp.ndarray a, cnp.ndarray b) except -1:
    """c += a b over broadcast batch dimensions; a batch stride of zero in c sums over that
    dimension, ascending.

    Shapes (..., m, n), (..., m, k), (..., k, n) with equal numbers of dimensions. Batch dimensions
    that only lengthen m, n or k are folded into the product, so that e.g. (T, B, I) @ (I, H) is one
    product.
    """
    cdef const mg_kernels *K = kernels_of(c)
    cdef int nd = cnp.PyArray_NDIM(c) - 2, d
    cdef ptrdiff_t item = K.itemsize
    cdef ptrdiff_t shape[64]
    cdef ptrdiff_t sa[64]
    cdef ptrdiff_t sb[64]
    cdef ptrdiff_t sc[64]
    cdef ptrdiff_t counter[64]
    cdef size_t m = cnp.PyArray_DIM(c, nd), n = cnp.PyArray_DIM(c, nd + 1), k = cnp.PyArray_DIM(a, nd + 1)
    cdef ptrdiff_t rsa = cnp.PyArray_STRIDE(a, nd) // item, csa = cnp.PyArray_STRIDE(a, nd + 1) // item
    cdef ptrdiff_t rsb = cnp.PyArray_STRIDE(b, nd) // item, csb = cnp.PyArray_STRIDE(b, nd + 1) // item
    cdef ptrdiff_t rsc = cnp.PyArray_STRIDE(c, nd) // item, csc = cnp.PyArray_STRIDE(c, nd + 1) // item
    cdef char *pa = <char *>cnp.PyArray_DATA(a)
    cdef char *pb = <char *>cnp.PyArray_DATA(b)
    cdef char *pc = <char *>cnp.PyArray_DATA(c)
    for d in range(nd):
        shape[d] = max(cnp.PyArray_DIM(a, d), cnp.PyArray_DIM(b, d))
        if cnp.PyArray_DIM(a, d) == 0 or cnp.PyArray_DIM(b, d) == 0:
            return 0
        sa[d] = cnp.PyArray_STRIDE(a, d) // item if cnp.PyArray_DIM(a, d) != 1 else 0
        sb[d] = cnp.PyArray_STRIDE(b, d) // item if cnp.PyArray_DIM(b, d) != 1 else 0
        sc[d] = cnp.PyArray_STRIDE(c, d) // item if cnp.PyArray_DIM(c, d) != 1 else 0
        counter[d] = 0
    if m == 0 or n == 0 or k == 0:
        return 0
    while nd > 0:
        d = nd - 1
        if shape[d] == 1:
            pass
        elif sb[d] == 0 and sa[d] == rsa * <ptrdiff_t>m and sc[d] == rsc * <ptrdiff_t>m:
            m *= shape[d]
        elif sc[d] == 0 and sa[d] == csa * <ptrdiff_t>k and sb[d] == rsb * <ptrdiff_t>k:
            k *= shape[d]
        elif sa[d] == 0 and sb[d] == csb * <ptrdiff_t>n and sc[d] == csc * <ptrdiff_t>n:
            n *= shape[d]
        else:
            break
        nd -= 1
    # The last dimension left is one batch in C; the others are counted through here.
    nd -= 1
    cdef size_t count = shape[nd] if nd >= 0 else 1
    cdef ptrdiff_t bsa = sa[nd] if nd >= 0 else 0, bsb = sb[nd] if nd >= 0 else 0, bsc = sc[nd] if nd >= 0 else 0
    with nogil:
        while True:
            products(K, count, m, n, k, pa, bsa, rsa, csa, pb, bsb, rsb, csb, pc, bsc, rsc, csc)
            d = nd - 1
            while d >= 0:
                counter[d] += 1
                pa += sa[d] * item
                pb += sb[d] * item
                pc += sc[d] * item
                if counter[d] < shape[d]:
                    break
                pa -= sa[d] * item * shape[d]
                pb -= sb[d] * item * shape[d]
                pc -= sc[d] * item * shape[d]
                counter[d] = 0
                d -= 1
            if d < 0:
                break
    return 0


cdef inline cnp.ndarray transposed(cnp.ndarray x):
    return x.swapaxes(-1, -2)


cdef cnp.ndarray widened(cnp.ndarray x, int nd):
    """x with leading dimensions of 1, up to nd."""
    return x if cnp.PyArray_NDIM(x) == nd else x.reshape((1,) * (nd - cnp.PyArray_NDIM(x)) + (<object>x).shape)


cdef tuple product_shape(cnp.ndarray a, cnp.ndarray b, str op, Tensor given_a, Tensor given_b):
    """The shape of a b for matrices or batches of matrices."""
    cdef object shape_a = (<object>a).shape, shape_b = (<object>b).shape
    if shape_a[-1] != shape_b[-2]:
        raise ValueError(f"{op}: shapes cannot be multiplied: {'x'.join(map(str, given_a.shape))} and "
                         f"{'x'.join(map(str, given_b.shape))} (the last of a must equal the last but one of b)")
    if len(shape_a) == 2 and len(shape_b) == 2:
        return shape_a[0], shape_b[1]
    try:
        batch = np.broadcast_shapes(shape_a[:-2], shape_b[:-2])
    except ValueError:
        raise ValueError(f"{op}: batch dimensions could not be broadcast together with shapes "
                         f"{given_a.shape} {given_b.shape}") from None
    return batch + (shape_a[-2], shape_b[-1])


cdef int give_product(Node node, Py_ssize_t i, Tensor input, cnp.ndarray a, cnp.ndarray b) except -1:
    """Add a b, summed over broadcast batch dimensions, to the gradient of `input`, input i of the
    op; input is a matrix or a batch."""
    cdef cnp.ndarray buffer = node.buffer(i, input.shape, cnp.PyArray_TYPE(input._array))._array
    cdef int nd = max(cnp.PyArray_NDIM(a), cnp.PyArray_NDIM(b))
    a, b = widened(a, nd), widened(b, nd)
    return accumulate_product(widened(buffer, nd), a, b)


# z = a b          da = dz b^T, db = a^T dz        (slide: the linear layer x W)

cpdef Tensor matmul(a, b):
    """The product a @ b of vectors, matrices, or broadcast batches of matrices, as in NumPy.

    >>> import minigrad as mg
    >>> mg.matmul(mg.Tensor([[1.0, 2.0]]), mg.Tensor([[3.0], [4.0]]))
    Tensor([[11.]])
    """
    cdef Tensor x, y
    if isinstance(a, Tensor):
        x, y = <Tensor>a, as_operand(b, <Tensor>a, "matmul")
    else:
        y = as_input(b, "matmul")
        x = as_operand(a, y, "matmul")
    cdef int nd = cnp.PyArray_NDIM(x._array), md = cnp.PyArray_NDIM(y._array)
    if nd == 0 or md == 0:
        raise ValueError(f"matmul: both operands must have at least one dimension, got shapes {x.shape} and {y.shape}")
    if nd == 1 or md == 1:
        return matmul_vector(x, y, nd, md)
    cdef tuple shape = product_shape(x._array, y._array, "matmul", x, y)
    cdef Tensor z = wrap(array_of_shape(shape, cnp.PyArray_TYPE(x._array), True))
    accumulate_product(z._array, widened(x._array, len(shape)), widened(y._array, len(shape)))
    if tracked2(x, y):
        node = record2(z, matmul_rule, "matmul", x, y)
        save0(node, x)
        save1(node, y)
    return z

cdef Tensor matmul_vector(Tensor x, Tensor y, int nd, int md):
    """A vector is a row on the left, a column on the right."""
    cdef object a = x, b = y
    if (x.shape[-1]) != (y.shape[-2] if md > 1 else y.shape[0]):
        raise ValueError(f"matmul: shapes cannot be multiplied: {'x'.join(map(str, x.shape))} and {'x'.join(map(str, y.shape))}")
    if nd == 1:
        a = a.reshape((1, -1))
    if md == 1:
        b = b.reshape((-1, 1))
    z = matmul(a, b)
    shape = z.shape
    return (<object>z).reshape((shape[:-2] + (shape[-1:] if md > 1 else ())) if nd == 1 else shape[:-1])

cdef int matmul_rule(Node node, Tensor dz) except -1:
    cdef Tensor a = node.get0(), b = node.get1()
    if node.run.create_graph:
        if node.wants(0):
            node.give_unbroadcast(0, matmul(dz, (<object>b).swapaxes(-1, -2)), a.shape, False)
        if node.wants(1):
            node.give_unbroadcast(1, matmul((<object>a).swapaxes(-1, -2), dz), b.shape, False)
        return 0
    if node.wants(0):
        give_product(node, 0, a, dz._array, transposed(b._array))
    if node.wants(1):
        give_product(node, 1, b, transposed(a._array), dz._array)
    return 0


# z = c + a b      dc = dz (summed where c was broadcast), da = dz b^T, db = a^T dz

cpdef Tensor addmm(c, a, b):
    """c + a @ b, each element being one chain of fused multiply-adds that starts from c's.

    c broadcasts to the shape of the product: a bias, or a product that is to be continued. a is
    (..., m, k), b is (k, n). The gates of a recurrent cell are ``addmm(addmm(b, x, W), h, U)`` = b
    + x W + h U.

    >>> import minigrad as mg
    >>> mg.addmm(mg.Tensor([0.5]), mg.Tensor([[1.0, 2.0]]), mg.Tensor([[3.0], [4.0]]))
    Tensor([[11.5]])
    """
    cdef Tensor y = as_input(b, "addmm"), x = as_operand(a, y, "addmm"), start = as_operand(c, y, "addmm")
    if cnp.PyArray_NDIM(x._array) < 2 or cnp.PyArray_NDIM(y._array) != 2:
        raise ValueError(f"addmm: a must have at least 2 dimensions and b must have 2, got shapes {x.shape} and {y.shape}")
    cdef tuple shape = product_shape(x._array, y._array, "addmm", x, y)
    cdef cnp.ndarray value = array_of_shape(shape, cnp.PyArray_TYPE(y._array), False)
    try:
        np.copyto(value, start._array)
    except ValueError:
        raise ValueError(f"addmm: c must broadcast to the product's shape {shape}, got {start.shape}") from None
    cdef Tensor z = wrap(value)
    accumulate_product(value, x._array, widened(y._array, len(shape)))
    if tracked2(start, x) or tracked(y):
        node = recordn(z, addmm_rule, "addmm", (start, x, y))
        save0(node, x)
        save1(node, y)
        node.extra = start.shape
    return z

cdef int addmm_rule(Node node, Tensor dz) except -1:
    cdef Tensor a = node.get0(), b = node.get1()
    if node.run.create_graph:
        if node.wants(1):
            node.give(1, matmul(dz, (<object>b).swapaxes(-1, -2)), False)
        if node.wants(2):
            node.give_unbroadcast(2, matmul((<object>a).swapaxes(-1, -2), dz), b.shape, False)
    else:
        if node.wants(1):
            give_product(node, 1, a, dz._array, transposed(b._array))
        if node.wants(2):
            give_product(node, 2, b, transposed(a._array), dz._array)
    return node.give_unbroadcast(0, dz, node.extra, False)


cdef Tensor operator_matmul(object a, object b):
    return matmul(a, b)

operators.matmul = operator_matmul
install("matmul", matmul)
