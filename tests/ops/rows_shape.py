"""Rows of the table of ops for minigrad/ops/shape.pyx and join.pyx."""

import numpy as np
from op_table import Op

import minigrad as mg


def cases(*listed):
    """Samples from (shape, options), or (list of shapes, options) for several inputs."""

    def samples(rng, dtype):
        made = []
        for shapes, options in listed:
            shapes = shapes if isinstance(shapes, list) else [shapes]
            made.append((*(np.asarray(rng.normal(size=shape), dtype) for shape in shapes), options))
        return made

    return samples


def ones(*shape, dtype=np.float32):
    return mg.ones(shape, dtype)


ROWS = [
    Op(
        "reshape",
        mg.reshape,
        lambda x, shape: x.reshape(shape),
        cases(
            ((3, 4), {"shape": (2, -1)}),
            ((), {"shape": (1, 1)}),
            ((2, 0, 3), {"shape": (0, 6)}),
            ((6,), {"shape": 6}),
            ((2, 3, 4), {"shape": [-1, 2]}),
            ((1, 1), {"shape": ()}),
        ),
        [
            (
                lambda: mg.reshape(ones(6), (4, -1)),
                ValueError,
                r"reshape: shape \(4, -1\) is invalid for a tensor of shape \(6,\) with 6 elements",
            ),
            (
                lambda: mg.reshape(ones(6), (-2, 3)),
                ValueError,
                r"reshape: shape must have no negative dimension but one -1, got \(-2, 3\)",
            ),
            (lambda: mg.reshape(ones(6), (-1, -1)), ValueError, r"reshape: .* got \(-1, -1\)"),
            (
                lambda: mg.reshape(ones(6), (2.0, 3)),
                TypeError,
                "reshape: shape must be made of ints",
            ),
            (
                lambda: mg.reshape(ones(6), None),
                TypeError,
                "reshape: shape must be made of ints, got None",
            ),
            (lambda: mg.reshape(ones(6), (2**63, 2)), ValueError, "reshape: shape .* is invalid"),
            (
                lambda: mg.reshape(ones(0), (-1, 0)),
                ValueError,
                r"reshape: shape \(-1, 0\) is invalid",
            ),
            (lambda: mg.reshape(ones(0), (0, 2**70)), ValueError, "reshape: shape .* is invalid"),
            (lambda: mg.reshape(ones(1), (1,) * 65), ValueError, "reshape: shape .* is invalid"),
        ],
        view=True,
    ),
    Op(
        "transpose",
        mg.transpose,
        np.transpose,
        cases(
            ((3, 4), {}),
            ((2, 3, 4), {"axes": (2, 0, 1)}),
            ((), {}),
            ((2, 0, 3), {"axes": (1, -1, 0)}),
        ),
        [
            (
                lambda: mg.transpose(ones(2, 3), (0, 2)),
                ValueError,
                r"transpose: axis must be from -2 to 1 for an input of 2 dimensions, got \(0, 2\)",
            ),
            (
                lambda: mg.transpose(ones(2, 3), (0, 0)),
                ValueError,
                r"transpose: axis must not name a dimension twice, got \(0, 0\)",
            ),
            (
                lambda: mg.transpose(ones(2, 3), (0,)),
                ValueError,
                "transpose: axes must name each of the 2 dimensions once",
            ),
            (
                lambda: mg.transpose(ones(2, 3), (0, 1.0)),
                TypeError,
                r"transpose: axis must be None, an int or a tuple of ints, got \(0, 1.0\)",
            ),
        ],
        view=True,
    ),
    Op(
        "swapaxes",
        mg.swapaxes,
        np.swapaxes,
        cases(
            ((2, 3, 4), {"axis1": 0, "axis2": -1}),
            ((3, 0), {"axis1": 0, "axis2": 1}),
            ((3,), {"axis1": 0, "axis2": 0}),
        ),
        [
            (
                lambda: mg.swapaxes(ones(2, 3), 0, 2),
                ValueError,
                "swapaxes: axis must be from -2 to 1 for an input of 2 dimensions, got 2",
            ),
            (
                lambda: mg.swapaxes(ones(2, 3), -3, 1),
                ValueError,
                "swapaxes: axis must be from -2 to 1 for an input of 2 dimensions, got -3",
            ),
            (
                lambda: mg.swapaxes(ones(2, 3), 0, None),
                TypeError,
                "swapaxes: axis must be an int, got NoneType",
            ),
        ],
        view=True,
    ),
    Op(
        "squeeze",
        mg.squeeze,
        np.squeeze,
        cases(((1, 3, 1), {}), ((1, 3, 1), {"axis": 0}), ((1, 0, 1), {"axis": (0, -1)}), ((), {})),
        [
            (
                lambda: mg.squeeze(ones(2, 1), 0),
                ValueError,
                r"squeeze: axis 0 must have length 1, got shape \(2, 1\)",
            ),
            (
                lambda: mg.squeeze(ones(2, 1), 2),
                ValueError,
                "squeeze: axis must be from -2 to 1 for an input of 2 dimensions, got 2",
            ),
            (
                lambda: mg.squeeze(ones(1, 1), (0, 0)),
                ValueError,
                r"squeeze: axis must not name a dimension twice, got \(0, 0\)",
            ),
        ],
        view=True,
    ),
    Op(
        "unsqueeze",
        mg.unsqueeze,
        lambda x, axis: np.expand_dims(x, axis),
        cases(((3, 4), {"axis": 1}), ((), {"axis": 0}), ((0, 2), {"axis": -1})),
        [
            (
                lambda: mg.unsqueeze(ones(2), 2),
                ValueError,
                "unsqueeze: axis must be from -2 to 1 for an input of 2 dimensions, got 2",
            ),
            (
                lambda: mg.unsqueeze(ones(2), -3),
                ValueError,
                "unsqueeze: axis must be from -2 to 1 for an input of 2 dimensions, got -3",
            ),
            (
                lambda: mg.unsqueeze(ones(2), 0.0),
                TypeError,
                "unsqueeze: axis must be an int, got float",
            ),
            (
                lambda: mg.unsqueeze(ones(*[1] * 64), 0),
                ValueError,
                "unsqueeze: the result would have more than 64 dimensions",
            ),
        ],
        view=True,
    ),
    Op(
        "broadcast_to",
        mg.broadcast_to,
        np.broadcast_to,
        cases(
            ((3,), {"shape": (2, 3)}),
            ((2, 1), {"shape": (4, 2, 3)}),
            ((), {"shape": (2,)}),
            ((2, 3), {"shape": (2, 3)}),
            ((1, 3, 1), {"shape": (2, 0, 3, 2)}),
            ((0, 1), {"shape": (0, 3)}),
        ),
        [
            (
                lambda: mg.broadcast_to(ones(3), (2, 4)),
                ValueError,
                r"broadcast_to: a tensor of shape \(3,\) cannot be broadcast to \(2, 4\)",
            ),
            (lambda: mg.broadcast_to(ones(3), (-1,)), ValueError, "broadcast_to: "),
            (lambda: mg.broadcast_to(ones(3), "a"), TypeError, "broadcast_to: "),
            (
                lambda: mg.broadcast_to(ones(2, 3), 3),
                ValueError,
                r"broadcast_to: a tensor of shape \(2, 3\) cannot be broadcast to \(3,\)",
            ),
        ],
        view=True,
    ),
    Op(
        "flip",
        mg.flip,
        np.flip,
        cases(
            ((3, 4), {}),
            ((3, 4), {"axis": 1}),
            ((2, 3, 4), {"axis": (0, -1)}),
            ((0, 3), {"axis": 0}),
        ),
        [
            (
                lambda: mg.flip(ones(3), 1),
                ValueError,
                "flip: axis must be from -1 to 0 for an input of 1 dimensions, got 1",
            ),
            (
                lambda: mg.flip(ones(3), (0, 0)),
                ValueError,
                r"flip: axis must not name a dimension twice, got \(0, 0\)",
            ),
            (
                lambda: mg.flip(ones(3), "x"),
                TypeError,
                "flip: axis must be None, an int or a tuple of ints, got 'x'",
            ),
        ],
        view=True,
    ),
    Op(
        "cumsum",
        mg.cumsum,
        np.cumsum,
        cases(((5,), {"axis": 0}), ((3, 4), {"axis": -1}), ((3, 0), {"axis": 0})),
        [
            (
                lambda: mg.cumsum(ones(3), 1),
                ValueError,
                "cumsum: axis must be from -1 to 0 for an input of 1 dimensions, got 1",
            ),
            (
                lambda: mg.cumsum(ones(), 0),
                ValueError,
                "cumsum: a 0-d input has no axis, got axis 0",
            ),
            (
                lambda: mg.cumsum(ones(3), None),
                TypeError,
                "cumsum: axis must be an int, got NoneType",
            ),
            (lambda: mg.cumsum(ones(3), True), TypeError, "cumsum: axis must be an int, got bool"),
        ],
    ),
    Op(
        "pad",
        mg.pad,
        lambda x, widths, value=0.0: np.pad(x, widths, constant_values=value),
        cases(
            ((3,), {"widths": [(1, 2)]}),
            ((2, 3), {"widths": [(0, 1), (2, 0)], "value": 1.5}),
            ((0, 2), {"widths": [(1, 1), (0, 0)]}),
        ),
        [
            (lambda: mg.pad(ones(3), [(1, 2), (1, 2)]), ValueError, "pad: widths must be 1 pairs"),
            (
                lambda: mg.pad(ones(3), [(-1, 2)]),
                ValueError,
                "pad: widths must be 1 pairs of ints that are not negative",
            ),
            (lambda: mg.pad(ones(3), 1), TypeError, "pad: widths must be a pair"),
            (
                lambda: mg.pad(ones(3), [(1, 1)], "x"),
                TypeError,
                "pad: value must be a number, got str",
            ),
        ],
    ),
    Op(
        "concatenate",
        lambda *tensors, axis: mg.concatenate(tensors, axis),
        lambda *arrays, axis: np.concatenate(arrays, axis),
        cases(
            ([(2, 3), (4, 3)], {"axis": 0}),
            ([(2, 3), (2, 1), (2, 2)], {"axis": -1}),
            ([(0, 3), (2, 3)], {"axis": 0}),
            ([(3,)], {"axis": 0}),
            ([(2, 3, 2), (2, 1, 2), (2, 0, 2)], {"axis": 1}),
        ),
        [
            (
                lambda: mg.concatenate([]),
                ValueError,
                "concatenate: tensors must hold at least one Tensor",
            ),
            (
                lambda: mg.concatenate([ones(2, 3), ones(2, 4)]),
                ValueError,
                r"concatenate: all tensors must have the shape of the first, \(2, 3\)",
            ),
            (lambda: mg.concatenate([ones(2), ones(2, 4)]), ValueError, "concatenate: all tensors"),
            (
                lambda: mg.concatenate([ones(2), ones(2)], 1),
                ValueError,
                "concatenate: axis must be from -1 to 0 for an input of 1 dimensions, got 1",
            ),
            (
                lambda: mg.concatenate([ones(2), ones(2, dtype=np.float64)]),
                TypeError,
                "concatenate: both operands must have one dtype",
            ),
            (lambda: mg.concatenate(ones(2)), TypeError, "concatenate: tensors must be a sequence"),
        ],
    ),
    Op(
        "stack",
        lambda *tensors, axis: mg.stack(tensors, axis),
        lambda *arrays, axis: np.stack(arrays, axis),
        cases(
            ([(2, 3), (2, 3)], {"axis": 0}),
            ([(3,), (3,), (3,)], {"axis": -1}),
            ([(), ()], {"axis": 0}),
            ([(0, 3)], {"axis": 1}),
            ([(2, 3), (2, 3)], {"axis": 1}),
            ([(2, 3), (2, 3), (2, 3)], {"axis": -1}),
        ),
        [
            (lambda: mg.stack([]), ValueError, "stack: tensors must hold at least one Tensor"),
            (
                lambda: mg.stack([ones(2), ones(3)]),
                ValueError,
                r"stack: all tensors must have the shape of the first, \(2,\); tensor 1 has \(3,\)",
            ),
            (
                lambda: mg.stack([ones(2), ones(2)], 2),
                ValueError,
                "stack: axis must be from -2 to 1 for an input of 2 dimensions, got 2",
            ),
            (
                lambda: mg.stack([ones(2), None]),
                TypeError,
                "stack: data must be numbers, got NoneType",
            ),
            (
                lambda: mg.stack(None),
                TypeError,
                "stack: tensors must be a sequence of Tensors, got NoneType",
            ),
        ],
    ),
    Op(
        "split",
        lambda x, **options: tuple(mg.split(x, **options)),
        lambda x, parts, axis=0: tuple(
            np.split(x, parts if np.ndim(parts) == 0 else np.cumsum(parts)[:-1], axis)
        ),
        cases(
            ((6,), {"parts": 3}),
            ((2, 5), {"parts": [1, 0, 4], "axis": -1}),
            ((0, 4), {"parts": 2, "axis": 1}),
        ),
        [
            (
                lambda: mg.split(ones(5), 2),
                ValueError,
                "split: axis 0 of length 5 cannot be cut into 2 equal parts",
            ),
            (
                lambda: mg.split(ones(5), [2, 2]),
                ValueError,
                "split: parts must be lengths that add up to 5",
            ),
            (lambda: mg.split(ones(5), 0), ValueError, "split: axis 0"),
            (
                lambda: mg.split(ones(5), [6, -1]),
                ValueError,
                "split: parts must be lengths that add up to 5",
            ),
            (
                lambda: mg.split(ones(5), 2.0),
                TypeError,
                "split: parts must be an int or a list of ints",
            ),
        ],
        view=True,
    ),
    Op(
        "astype",
        lambda x: mg.astype(mg.astype(x, np.float64) * 1.0, x.dtype),
        lambda x: x,
        lambda rng, dtype: [(rng.normal(size=(3, 4)).astype(dtype),), (np.zeros((0, 2), dtype),)],
        [
            (
                lambda: mg.astype(ones(2), np.int64),
                TypeError,
                "astype: dtype must be float32 or float64, got int64",
            ),
            (
                lambda: mg.astype(ones(2), "x"),
                TypeError,
                "astype: dtype must be float32 or float64, got 'x'",
            ),
            (
                lambda: mg.astype(ones(2), np.complex64),
                TypeError,
                "astype: dtype must be float32 or float64, got complex64",
            ),
        ],
    ),
]
