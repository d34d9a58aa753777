"""Bad input of Tensor, of creation, of binary ops and of the autograd's state: each gets its
exception and a message.

TypeError: wrong type or dtype. ValueError: wrong shape or value. RuntimeError: state of the
autograd. Bad input of the ops is in the table of ops (rows_*.py, `errors`); hooks, cycles, depth
and changes in place are in test_autograd.py, test_hooks.py and test_changes_in_place.py.
"""

import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest

import minigrad as mg

SUPPORTED = "supported are float32 and float64"


def x(*shape):
    return mg.ones(shape, requires_grad=True)


class HasArray:
    """What is not an ndarray but can become one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def matrix(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(data)


CASES = {
    # making a Tensor
    "int array": (
        lambda: mg.Tensor(np.arange(3)),
        TypeError,
        f"Tensor: data has dtype int64, {SUPPORTED}",
    ),
    "bool array": (
        lambda: mg.Tensor(np.ones(3, bool)),
        TypeError,
        f"Tensor: data has dtype bool, {SUPPORTED}",
    ),
    "numpy int": (
        lambda: mg.Tensor(np.int64(3)),
        TypeError,
        f"Tensor: data has dtype int64, {SUPPORTED}",
    ),
    "float16": (
        lambda: mg.Tensor(np.ones(3, np.float16)),
        TypeError,
        f"Tensor: data has dtype float16, {SUPPORTED}",
    ),
    "longdouble": (
        lambda: mg.Tensor(np.ones(3, np.longdouble)),
        TypeError,
        f"Tensor: data has dtype \\w+, {SUPPORTED}",
    ),
    "complex": (
        lambda: mg.Tensor(np.ones(3, complex)),
        TypeError,
        f"Tensor: data has dtype complex128, {SUPPORTED}",
    ),
    "complex list": (
        lambda: mg.Tensor([1j, 2]),
        TypeError,
        "Tensor: data must be numbers, got list of complex128",
    ),
    "complex number": (
        lambda: mg.Tensor(1j),
        TypeError,
        "Tensor: data must be numbers, got complex of complex128",
    ),
    "complex to float64": (
        lambda: mg.Tensor(np.ones(3, complex), dtype=np.float64),
        TypeError,
        "Tensor: data of dtype complex128 cannot become float64: only real numbers can",
    ),
    "object array": (
        lambda: mg.Tensor(np.array([1, None])),
        TypeError,
        f"Tensor: data has dtype object, {SUPPORTED}",
    ),
    "object list": (
        lambda: mg.Tensor([1.0, None]),
        TypeError,
        "Tensor: data must be numbers, got list of object",
    ),
    "objects to float32": (
        lambda: mg.Tensor(np.array([1, None]), dtype=np.float32),
        TypeError,
        "Tensor: data of dtype object",
    ),
    "dates": (
        lambda: mg.Tensor(np.array(["2024-01-01"], "M8[D]")),
        TypeError,
        "Tensor: data has dtype datetime64",
    ),
    "records": (lambda: mg.Tensor(np.zeros(2, [("a", "f4")])), TypeError, "Tensor: data has dtype"),
    "str": (lambda: mg.Tensor("1.0"), TypeError, "Tensor: data must be numbers, got str"),
    "bytes": (lambda: mg.Tensor(b"1.0"), TypeError, "Tensor: data must be numbers, got bytes"),
    "list of str": (
        lambda: mg.Tensor(["1.0"]),
        TypeError,
        "Tensor: data must be numbers, got list",
    ),
    "None": (lambda: mg.Tensor(None), TypeError, "Tensor: data must be numbers, got NoneType"),
    "set": (lambda: mg.Tensor({1.0, 2.0}), TypeError, "Tensor: data must be numbers, got set"),
    "dict": (lambda: mg.Tensor({}), TypeError, "Tensor: data must be numbers, got dict"),
    "nothing": (lambda: mg.Tensor(), TypeError, "data|argument"),
    "ragged": (lambda: mg.Tensor([[1.0], [1.0, 2.0]]), ValueError, "Tensor: data is ragged"),
    "ragged deeper": (lambda: mg.Tensor([[1.0, 2.0], 3.0]), ValueError, "Tensor: data is ragged"),
    "masked array": (
        lambda: mg.Tensor(np.ma.masked_array([1.0, 2.0], [0, 1])),
        TypeError,
        "Tensor: data must not be a masked array, the mask would be lost",
    ),
    "list with a masked array": (
        lambda: mg.Tensor([np.ma.masked_array([1.0, 2.0], [0, 1])]),
        TypeError,
        "masked array",
    ),
    "masked behind __array__": (
        lambda: mg.Tensor(HasArray(np.ma.masked_array([1.0, 2.0], [0, 1]))),
        TypeError,
        "masked array",
    ),
    "__array__ of int": (
        lambda: mg.Tensor(HasArray(np.arange(3))),
        TypeError,
        f"Tensor: data has dtype int64, {SUPPORTED}",
    ),
    "dtype int": (
        lambda: mg.Tensor([1.0], dtype=int),
        TypeError,
        "Tensor: dtype must be float32 or float64, got int64",
    ),
    "dtype float16": (
        lambda: mg.Tensor([1.0], dtype="float16"),
        TypeError,
        "Tensor: dtype must be .* got float16",
    ),
    "dtype nonsense": (
        lambda: mg.Tensor([1.0], dtype="nonsense"),
        TypeError,
        "Tensor: dtype must be .* got 'nonsense'",
    ),
    "misspelt keyword": (lambda: mg.Tensor([1.0], require_grad=True), TypeError, "require_grad"),
    # creation
    "zeros of an overflowing size": (
        lambda: mg.zeros((2**40, 2**30)),
        ValueError,
        r"zeros: shape \(1099511627776, 1073741824\) has too many elements to be addressed",
    ),
    "overflow beside an empty dimension": (
        lambda: mg.ones((2**40, 2**30, 0)),
        ValueError,
        "ones: shape .* too many",
    ),
    "more than there is": (
        lambda: mg.zeros(2**46),
        MemoryError,
        r"zeros: cannot allocate 281474976710656 bytes for shape \(70368744177664,\) and dtype "
        r"float32",
    ),
    "negative dimension": (
        lambda: mg.zeros((2, -1)),
        ValueError,
        r"zeros: .* negative dimensions, got \(2, -1\)",
    ),
    "float dimension": (
        lambda: mg.zeros(2.5),
        TypeError,
        "zeros: shape must be made of ints, got 2.5",
    ),
    "float in a shape": (
        lambda: mg.ones((2, 3.0)),
        TypeError,
        r"ones: shape must be made of ints, got \(2, 3.0\)",
    ),
    "shape None": (
        lambda: mg.zeros(None),
        TypeError,
        "zeros: shape must be made of ints, got None",
    ),
    "shape str": (lambda: mg.zeros("23"), TypeError, "zeros: shape must be made of ints, got '23'"),
    "65 dimensions": (
        lambda: mg.zeros((1,) * 65),
        ValueError,
        "zeros: shape must have at most 64 dimensions, got 65",
    ),
    "zeros of int": (
        lambda: mg.zeros(2, int),
        TypeError,
        "zeros: dtype must be float32 or float64, got int64",
    ),
    # two operands
    "matmul": (
        lambda: x(2, 3) @ x(4, 5),
        ValueError,
        "matmul: shapes cannot be multiplied: 2x3 and 4x5",
    ),
    "matmul of a number": (
        lambda: x(2, 3) @ 2,
        ValueError,
        r"matmul: .*at least one dimension, got shapes \(2, 3\) and \(\)",
    ),
    "mixed dtypes": (
        lambda: x(2) + mg.ones(2, np.float64),
        TypeError,
        "add: .* one dtype, got float32 and float64: convert",
    ),
    "array of another dtype": (
        lambda: x(2) * np.ones(2),
        TypeError,
        "mul: .* one dtype, got float32 and float64: convert",
    ),
    "array first": (lambda: np.ones(2) - x(2), TypeError, "sub: both operands must have one dtype"),
    "int array operand": (
        lambda: x(2) * np.arange(2),
        TypeError,
        f"mul: data has dtype int64, {SUPPORTED}",
    ),
    "complex operand": (lambda: x(2) * 1j, TypeError, "mul: operands must be real, got complex"),
    "operand None": (lambda: x(2) + None, TypeError, "add: data must be numbers, got NoneType"),
    "operand str": (lambda: x(2) / "2", TypeError, "div: data must be numbers, got str"),
    "number beyond float64": (
        lambda: x(2) * 10**400,
        (TypeError, ValueError, OverflowError),
        "mul|large",
    ),
    "broadcast": (
        lambda: x(2, 3) + x(4, 5),
        ValueError,
        r"add: operands could not be broadcast together with shapes \(2, 3\) \(4, 5\)",
    ),
    "pow with a modulus": (lambda: pow(x(2), 2, 3), TypeError, "unsupported operand"),
    "reshape": (lambda: x(6).reshape((4, -1)), ValueError, r"reshape: .*\(4, -1\)"),
    "reshape negative": (lambda: x(6).reshape((-2, 3)), ValueError, r"reshape: .*\(-2, 3\)"),
    "reshape two unknowns": (lambda: x(6).reshape((-1, -1)), ValueError, r"reshape: .*\(-1, -1\)"),
    # state of the autograd
    "backward on a vector": (
        lambda: (x(3) * 2).backward(),
        RuntimeError,
        r"backward: .*only for a scalar, .* has shape \(3,\)",
    ),
    "backward without grad": (
        lambda: mg.ones(()).backward(),
        RuntimeError,
        "backward: the tensor does not require grad",
    ),
    "seed shape": (
        lambda: (x(3) * 2).backward(mg.ones(2)),
        ValueError,
        r"backward: gradient must have shape .* got \(2,\)",
    ),
    "seed that would broadcast": (
        lambda: (x(3) * 2).backward(1.0),
        ValueError,
        r"gradient must have shape \(3,\) .* got \(\)",
    ),
    "seed dtype": (
        lambda: (x(3) * 2).backward(np.ones(3)),
        TypeError,
        "backward: gradient must have dtype .* got float64",
    ),
    "seed str": (lambda: (x(3) * 2).backward("1"), TypeError, "data must be numbers, got str"),
    "grad set to an array": (lambda: setattr(x(3), "grad", np.ones(3)), TypeError, "Tensor"),
    "requires_grad off below": (
        lambda: (x(3) * 2).requires_grad_(False),
        RuntimeError,
        "requires_grad_: only a leaf",
    ),
    # a Tensor where Python wants a number, a truth value, a sequence
    "bool of a vector": (
        lambda: bool(x(2)),
        ValueError,
        r"truth value of a tensor of shape \(2,\) is ambiguous",
    ),
    "bool of an empty tensor": (lambda: bool(x(0)), ValueError, "ambiguous"),
    "item of a vector": (
        lambda: x(2).item(),
        ValueError,
        r"item: only a tensor of one element .* has shape \(2,\)",
    ),
    "float of a vector": (lambda: float(x(2)), ValueError, "only a tensor of one element"),
    "int of a vector": (lambda: int(x(2)), ValueError, "only a tensor of one element"),
    "len of 0-d": (lambda: len(x()), TypeError, r"len\(\) of unsized object"),
    "iter of 0-d": (lambda: iter(x()), TypeError, "iteration over a 0-d tensor"),
    "as an index": (lambda: [1, 2][mg.ones(())], TypeError, "indices must be integers"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_case(case):
    call, error, text = case
    with pytest.raises(error, match=text):
        call()


def test_nothing_changes_when_input_is_bad():
    """After each of the cases above an op, a sweep and the mode of recording are as they were."""
    for call, error, _ in CASES.values():
        with pytest.raises(error):
            call()
    a = x(2)
    (a * 3).backward(mg.ones(2))
    assert a.grad.tolist() == [3, 3] and mg.is_grad_enabled()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_odd_memory_becomes_a_tensor_with_the_same_bits(dtype):
    plain = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    memory = np.zeros(plain.nbytes + 1, np.uint8)
    shifted = np.ndarray(plain.shape, dtype, memory.data, offset=1)
    shifted[...] = plain
    locked = plain.copy()
    locked.flags.writeable = False
    within = np.zeros(
        3, [("a", np.uint8), ("b", dtype, 4)]
    )  # a stride that is no multiple of the item
    within["b"] = plain
    for array in (
        plain.astype(plain.dtype.newbyteorder()),
        np.flip(plain, 0).copy()[::-1],
        np.asfortranarray(plain),
        shifted,
        locked,
        within["b"],
        matrix(plain),
        plain.view(type("Sub", (np.ndarray,), {})),
        HasArray(plain),
        mg.Tensor(plain),
    ):
        for copy in (True, False):
            tensor = mg.Tensor(array, copy=copy)
            assert (
                type(tensor.numpy()) is np.ndarray
                and tensor.dtype == dtype
                and tensor.dtype.isnative
            )
            assert (
                tensor.shape == (3, 4)
                and tensor.numpy().tobytes() == plain.tobytes() == (tensor * 1).numpy().tobytes()
            )


def test_a_matrix_is_an_array_of_two_dimensions():
    m = matrix([[1.0, 2.0], [3.0, 4.0]])
    assert (mg.Tensor(m) * m).tolist() == [[1, 4], [9, 16]] and mg.matmul(m, m).tolist() == [
        [7, 10],
        [15, 22],
    ]


def test_read_only_memory_is_never_written():
    locked = np.array([1.0, 2.0])
    locked.flags.writeable = False
    shared = mg.Tensor(locked, copy=False)
    with pytest.raises(ValueError, match="read-only"):
        shared[0] = 5.0
    with pytest.raises(ValueError, match="read-only"):
        shared.requires_grad_().detach()[0] = 5.0
    (shared * shared).backward(np.ones(2))
    assert locked.tolist() == [1, 2]
    owned = mg.Tensor(locked)
    owned[0] = 5.0
    assert owned.tolist() == [5, 2] and locked.tolist() == [1, 2]


@pytest.mark.parametrize(
    "value, dtype",
    [
        (2, np.float32),
        (2.5, np.float32),
        (True, np.float32),
        ([1, 2], np.float32),
        ([], np.float32),
        ((1.0, 2), np.float32),
        (range(3), np.float32),
        (np.float32(2), np.float32),
        (np.float64(2), np.float64),
        (np.array(2.0), np.float64),
        ([np.float64(2), np.float64(3)], np.float64),
    ],
)
def test_numbers_and_scalars(value, dtype):
    tensor = mg.Tensor(value)
    assert (
        tensor.dtype == dtype
        and tensor.shape == np.shape(value)
        and tensor.tolist() == np.asarray(value, dtype).tolist()
    )
    for wanted in (np.float32, np.float64):
        assert mg.Tensor(value, dtype=wanted).dtype == wanted


def test_integers_convert_on_demand():
    assert mg.Tensor(np.arange(3), dtype=np.float64).tolist() == [0, 1, 2]
    assert mg.Tensor(np.array([True, False]), dtype=np.float32).tolist() == [1, 0]


def test_list_of_tensors():
    with pytest.raises(
        TypeError, match=r"Tensor: data must not be made of Tensors, .* join them with mg\.stack"
    ):
        mg.Tensor([mg.ones(2, np.float64), mg.zeros(2, np.float64)])


def test_other_libraries():
    torch = pytest.importorskip("torch")
    assert mg.Tensor(torch.ones(2, dtype=torch.float64)).tolist() == [1, 1]
    with pytest.raises(TypeError, match="int64"):
        mg.Tensor(torch.arange(3))
    with pytest.raises((TypeError, RuntimeError)):
        mg.Tensor(torch.ones(2, requires_grad=True))


def test_equality_hash_and_membership():
    """== compares elements, a hash is of the object, `in` asks whether any element is equal."""
    a, b = mg.Tensor([1.0, 2.0]), mg.Tensor([1.0, 3.0])
    assert (a == b).tolist() == [True, False] and (a != b).tolist() == [False, True]
    assert (
        (a < 2).tolist() == [True, False]
        and (2 > a).tolist() == [True, False]
        and (np.ones(2) <= a).tolist() == [True, True]
    )
    assert type(a == b) is np.ndarray
    assert (a == None) is False and (a != "text") is True  # noqa: E711
    assert hash(a) == hash(a) and len({a, b, a}) == 2 and {a: 1}[a] == 1
    assert 2.0 in a and 5.0 not in a
    with pytest.raises(TypeError, match="'<' not supported"):
        a < "text"  # noqa: B015


def test_truth_and_numbers_of_one_element():
    assert bool(mg.ones((1, 1))) is True and bool(mg.zeros(())) is False
    assert (
        float(mg.Tensor([2.5])) == 2.5
        and int(mg.Tensor(2.5)) == 2
        and mg.Tensor([[3.0]]).item() == 3.0
    )
    assert len(mg.zeros((3, 2))) == 3 and len(mg.zeros(0)) == 0


def test_none_for_every_argument_is_refused():
    """None never reaches a typed argument: in a subprocess, where a crash would show."""
    code = textwrap.dedent("""
        import minigrad as mg
        import numpy as np
        for name in [name for name in dir(mg) if callable(getattr(mg, name)) and name[0] != "_"]:
            for count in range(1, 5):
                try:
                    getattr(mg, name)(*[None] * count)
                except (TypeError, ValueError):
                    pass
        methods = [name for name in dir(mg.Tensor) if callable(getattr(mg.Tensor, name))]
        for name in [name for name in methods if name[0] != "_"]:
            for count in range(1, 4):
                for x in (mg.ones((2, 2)), mg.ones((2, 2), requires_grad=True)):
                    try:
                        getattr(x, name)(*[None] * count)
                    except (TypeError, ValueError, RuntimeError, IndexError):
                        pass
        print("whole")
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr


class Unprintable:
    """An object whose repr raises, as that of an array which another thread makes smaller."""

    def __repr__(self):
        raise IndexError("index 3 is out of bounds")


def test_a_value_whose_repr_raises_is_named_by_its_class():
    value = Unprintable()
    weight = mg.ones(2, requires_grad=True)
    calls = [
        lambda: mg.optim.Adam([weight], betas=value),
        lambda: mg.nll(mg.zeros((2, 2)), [0, 0], reduction=value),
        lambda: mg.argmax(weight, axis=value),
        lambda: mg.split(weight, value),
        lambda: mg.pad(weight, value),
        lambda: mg.nn.RNNCell(2, 2, nonlinearity=value),
        lambda: mg.nn.LSTM(2, 2, checkpoint=value),
        lambda: mg.optim.schedule.OneCycleLR(
            mg.optim.SGD([weight], lr=0.1), 0.1, 10, anneal_strategy=value
        ),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="must be .*Unprintable"):
            call()


def test_adjoin_refuses_a_whole_without_dimensions():
    """Its last axis would be read in front of the shape."""
    adjoin = mg.ops.join.adjoin
    for parts in ((), [], mg.zeros((0, 3)), [mg.zeros(1)]):
        with pytest.raises(ValueError, match="adjoin: whole must have at least one dimension"):
            adjoin(mg.Tensor(1.0), parts)


def test_a_list_that_holds_itself_is_no_dtype():
    endless = []
    endless.append(endless)
    for dtype in (endless, [[endless]]):
        with pytest.raises(TypeError, match="dtype must be float32 or float64"):
            mg.ones(1).astype(dtype)


class NoDtype:
    """What NumPy asks a dtype for raises."""

    @property
    def dtype(self):
        raise IndexError("index -1000 is out of bounds")


def test_a_dtype_that_raises_is_a_type_error():
    x = mg.ones(2)
    for call in (x.astype, x.__array__, lambda dtype: mg.zeros(2, dtype=dtype)):
        with pytest.raises(TypeError, match="dtype must be"):
            call(NoDtype())
    assert np.asarray(x, dtype=np.float16).dtype == np.float16
    assert np.array_equal(np.asarray(x, dtype="f8"), [1.0, 1.0])
