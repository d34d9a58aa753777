# cython: language_level=3, initializedcheck=False, cdivision=True
"""Matrix products: `matmul` for vectors, matrices and batches of them, and `addmm`, a product that
goes on from a value.

Every element of a product is one chain of fused multiply-adds (docs/design.md), and the rules
accumulate into the gradient that is already there: for the weights of a recurrent loop the whole
sum over the steps is one such chain.
"""
cimport numpy as cnp
from libc.stddef cimport ptrdiff_t
from minigrad.core.array cimport kernels_of
from minigrad.core.kernels cimport MAX_DIMS, array_of_shape, csrc, mg_kernels
from minigrad.core.operands cimport as_input, as_operand
from minigrad.core.tape cimport record2, recordn, save, saved
from minigrad.core.tensor cimport (
    Binary,
    Node,
    Tensor,
    operators,
    tracked,
    tracked2,
    wrap,
)

import numpy as np

from minigrad.core.tensor import install

cnp.import_array()


cdef struct Product:
    # A product of batches of matrices. Strides count elements.
    int nd                      # batch dimensions
    ptrdiff_t shape[MAX_DIMS]   # of the batch
    ptrdiff_t sa[MAX_DIMS]      # from one of the batch to the next, in a, b and c
    ptrdiff_t sb[MAX_DIMS]
    ptrdiff_t sc[MAX_DIMS]
    size_t m, n, k              # of each: (m, n) += (m, k) (k, n)
    ptrdiff_t rsa, csa, rsb, csb, rsc, csc      # of rows and columns


cdef int accumulate_product(cnp.ndarray c, cnp.ndarray a, cnp.ndarray b) except -1:
    """c += a b over broadcast batch dimensions; a batch stride of zero in c sums over that
    dimension, ascending.

    Shapes (..., m, n), (..., m, k), (..., k, n) with equal numbers of dimensions.
    """
    cdef const mg_kernels *K = kernels_of(c)
    cdef int nd = cnp.PyArray_NDIM(c) - 2, d
    cdef ptrdiff_t item = K.itemsize
    cdef Product p
    p.nd = nd
    p.m = cnp.PyArray_DIM(c, nd)
    p.n = cnp.PyArray_DIM(c, nd + 1)
    p.k = cnp.PyArray_DIM(a, nd + 1)
    p.rsa = cnp.PyArray_STRIDE(a, nd) // item
    p.csa = cnp.PyArray_STRIDE(a, nd + 1) // item
    p.rsb = cnp.PyArray_STRIDE(b, nd) // item
    p.csb = cnp.PyArray_STRIDE(b, nd + 1) // item
    p.rsc = cnp.PyArray_STRIDE(c, nd) // item
    p.csc = cnp.PyArray_STRIDE(c, nd + 1) // item
    for d in range(nd):
        p.shape[d] = max(cnp.PyArray_DIM(a, d), cnp.PyArray_DIM(b, d))
        if cnp.PyArray_DIM(a, d) == 0 or cnp.PyArray_DIM(b, d) == 0:
            return 0
        p.sa[d] = cnp.PyArray_STRIDE(a, d) // item if cnp.PyArray_DIM(a, d) != 1 else 0
        p.sb[d] = cnp.PyArray_STRIDE(b, d) // item if cnp.PyArray_DIM(b, d) != 1 else 0
        p.sc[d] = cnp.PyArray_STRIDE(c, d) // item if cnp.PyArray_DIM(c, d) != 1 else 0
    if p.m == 0 or p.n == 0 or p.k == 0:
        return 0
    fold_batch(&p)
    cdef char *pa = <char *>cnp.PyArray_DATA(a)
    cdef char *pb = <char *>cnp.PyArray_DATA(b)
    cdef char *pc = <char *>cnp.PyArray_DATA(c)
    with nogil:
        run_product(K, &p, pa, pb, pc)
    return 0


cdef void fold_batch(Product *p) noexcept:
    """Batch dimensions that only lengthen m, n or k become part of the product, so that e.g.
    (T, B, I) @ (I, H) is one product."""
    cdef int d
    while p.nd > 0:
        d = p.nd - 1
        if p.shape[d] == 1:
            pass
        elif (p.sb[d] == 0 and p.sa[d] == p.rsa * <ptrdiff_t>p.m
                and p.sc[d] == p.rsc * <ptrdiff_t>p.m):
            p.m *= p.shape[d]
        elif (p.sc[d] == 0 and p.sa[d] == p.csa * <ptrdiff_t>p.k
                and p.sb[d] == p.rsb * <ptrdiff_t>p.k):
            p.k *= p.shape[d]
        elif (p.sa[d] == 0 and p.sb[d] == p.csb * <ptrdiff_t>p.n
                and p.sc[d] == p.csc * <ptrdiff_t>p.n):
            p.n *= p.shape[d]
        else:
            return
        p.nd -= 1


cdef void run_product(const mg_kernels *K, const Product *p, char *a, char *b,
                      char *c) noexcept nogil:
    """The last batch dimension is one call into C; the others are counted through here."""
    cdef int last = p.nd - 1, d
    cdef size_t count = p.shape[last] if p.nd else 1
    cdef ptrdiff_t bsa = p.sa[last] if p.nd else 0
    cdef ptrdiff_t bsb = p.sb[last] if p.nd else 0
    cdef ptrdiff_t bsc = p.sc[last] if p.nd else 0
    cdef ptrdiff_t item = K.itemsize
    cdef ptrdiff_t counter[MAX_DIMS]
    for d in range(last):
        counter[d] = 0
    while True:
        csrc.gemm_batched(K, count, p.m, p.n, p.k, a, bsa, p.rsa, p.csa, b, bsb, p.rsb, p.csb,
                          c, bsc, p.rsc, p.csc)
        d = last - 1
        while d >= 0:
            counter[d] += 1
            a += p.sa[d] * item
            b += p.sb[d] * item
            c += p.sc[d] * item
            if counter[d] < p.shape[d]:
                break
            a -= p.sa[d] * item * p.shape[d]
            b -= p.sb[d] * item * p.shape[d]
            c -= p.sc[d] * item * p.shape[d]
            counter[d] = 0
            d -= 1
        if d < 0:
            return


cdef inline cnp.ndarray transposed(cnp.ndarray x):
    return x.swapaxes(-1, -2)


cdef cnp.ndarray widened(cnp.ndarray x, int nd):
    """x with leading dimensions of 1, up to nd."""
    cdef int lead = nd - cnp.PyArray_NDIM(x)
    return x.reshape((1,) * lead + (<object>x).shape) if lead else x


cdef tuple product_shape(cnp.ndarray a, cnp.ndarray b, str op, Tensor given_a, Tensor given_b):
    """The shape of a b for matrices or batches of matrices."""
    cdef object shape_a = (<object>a).shape, shape_b = (<object>b).shape
    if shape_a[-1] != shape_b[-2]:
        raise ValueError(f"{op}: shapes cannot be multiplied: {by_x(given_a)} and {by_x(given_b)} "
                         f"(the last of a must equal the last but one of b)")
    if len(shape_a) == 2 and len(shape_b) == 2:
        return shape_a[0], shape_b[1]
    try:
        batch = np.broadcast_shapes(shape_a[:-2], shape_b[:-2])
    except ValueError:
        raise ValueError(f"{op}: batch dimensions could not be broadcast together with shapes "
                         f"{given_a.shape} {given_b.shape}") from None
    return batch + (shape_a[-2], shape_b[-1])


cdef str by_x(Tensor x):
    """A shape as 2x3."""
    return "x".join(map(str, x.shape))


cdef int give_product(Node node, Py_ssize_t i, Tensor input, cnp.ndarray a,
                      cnp.ndarray b) except -1:
    """Add a b, summed over broadcast batch dimensions, to the gradient of `input`, input i of the
    op; input is a matrix or a batch."""
    cdef cnp.ndarray buffer = node.buffer(i, input.shape, cnp.PyArray_TYPE(input._array))._array
    cdef int nd = max(cnp.PyArray_NDIM(a), cnp.PyArray_NDIM(b))
    a, b = widened(a, nd), widened(b, nd)
    return accumulate_product(widened(buffer, nd), a, b)


# z = a b          da = dz b^T, db = a^T dz        (slide: the linear layer x W)

cpdef Tensor matmul(a, b):
    """The product a @ b of vectors, matrices, or broadcast batches of matrices, as in NumPy.

    Args:
        a: (..., m, k), or a vector (k,).
        b: (..., k, n), or a vector (k,). The leading axes broadcast.

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not fit.

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
        raise ValueError(f"matmul: both operands must have at least one dimension, "
                         f"got shapes {x.shape} and {y.shape}")
    if nd == 1 or md == 1:
        return matmul_vector(x, y, nd, md)
    cdef tuple shape = product_shape(x._array, y._array, "matmul", x, y)
    cdef Tensor z = wrap(array_of_shape(shape, cnp.PyArray_TYPE(x._array), True))
    accumulate_product(z._array, widened(x._array, len(shape)), widened(y._array, len(shape)))
    if tracked2(x, y):
        node = record2(z, matmul_rule, "matmul", x, y)
        save(node, 0, x)
        save(node, 1, y)
    return z

cdef Tensor matmul_vector(Tensor x, Tensor y, int nd, int md):
    """A vector is a row on the left, a column on the right."""
    cdef object a = x, b = y
    if x.shape[-1] != (y.shape[-2] if md > 1 else y.shape[0]):
        raise ValueError(f"matmul: shapes cannot be multiplied: {by_x(x)} and {by_x(y)}")
    if nd == 1:
        a = a.reshape((1, -1))
    if md == 1:
        b = b.reshape((-1, 1))
    cdef object z = matmul(a, b)
    cdef tuple shape = z.shape          # (..., m, n), and the vector's dimension goes again
    if md == 1:
        shape = shape[:-1]
    if nd == 1:
        shape = shape[:-1] if md == 1 else shape[:-2] + shape[-1:]
    return z.reshape(shape)

cdef int matmul_rule(Node node, Tensor dz) except -1:
    cdef Tensor a = saved(node, 0), b = saved(node, 1)
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

    Args:
        c: Broadcasts to the shape of the product: a bias, or a product that is to be continued.
        a: (..., m, k).
        b: (k, n).

    Raises:
        TypeError, ValueError: The dtypes differ, or the shapes do not fit.

    >>> import minigrad as mg
    >>> mg.addmm(mg.Tensor([0.5]), mg.Tensor([[1.0, 2.0]]), mg.Tensor([[3.0], [4.0]]))
    Tensor([[11.5]])
    """
    cdef Tensor y = as_input(b, "addmm")
    cdef Tensor x = as_operand(a, y, "addmm"), start = as_operand(c, y, "addmm")
    if cnp.PyArray_NDIM(x._array) < 2 or cnp.PyArray_NDIM(y._array) != 2:
        raise ValueError(f"addmm: a must have at least 2 dimensions and b must have 2, "
                         f"got shapes {x.shape} and {y.shape}")
    cdef tuple shape = product_shape(x._array, y._array, "addmm", x, y)
    cdef cnp.ndarray value = array_of_shape(shape, cnp.PyArray_TYPE(y._array), False)
    try:
        np.copyto(value, start._array)
    except ValueError:
        raise ValueError(f"addmm: c must broadcast to the product's shape {shape}, "
                         f"got {start.shape}") from None
    cdef Tensor z = wrap(value)
    accumulate_product(value, x._array, widened(y._array, len(shape)))
    if tracked2(start, x) or tracked(y):
        node = recordn(z, addmm_rule, "addmm", (start, x, y))
        save(node, 0, x)
        save(node, 1, y)
        node.extra = start.shape
    return z

cdef int addmm_rule(Node node, Tensor dz) except -1:
    cdef Tensor a = saved(node, 0), b = saved(node, 1)
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
    if node.wants(0):
        node.give_unbroadcast(0, dz, node.extra, False)
    return 0


operators.matmul = <Binary>matmul
install("matmul", matmul)
