"""Rows of the table of ops for minigrad/ops/index.pyx: x[index], x[index] = value, embedding."""

import numpy as np
from op_table import Op
from rows_shape import cases, ones

import minigrad as mg


def assigned(x, value, index):
    """Assignment as a function: into a copy of x, made by an op."""
    y = x * 1.0
    y[index] = value
    return y


def assigned_ref(x, value, index):
    y = x.copy() if np.iscomplexobj(value) <= np.iscomplexobj(x) else x.astype(value.dtype)
    y[index] = value
    return y


MASK = np.array(
    [[True, False, True, False], [False, False, True, True], [False, False, False, False]]
)
ROWS = [
    Op(
        "embedding",
        mg.embedding,
        lambda weight, indices: weight[indices],
        cases(
            ((4, 3), {"indices": np.array([[0, 3], [3, 3]])}),
            ((4, 3), {"indices": np.array(2)}),
            ((4, 0), {"indices": np.array([1, 2])}),
            ((2, 3), {"indices": np.zeros((0, 2), np.int64)}),
        ),
        [
            (
                lambda: mg.embedding(ones(4, 3), [0, 4]),
                IndexError,
                r"embedding: indices must be from 0 to 3, got 4 at position \(1,\)",
            ),
            (
                lambda: mg.embedding(ones(4, 3), [[0], [-1]]),
                IndexError,
                r"embedding: indices must be from 0 to 3, got -1 at position \(1, 0\)",
            ),
            (
                lambda: mg.embedding(ones(4, 3), [0.0]),
                TypeError,
                "embedding: indices must be integers, got float64",
            ),
            (
                lambda: mg.embedding(ones(4, 3), ones(1)),
                TypeError,
                "embedding: a Tensor of floats cannot index",
            ),
            (
                lambda: mg.embedding(ones(4, 3), None),
                TypeError,
                "embedding: indices must be integers, got object",
            ),
            (
                lambda: mg.embedding(ones(4, 3), np.array([True])),
                TypeError,
                "embedding: indices must be integers, got bool",
            ),
            (
                lambda: mg.embedding(ones(4, 3), np.array([2**64 - 1], np.uint64)),
                IndexError,
                r"embedding: .* got 18446744073709551615 at position \(0,\)",
            ),
            (
                lambda: mg.embedding(ones(4, 3), np.ma.masked_array([1], [1])),
                TypeError,
                "embedding: indices must not be a masked array",
            ),
            (
                lambda: mg.embedding(ones(4, 3), [[0], [1, 2]]),
                IndexError,
                "embedding: indices is ragged or not an array",
            ),
            (
                lambda: mg.embedding(ones(4), [0]),
                ValueError,
                r"embedding: weight must have shape \(N, D\), got \(4,\)",
            ),
        ],
    ),
    Op(
        "index[basic]",
        lambda x, index: x[index],
        lambda x, index: x[index],
        cases(
            ((3, 4), {"index": 1}),
            ((3, 4), {"index": -1}),
            ((3, 4), {"index": slice(None, None, -2)}),
            ((5,), {"index": 2}),
            ((3, 4), {"index": (slice(1, 3), None, 2)}),
            ((2, 3, 4), {"index": (Ellipsis, 1)}),
            ((2, 0), {"index": 0}),
            ((), {"index": Ellipsis}),
        ),
        [
            (lambda: ones(3)[3], IndexError, "index 3 is out of bounds for axis 0 with size 3"),
            (
                lambda: ones(3)[-4],
                IndexError,
                r"index: index -4 is out of bounds for axis 0 with size 3, in a tensor of shape "
                r"\(3,\)",
            ),
            (
                lambda: ones(3)[10**30],
                IndexError,
                "index: index 1000000000000000000000000000000 is out of bounds for axis 0 with "
                "size 3",
            ),
            (
                lambda: ones()[0],
                IndexError,
                "index: too many indices: the tensor has 0 dimensions, but 1 were indexed",
            ),
            (
                lambda: ones(3)[..., ...],
                IndexError,
                "index: an index can only have a single ellipsis",
            ),
            (lambda: ones(3)[::0], ValueError, "index: slice step cannot be zero"),
            (lambda: ones(3)["a":], TypeError, "index: slice indices must be integers"),
            (
                lambda: ones(3)[(None,) * 64],
                IndexError,
                "index: the result would have more than 64 dimensions",
            ),
            (lambda: ones(3)[1.0], IndexError, "index: only integers, slices"),
            (lambda: ones(3)[0, 0], IndexError, "too many indices"),
            (lambda: ones(3)["a"], IndexError, "index: "),
            (lambda: ones(3)[ones(1)], TypeError, "index: a Tensor of floats cannot index"),
        ],
        view=True,
    ),
    Op(
        "index[advanced]",
        lambda x, index: x[index],
        lambda x, index: x[index],
        cases(
            ((5, 2), {"index": np.array([0, 0, -1, 3])}),
            ((5, 2), {"index": ([0, 4, 4], [1, 0, 0])}),
            ((3, 4), {"index": MASK}),
            ((3, 4), {"index": (slice(None), np.array([1, 1]))}),
            ((3, 4), {"index": [2, 0]}),
            ((3, 0), {"index": np.array([1, 1])}),
            ((3, 2), {"index": np.array([], np.int64)}),
            ((3, 2), {"index": []}),
            ((3, 2), {"index": [True, False, True]}),
            ((2, 3), {"index": True}),
            ((2, 3), {"index": np.array(1)}),
            ((2, 3, 4), {"index": ([1, 1], None, slice(None, None, 2), [0, 0])}),
            ((2, 3, 4), {"index": (Ellipsis, np.array([[0, 1], [1, 1]]))}),
            ((3, 2), {"index": np.array([[2, 2], [0, 2]], np.uint8)}),
            ((3, 4), {"index": (MASK.any(0)[:3], np.int64(1))}),
            ((4,), {"index": range(1, 3)}),
        ),
        [
            (
                lambda: ones(3)[np.array([0, 3])],
                IndexError,
                r"index: index 3 is out of bounds for axis 0 with size 3, at position \(1,\) of "
                r"the index",
            ),
            (
                lambda: ones(3)[np.array([[0], [-4]])],
                IndexError,
                r"index: index -4 is out of bounds .* position \(1, 0\)",
            ),
            (
                lambda: ones(3)[np.array([2**64 - 1], np.uint64)],
                IndexError,
                "index: index 18446744073709551615 is out of bounds",
            ),
            (
                lambda: ones(3, 2)[:, [2]],
                IndexError,
                r"index: index 2 is out of bounds for axis 1 with size 2, in a tensor of shape "
                r"\(3, 2\)",
            ),
            (lambda: ones(3)[[[0], [1, 2]]], IndexError, "index: index is ragged or not an array"),
            (
                lambda: ones(3)[np.ma.masked_array([0, 1], [0, 1])],
                TypeError,
                "index: a masked array cannot index",
            ),
            (
                lambda: ones(3)[np.array([0.0])],
                IndexError,
                "arrays used as indices must be of integer",
            ),
            (lambda: ones(3)[np.array([True])], IndexError, "boolean index did not match"),
        ],
    ),
    Op(
        "assignment",
        assigned,
        assigned_ref,
        cases(
            ([(3, 4), (4,)], {"index": 1}),
            ([(3, 4), ()], {"index": (slice(None), slice(0, 2))}),
            ([(3, 4), (2, 1)], {"index": slice(1, 3)}),
            ([(5,), (3,)], {"index": np.array([4, 0, 1])}),
            ([(3, 4), (4,)], {"index": MASK}),
            ([(5,), (4,)], {"index": np.array([1, 1, 3, 1])}),
            ([(3, 4), (3, 1)], {"index": (slice(None, None, -1), slice(1, None, 2))}),
            ([(2, 3), (2,)], {"index": ([0, 0], [1, 1])}),
            ([(2, 3), ()], {"index": Ellipsis}),
            ([(), ()], {"index": ()}),
            ([(0, 2), (2,)], {"index": slice(None)}),
        ),
        [
            (
                lambda: assigned(ones(3), ones(2), slice(None)),
                ValueError,
                "assignment: could not broadcast",
            ),
            (
                lambda: assigned(ones(3), ones(1, 3), slice(None)),
                ValueError,
                r"assignment: could not broadcast a value of shape \(1, 3\) into a place of shape "
                r"\(3,\)",
            ),
            (
                lambda: assigned(ones(3), ones(2), [0, 1, 2]),
                ValueError,
                "assignment: could not broadcast",
            ),
            (
                lambda: assigned(ones(3), ones(), [0, 3]),
                IndexError,
                "assignment: index 3 is out of bounds",
            ),
            (
                lambda: assigned(ones(3), np.arange(3), slice(None)),
                TypeError,
                "assignment: data has dtype int64",
            ),
            (
                lambda: assigned(ones(3), None, 0),
                TypeError,
                "assignment: data must be numbers, got NoneType",
            ),
            (
                lambda: assigned(ones(3), 1.0, ones(1)),
                TypeError,
                "assignment: a Tensor of floats cannot index",
            ),
            (
                lambda: assigned(ones(3), ones(), 3),
                IndexError,
                "assignment: index 3 is out of bounds",
            ),
            (
                lambda: assigned(ones(3), ones(dtype=np.float64), 0),
                TypeError,
                "assignment: both operands must have one dtype",
            ),
            (lambda: assigned(ones(3), "x", 0), TypeError, "assignment: data must be numbers"),
        ],
    ),
]
