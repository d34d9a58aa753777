"""What may become the data of a Tensor, or stand beside one: lists of Tensors, masks, numbers
beyond float, odd objects, giant shapes."""

import array
import math
from collections import UserList, deque

import numpy as np
import pytest

import minigrad as mg


def leaf(value):
    return mg.Tensor(np.array(value, np.float32), requires_grad=True)


# ---------------------------------------------------------------- data made of Tensors


def object_array(*tensors):
    found = np.empty(len(tensors), object)
    for k, tensor in enumerate(tensors):
        found[k] = tensor
    return found


CONTAINERS = {
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (a, b),
    "nested": lambda a, b: [[a, b], [b, a]],
    "mixed": lambda a, b: [1.0, a],
    "deep": lambda a, b: [[[1.0, 2.0]], [[3.0, b]]],
    "object array": object_array,
    "list of arrays": lambda a, b: [object_array(a), [1.0]],
    "deque": lambda a, b: deque([a, b]),
    "UserList": lambda a, b: UserList([a, b]),
    "dict": lambda a, b: {"a": a},
    "set": lambda a, b: {a, b},
}
CALLS = {
    "Tensor": lambda x, data: mg.Tensor(data),
    "Tensor dtype": lambda x, data: mg.Tensor(data, dtype="float64"),
    "Parameter": lambda x, data: mg.nn.Parameter(data),
    "mean": lambda x, data: mg.mean(data),
    "sum": lambda x, data: mg.sum(data),
    "exp": lambda x, data: mg.exp(data),
    "softmax": lambda x, data: mg.softmax(data),
    "reshape": lambda x, data: mg.reshape(data, -1),
    "max": lambda x, data: mg.max(data),
    "add": lambda x, data: x + data,
    "radd": lambda x, data: (
        data + x
        if not hasattr(data, "__add__") or isinstance(data, np.ndarray)
        else mg.add(data, x)
    ),
    "mul": lambda x, data: mg.mul(data, x),
    "maximum": lambda x, data: mg.maximum(x, data),
    "pow": lambda x, data: x**data,
    "matmul": lambda x, data: x @ data,
    "addmm": lambda x, data: mg.addmm(data, mg.ones((1, 2)), mg.ones((2, 2))),
    "where a": lambda x, data: mg.where(x > 0, data, x),
    "where b": lambda x, data: mg.where(x > 0, x, data),
    "where condition": lambda x, data: mg.where(data, x, x),
    "assignment": lambda x, data: mg.zeros(2).__setitem__(slice(None), data),
    "+=": lambda x, data: mg.zeros(2).__iadd__(data),
    "index": lambda x, data: x[data],
    "index in a tuple": lambda x, data: x[..., data],
    "mse": lambda x, data: mg.mse(x, data),
    "mse input": lambda x, data: mg.mse(data, x),
    "huber": lambda x, data: mg.huber(x, data),
    "cross_entropy": lambda x, data: mg.cross_entropy(data, 0),
    "target": lambda x, data: mg.cross_entropy(mg.ones((2, 2)), data),
    "weight": lambda x, data: mg.cross_entropy(x, 0, weight=data),
    "embedding": lambda x, data: mg.embedding(mg.ones((2, 2)), data),
    "stack": lambda x, data: mg.stack([data, data]),
    "concatenate": lambda x, data: mg.concatenate([x, data]),
    "pad": lambda x, data: mg.pad(data, [(1, 1)]),
    "dropout": lambda x, data: mg.dropout(data, 0.5),
    "backward": lambda x, data: (x * 2.0).backward(data),
    "Function": lambda x, data: Twice.apply(data),
}


class Twice(mg.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    def backward(ctx, dy):
        return dy * 2.0


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_data_made_of_tensors_is_refused(call, container, requires_grad):
    x, (a, b) = (
        leaf([1.0, 2.0]),
        [mg.Tensor(value, requires_grad=requires_grad) for value in (3.0, 4.0)],
    )
    data = CONTAINERS[container](a, b)
    if call == "Function" and not isinstance(data, (list, tuple, dict, set)):
        return  # any object may be an argument; these five are looked through
    if (
        call in ("index", "index in a tuple")
        and isinstance(data, (dict, set, deque, UserList))
        or call == "index"
        and isinstance(data, tuple)
    ):
        with pytest.raises(TypeError):
            CALLS[call](x, data)
        return
    with pytest.raises(
        TypeError,
        match=r"must not be made of Tensors, they would lose their gradient: join them with "
        r"mg\.stack",
    ):
        CALLS[call](x, data)


def test_lists_of_tensors_where_they_belong():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    assert mg.stack([a, b]).shape == (2, 2) and mg.concatenate((a, b)).shape == (4,)
    assert mg.grad([a.sum(), b.sum()], [a, b])[1].shape == (2,)


# ---------------------------------------------------------------- masks

MASKED = [
    np.ma.array([1.0, 2.0], mask=[0, 1], dtype=np.float32),
    [np.ma.array([1.0, 2.0], mask=[0, 1])],
    (np.ma.array(1.0), 2.0),
    np.ma.masked,
    [np.ma.masked, 1.0],
]


@pytest.mark.parametrize("data", MASKED)
@pytest.mark.parametrize(
    "call", sorted(set(CALLS) - {"Function", "index in a tuple", "index", "stack"})
)
def test_masked_arrays_are_refused(call, data):
    with pytest.raises(TypeError, match="masked array"):
        CALLS[call](leaf([1.0, 2.0]), data)


def test_masked_conditions_targets_and_lengths_are_refused():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    mask = np.ma.array([[True, False], [False, True]], mask=[[0, 1], [0, 0]])
    whole = np.ma.array([0, 1], mask=[0, 1])
    for call in (
        lambda: mg.where(mask, x, 0.0),
        lambda: mg.where([mask[0], mask[1]], x, 0.0),
        lambda: mg.where(x > 0, x, np.ma.array(x.numpy())),
        lambda: mg.cross_entropy(x, whole),
        lambda: mg.cross_entropy(x, [whole[0], whole[1]]),
        lambda: x[whole],
        lambda: x[mask],
        lambda: x[[whole]],
        lambda: mg.embedding(x, whole),
        lambda: mg.stack(np.ma.array(x.numpy())),
        lambda: mg.nn.GRU(2, 2)(mg.ones((3, 2, 2)), lengths=whole),
        lambda: mg.nn.GRU(2, 2)(mg.ones((3, 2, 2)), lengths=[whole[0], whole[1]]),
    ):
        with pytest.raises(TypeError, match="masked array"):
            call()


# ---------------------------------------------------------------- bool and int arrays


def test_masks_times_tensors():
    x = leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    mask = np.array([True, False, True])
    v = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    for y, factor in (
        (x * mask, mask),
        (mask * x, mask),
        (x * (x > 2), x.numpy() > 2),
        ((x > 2) * x, x.numpy() > 2),
        (np.True_ * x, 1),
        (x * True, 1),
        (False * x, 0),
        (x * mask.tolist(), mask),
        (x * np.bool_(False), 0),
    ):
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, x.numpy() * factor)
        x.grad = None
        y.backward(mg.Tensor(v))
        np.testing.assert_array_equal(x.grad, v * factor)
    np.testing.assert_array_equal(x + mask, x.numpy() + mask)
    np.testing.assert_array_equal(~mask + x * 0, np.broadcast_to(~mask, (2, 3)))
    np.testing.assert_array_equal(mg.matmul(x, mask), x.numpy() @ mask)
    z = mg.zeros((2, 3))
    z[0] = mask
    z += mask
    np.testing.assert_array_equal(z, [[2, 0, 2], [1, 0, 1]])
    for number in (np.float64(2.5), np.int64(2), np.uint8(2), np.float16(0.5), np.longdouble(2)):
        assert (x * number).dtype == np.float32 == (number * x).dtype
        np.testing.assert_array_equal((number * x).numpy(), x.numpy() * np.float32(number))
    for integers in (np.array([1, 2, 3]), np.array(2), [np.int64(1)] * 3):
        if isinstance(integers, list):
            assert (x * integers).dtype == np.float32
        else:
            with pytest.raises(
                TypeError,
                match="mul: data has dtype int64, supported are float32 and float64: convert it",
            ):
                x * integers


# ---------------------------------------------------------------- one number


def test_formats_and_rounding_of_one_number():
    for loss in (mg.Tensor(2.34567), mg.Tensor([[2.34567]], dtype="float64")):
        assert (
            f"{loss:.3f}" == "2.346"
            and f"{loss:8.1e}" == " 2.3e+00"
            and "{:>7.2f}".format(loss) == "   2.35"
        )
        assert (
            round(loss, 2) == pytest.approx(2.35)
            and round(loss) == 2
            and isinstance(round(loss), int)
        )
        assert (
            math.floor(loss) == 2
            and math.ceil(loss) == 3
            and math.trunc(loss) == 2 == int(loss)
            and complex(loss).imag == 0
        )
        assert f"{loss}" == str(loss) and "%.2f" % loss == "2.35"
    with pytest.raises(
        TypeError,
        match=r"format: only a tensor of one element takes a format such as '\.3f', this has shape "
        r"\(2,\)",
    ):
        f"{mg.ones(2):.3f}"
    for function in (round, math.floor, int, math.trunc, float):
        with pytest.raises(ValueError, match=r"only a tensor of one element can be converted"):
            function(mg.ones(2))
    for value in (math.inf, math.nan):
        for function in (int, round, math.trunc):
            with pytest.raises(ValueError, match="cannot be converted to an int"):
                function(mg.Tensor(value))


def test_in():
    x = mg.Tensor([1.0, 2.0])
    assert 2.0 in x and 3.0 not in x and np.float32(1) in x and mg.Tensor(2.0) in x
    for value in ("a", None, object(), b"1"):
        with pytest.raises(
            TypeError, match=f"in: a tensor holds numbers, got {type(value).__name__}"
        ):
            value in x


# --------------------------------------------------------------- numbers and sizes beyond what fits

HUGE = [10**400, -(10**400), 2**5000]


@pytest.mark.parametrize("number", HUGE)
def test_numbers_beyond_float(number):
    x = leaf([1.0, 2.0])
    calls = [
        lambda: x + number,
        lambda: number - x,
        lambda: x**number,
        lambda: number / x,
        lambda: mg.maximum(x, number),
        lambda: mg.where(x > 0, x, number),
        lambda: mg.ones(2).__setitem__(0, number),
        lambda: mg.ones(2).__imul__(number),
        lambda: mg.Tensor(number),
        lambda: mg.Tensor([number]),
        lambda: mg.Tensor(number, dtype="float64"),
        lambda: x * [number, 1],
        lambda: mg.mse(x, [number, 1]),
        lambda: x > number,
        lambda: x == number,
        lambda: number in x,
        lambda: mg.pad(x, [(1, 1)], number),
        lambda: mg.clip(x, high=number),
        lambda: mg.clip(x, low=number),
    ]
    for k, call in enumerate(calls):
        with pytest.raises(ValueError, match=r"^\w+|^\*=.*: .*beyond the range of floats"):
            call()
            pytest.fail(f"call {k}")
    assert np.isposinf((x * 1e300).numpy()).all() and np.isposinf((x + math.inf).numpy()).all()
    np.testing.assert_array_equal(mg.Tensor([2**64, 2**70]), np.float32([2**64, 2**70]))


@pytest.mark.parametrize("n", [2**31, 2**62, 2**63, 2**64, 10**30, -(2**63), -(10**30)])
def test_sizes_axes_and_indices_beyond_what_fits(n):
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    for call in (
        lambda: x[n],
        lambda: x[0, n],
        lambda: x[[n]],
        lambda: x[[0, n]],
        lambda: x.__getitem__((..., n)),
        lambda: mg.embedding(x, [n]),
        lambda: mg.ones(2).__setitem__(n, 1.0),
        lambda: mg.cross_entropy(x, [0, n]),
    ):
        with pytest.raises((IndexError, TypeError)):
            call()
    for call in (
        lambda: x.sum(n),
        lambda: x.max(axis=(0, n)),
        mg.argmax and (lambda: mg.argmax(x, n)),
        lambda: mg.softmax(x, n),
        lambda: mg.cumsum(x, n),
        lambda: x.transpose((0, n)),
        lambda: x.swapaxes(0, n),
        lambda: x.flip(n),
        lambda: x.squeeze(n),
        lambda: x.unsqueeze(n),
        lambda: mg.stack([x], n),
        lambda: mg.concatenate([x], n),
        lambda: x.split(1, n),
        lambda: x.split(n),
        lambda: x.split([n, 2]),
        lambda: x.reshape(n),
        lambda: x.reshape((n, -1)),
        lambda: x.broadcast_to((n, 3, 2)),
    ):
        with pytest.raises(ValueError):
            call()
    for call in (
        lambda: mg.zeros(n),
        lambda: mg.ones((2, n)),
        lambda: mg.pad(x, [(n, 0), (0, 0)]),
        lambda: mg.zeros((0, 2)).split(abs(n)),
        lambda: mg.dropout_mask((n, 2**20), 0.5),
    ):
        if n < 2**31 or n >= 2**62:
            with pytest.raises((ValueError, MemoryError)):
                call()
    x[:n], x[-n:], x[::n]
    assert mg.var(x, ddof=0).requires_grad
    with pytest.raises((ValueError, TypeError)):
        mg.var(x, ddof=10**30)


@pytest.mark.parametrize("n", [2**31, 2**63, 10**30])
def test_sizes_of_layers_beyond_what_fits(n):
    for call in (
        lambda: mg.nn.LSTM(2, 3, num_layers=n),
        lambda: mg.nn.GRU(n, 3),
        lambda: mg.nn.RNN(2, n),
        lambda: mg.nn.Linear(n, 2),
        lambda: mg.nn.Embedding(2, n),
    ):
        with pytest.raises(ValueError, match=f"must be below 2 \\*\\* 31, got {n}"):
            call()


def test_expanded_views_of_giant_shapes():
    for shape in ((2**40, 2**30), (2**62, 2), (2**63,)):
        with pytest.raises(
            ValueError, match="broadcast_to: shape .* has too many elements to be addressed"
        ):
            mg.ones(1).broadcast_to(shape)
    giant = mg.ones(1).broadcast_to((2**30, 2**27))
    for call in (
        lambda: giant + 1.0,
        lambda: mg.tanh(giant),
        lambda: giant.sum(),
        lambda: giant.mean(0),
        lambda: giant.reshape(-1) * 2.0,
        lambda: mg.concatenate([giant] * 3),
        lambda: mg.stack([giant]),
        lambda: giant.cumsum(0),
        lambda: giant.astype("float64"),
        lambda: mg.softmax(giant),
        lambda: giant[[0] * 4096],
        lambda: mg.Tensor(giant.numpy()) if False else giant.max(1),
    ):
        with pytest.raises((MemoryError, ValueError)):
            call()
    row, column = mg.ones(1).broadcast_to((1, 2**31)), mg.ones(1).broadcast_to((2**31, 1))
    for call in (
        lambda: row + column,
        lambda: mg.where(np.True_, row, column),
        lambda: column @ row,
        lambda: mg.maximum(row, column),
    ):
        with pytest.raises((MemoryError, ValueError)):
            call()
    for join in (mg.concatenate, mg.stack):
        with pytest.raises(
            ValueError, match=f"{join.__name__}: shape .* has too many elements to be addressed"
        ):
            join([giant] * 64)
    long = mg.ones(1).broadcast_to(2**59)
    with pytest.raises(ValueError, match="concatenate: shape .* too many elements"):
        mg.concatenate([long] * 32)


# ---------------------------------------------------------------- odd objects


class Evil:
    """Its special methods do what `act` does."""

    def __init__(self, act):
        self.act = act

    def __array__(self, dtype=None, copy=None):
        return self.act()

    def __index__(self):
        return self.act()

    __len__ = __float__ = __index__


def raise_(error):
    raise error


ACTS = [
    lambda: raise_(KeyError("k")),
    lambda: raise_(ZeroDivisionError()),
    lambda: raise_(OverflowError("o")),
    lambda: raise_(SystemError("s")),
    lambda: raise_(RecursionError()),
    lambda: None,
    lambda: "text",
    lambda: [1.0, 2.0],
    lambda: np.array(["a"]),
    lambda: np.array([None]),
    lambda: np.array([1j]),
    lambda: np.zeros(2, [("a", "f4")]),
    lambda: mg.ones(2),
    lambda: np.ma.masked_array([1.0], [True]),
    lambda: np.array([mg.ones(1), None], object),
]


@pytest.mark.parametrize("act", ACTS)
def test_odd_objects_get_documented_exceptions(act):
    x, evil = leaf([[1.0, 2.0], [3.0, 4.0]]), Evil(act)
    calls = [
        lambda: mg.Tensor(evil),
        lambda: mg.Tensor([evil]),
        lambda: x + evil,
        lambda: mg.sum(evil),
        lambda: mg.ones(2).__setitem__(0, evil),
        lambda: mg.zeros(evil),
        lambda: mg.zeros((evil, 2)),
        lambda: x.sum(evil),
        lambda: x.sum((0, evil)),
        lambda: x.reshape(evil),
        lambda: x.reshape((evil, 2)),
        lambda: x.transpose((evil, 0)),
        lambda: x.flip(evil),
        lambda: x[evil],
        lambda: x[evil:],
        lambda: x[0, evil],
        lambda: x.split(evil),
        lambda: x.split([evil]),
        lambda: mg.pad(x, [(evil, 0), (0, 0)]),
        lambda: mg.pad(x, evil),
        lambda: mg.where(evil, x, x),
        lambda: mg.cross_entropy(x, evil),
        lambda: mg.embedding(x, evil),
        lambda: x.broadcast_to(evil),
        lambda: mg.softmax(x, evil),
        lambda: mg.var(x, ddof=evil),
        lambda: mg.stack([x], evil),
        lambda: mg.cumsum(x, evil),
        lambda: mg.Tensor(1.0, dtype=evil),
        lambda: mg.stack(evil),
        lambda: x.swapaxes(evil, 0),
        lambda: x.unsqueeze(evil),
    ]
    for k, call in enumerate(calls):
        with pytest.raises((TypeError, ValueError, IndexError)):
            call()
            pytest.fail(f"call {k} gave a result")


def test_a_list_that_holds_itself():
    loop = []
    loop.append(loop)
    for call in (
        lambda: mg.Tensor(loop),
        lambda: mg.ones(2) + loop,
        lambda: mg.ones(2)[loop],
        lambda: mg.where(loop, 1.0, mg.ones(2)),
        lambda: mg.cross_entropy(mg.ones((2, 2)), loop),
    ):
        with pytest.raises((ValueError, TypeError, IndexError)):
            call()


def test_arrays_of_every_layout(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6) + 1
    raw = np.zeros(4 * 24 + 1, np.uint8)
    misaligned = raw[1:].view(np.float32).reshape(4, 6)
    misaligned[...] = base
    packed = np.zeros((4, 6), [("a", "u1"), ("x", "f4")])["x"]
    packed[...] = base
    memmap = np.memmap(tmp_path / "m", np.float32, "w+", shape=(4, 6))
    memmap[...] = base
    locked = base.copy()
    locked.flags.writeable = False
    for a in (
        base,
        np.asfortranarray(base),
        misaligned,
        packed,
        memmap,
        locked,
        base.astype(">f4"),
        base[::-1, ::-1][::-1, ::-1],
    ):
        x = leaf(np.ones((4, 6)))
        y = x * a + a
        np.testing.assert_array_equal(y.numpy(), base + base)
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), base)
        np.testing.assert_array_equal(mg.Tensor(a).numpy(), base)
        np.testing.assert_array_equal(mg.Tensor(a, copy=False).T.numpy(), base.T)
    assert mg.Tensor(array.array("f", [1.0, 2.0])).shape == (2,)
    for a in (
        base.astype(np.float16),
        base.astype(np.longdouble),
        base.astype(complex),
        base.astype("U"),
        base.astype("M8[s]"),
        np.zeros(2, "V4"),
    ):
        for call in (lambda a=a: mg.Tensor(a), lambda a=a: x + a, lambda a=a: mg.sum(a)):
            with pytest.raises(TypeError):
                call()
    with pytest.raises(TypeError, match="add: operands must be real numbers, got timedelta64"):
        x + np.timedelta64(1, "s")
    np.testing.assert_array_equal(
        (leaf([1.0, 2.0]) * np.broadcast_to(np.float32(3), (2, 2))).numpy(), [[3, 6], [3, 6]]
    )
