"""The tape and the sweep: accumulation, errors of state, random graphs, grad(), vjp() and
jacobian()."""

import numpy as np
import pytest
from graphs import close, leaf

import minigrad as mg

# ---------------------------------------------------------------- backward


def test_gradients_accumulate():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    assert close(x.grad, 2, 4)
    (x * 3.0).sum().backward()
    assert x.grad is first and close(x.grad, 5, 7)
    x.grad = None
    x.sum().backward()
    assert close(x.grad, 1, 1)


def test_grad_setter():
    x = leaf(1.0, 2.0)
    x.grad = mg.Tensor(np.array([5.0, 6.0]))
    (x * 2.0).sum().backward()
    assert close(x.grad, 7, 8)
    with pytest.raises(
        ValueError, match=r"grad: must have shape \(2,\) and dtype float64, got \(3,\) and float64"
    ):
        x.grad = mg.ones(3, np.float64)
    with pytest.raises(ValueError, match="grad: must have shape .* dtype float64, got .* float32"):
        x.grad = mg.ones(2)
    with pytest.raises(TypeError):
        x.grad = np.ones(2)


def test_backward_of_a_leaf():
    x = leaf(3.0)
    x.backward()
    x.backward(np.array([2.0]))
    assert close(x.grad, 3)


def test_shared_values_get_both_contributions():
    x = leaf(3.0)
    b = x + x
    c = b + b
    c.backward()
    assert close(x.grad, 4)
    x.grad = None
    (x * x).backward()
    assert close(x.grad, 6)
    x.grad = None
    y = mg.exp(x)
    (y * y + y).backward()
    assert close(x.grad, 2 * np.exp(6) + np.exp(3))


def test_sixty_doublings_take_sixty_visits():
    """2^60 paths lead from y to x, but each node is visited once."""
    x, visits = leaf(1.0), []
    y = x
    for _ in range(60):
        y = y + y
        y.register_hook(lambda dy: visits.append(None))
    y.backward()
    assert close(x.grad, 2.0**60) and len(visits) == 60


def test_backward_twice():
    x = leaf(1.0, 2.0)
    y = mg.tanh(x * x).sum()
    y.backward(retain_graph=True)
    first = x.grad.numpy().copy()
    y.backward()
    assert (x.grad.numpy() == 2 * first).all()
    with pytest.raises(
        RuntimeError,
        match=r"through the graph a second time, but \w+ has freed .* retain_graph=True",
    ):
        y.backward()
    assert (x.grad.numpy() == 2 * first).all()


def test_freed_graph_below_a_live_one():
    x = leaf(1.0)
    y = mg.exp(x)
    y.backward()
    with pytest.raises(
        RuntimeError, match="through the graph a second time, but exp has freed what it saved"
    ):
        (y * 2.0).backward()
    assert close(x.grad, np.e)


def test_state_errors():
    x = leaf(1.0, 2.0)
    with pytest.raises(
        RuntimeError, match=r"backward: .*implicitly only for a scalar, the output has shape \(2,\)"
    ):
        (x * x).backward()
    with pytest.raises(RuntimeError, match="backward: the tensor does not require grad"):
        mg.ones(()).backward()
    with pytest.raises(RuntimeError, match="backward: the tensor does not require grad"):
        x.detach().sum().backward()
    with mg.no_grad():
        y = x.sum()
    with pytest.raises(RuntimeError, match="backward: the tensor does not require grad"):
        y.backward()
    y = x * x
    with pytest.raises(
        ValueError, match=r"backward: gradient must have shape \(2,\) like the output, got \(3,\)"
    ):
        y.backward(np.ones(3))
    with pytest.raises(
        TypeError, match="backward: gradient must have dtype float64 like the output, got float32"
    ):
        y.backward(mg.ones(2))
    with pytest.raises(TypeError, match="int64"):
        y.backward(np.ones(2, int))
    assert x.grad is None
    y.backward([1.0, 1.0])
    assert close(x.grad, 2, 4)


def test_seed_is_not_touched():
    x = leaf(1.0, 2.0)
    seed = np.array([3.0, 4.0])
    y = x + 0.0
    y.backward(mg.Tensor(seed, copy=False), retain_graph=True)
    y.backward(mg.Tensor(seed, copy=False))
    assert close(x.grad, 6, 8) and seed.tolist() == [3, 4]


def test_only_what_needs_a_gradient_is_recorded():
    x, constant = leaf(1.0), mg.ones(1, np.float64)
    assert (constant * constant).grad_fn is None
    y = x * constant
    assert y.grad_fn.name == "mul" and y.grad_fn.inputs[0] is x and y.grad_fn.inputs[1] is None
    assert repr(y.grad_fn) == "<Node mul>"
    y.backward()
    assert constant.grad is None


def test_requires_grad():
    x = mg.ones(2)
    assert not x.requires_grad and x.requires_grad_() is x and x.requires_grad and x.is_leaf
    y = x * 2
    assert y.requires_grad and not y.is_leaf
    with pytest.raises(RuntimeError, match="requires_grad_: only a leaf"):
        y.requires_grad_(False)
    x.requires_grad = False
    assert not (x * 2).requires_grad


def test_retain_grad():
    x = leaf(2.0)
    y = x * x
    y.retain_grad()
    mg.exp(y).backward(retain_graph=True)
    assert close(y.grad, np.exp(4)) and y.grad.is_leaf


# ---------------------------------------------------------------- random graphs


def whole(x):
    """x, broadcast to (3, 3)."""
    return x + np.zeros((3, 3))


UNARY = [
    lambda lib, x: lib.tanh(x),
    lambda lib, x: lib.sin(x),
    lambda lib, x: lib.exp(x * 0.1),
    lambda lib, x: -x,
    lambda lib, x: x,
    lambda lib, x: whole(x).reshape((9,)).reshape((3, 3)),
    lambda lib, x: whole(x).T,
    lambda lib, x: whole(x)[1:2],
    lambda lib, x: whole(x)[:, ::-2][:, :1],
    lambda lib, x: whole(x)[[2, 0, 2]],
    lambda lib, x: whole(x).sum(0, keepdims=True),
    lambda lib, x: whole(x).mean(1, keepdims=True),
]
BINARY = [
    lambda lib, x, y: x + y,
    lambda lib, x, y: x - y,
    lambda lib, x, y: x * y * 0.5,
    lambda lib, x, y: x / (y * y + 2.0),
    lambda lib, x, y: whole(x) @ whole(y) * 0.3,
    lambda lib, x, y: lib.concatenate([whole(x)[:1], whole(y)[1:]]),
    lambda lib, x, y: lib.stack([whole(x), whole(y)])[1],
]


def random_program(seed):
    """A function of (lib, inputs) that makes 25 values, each from earlier ones, some of them used
    often, and adds up the last."""
    rng = np.random.default_rng(seed)
    steps = [
        (
            BINARY[rng.integers(len(BINARY))]
            if rng.random() < 0.6
            else UNARY[rng.integers(len(UNARY))],
            rng.integers(0, 3 + k),
            rng.integers(max(0, k - 2), 3 + k),
        )
        for k in range(25)
    ]
    weights = rng.normal(size=(28, 3, 3))

    def program(lib, inputs):
        values = list(inputs)
        for op, i, j in steps:
            values.append(op(lib, values[i], values[j]) if op in BINARY else op(lib, values[i]))
        total = 0.0
        for value, weight in list(zip(values, weights, strict=True))[-6:]:
            total = total + (whole(value) * weight).sum()
        return total

    return program


@pytest.mark.parametrize("seed", range(60))
def test_random_graph(seed):
    """Against the complex step on the same program in NumPy; backward, grad() and create_graph
    agree; nothing shares memory."""
    program = random_program(seed)
    rng = np.random.default_rng(1000 + seed)
    arrays = [rng.normal(size=shape) for shape in ((3, 3), (1, 3), (3, 1))]
    inputs = [mg.Tensor(array, requires_grad=True) for array in arrays]
    y = program(mg, inputs)
    np.testing.assert_allclose(y.item(), program(np, arrays), rtol=1e-12)
    found = mg.grad(y, inputs, retain_graph=True, allow_unused=True)
    for i, (array, dx) in enumerate(zip(arrays, found, strict=True)):
        expected = np.zeros(array.shape)
        for element in np.ndindex(array.shape):
            stepped = array.astype(complex)
            stepped[element] += 1e-30j
            expected[element] = program(np, [*arrays[:i], stepped, *arrays[i + 1 :]]).imag / 1e-30
        error = np.abs((dx.numpy() if dx is not None else 0) - expected).max()
        assert error <= 1e-12 + 1e-10 * np.abs(expected).max()
    again = mg.grad(y, inputs, retain_graph=True, create_graph=True, allow_unused=True)
    y.backward(retain_graph=True)
    first = [None if x.grad is None else x.grad.numpy().copy() for x in inputs]
    y.backward()
    for x, array, once, dx, graph_dx in zip(inputs, arrays, first, found, again, strict=True):
        assert x.numpy().tobytes() == array.tobytes()
        if dx is not None:
            assert once.tobytes() == dx.numpy().tobytes() and (x.grad.numpy() == 2 * once).all()
            np.testing.assert_allclose(graph_dx.numpy(), once, rtol=1e-9, atol=1e-12)
    grads = [x.grad.numpy() for x in inputs if x.grad is not None]
    assert not any(np.shares_memory(a, b) for k, a in enumerate(grads) for b in grads[k + 1 :])


# ---------------------------------------------------------------- grad


def test_grad_commits_nothing():
    x, w = leaf(2.0), leaf(3.0)
    y = x * w
    dx, dw = mg.grad(mg.exp(y), (x, w))
    assert (
        close(dx, 3 * np.exp(6)) and close(dw, 2 * np.exp(6)) and x.grad is None and w.grad is None
    )


def test_grad_of_an_intermediate():
    x = leaf(2.0)
    y = x * x
    z = mg.exp(y) + x
    dy, dx = mg.grad(z, [y, x], retain_graph=True)
    assert close(dy, np.exp(4)) and close(dx, 4 * np.exp(4) + 1)
    (dz,) = mg.grad(z, z)
    assert close(dz, 1)


def test_grad_several_outputs():
    x = leaf(1.0, 2.0)
    y, z = x * x, x * 3.0
    (dx,) = mg.grad([y, z], x, [np.array([1.0, 10.0]), mg.ones(2, np.float64)])
    assert close(dx, 5, 43)


def test_grad_unused():
    x, other = leaf(2.0), leaf(1.0)
    y = x * x
    with pytest.raises(
        RuntimeError,
        match="grad: input 1 was not used to compute the outputs; allow_unused=True gives",
    ):
        mg.grad(y, (x, other), retain_graph=True)
    dx, nothing = mg.grad(y, (x, other), allow_unused=True)
    assert close(dx, 4) and nothing is None


def test_grad_errors():
    x = leaf(2.0)
    y = x * x
    with pytest.raises(RuntimeError, match="grad: one of the inputs does not require grad"):
        mg.grad(y, x.detach())
    with pytest.raises(RuntimeError, match="grad: one of the outputs does not require grad"):
        mg.grad(y.detach(), x)
    with pytest.raises(TypeError, match="grad: inputs must be Tensors, got None"):
        mg.grad(y, [None])
    with pytest.raises(TypeError, match="grad: outputs must be Tensors, got None"):
        mg.grad([None], x)
    with pytest.raises(TypeError, match="grad: inputs must be Tensors, got ndarray"):
        mg.grad(y, [np.ones(1)])
    with pytest.raises(
        ValueError, match="grad: grad_outputs must have one entry for each of the 1 outputs, got 2"
    ):
        mg.grad(y, x, [None, None])
    with pytest.raises(ValueError, match="grad: gradient must have shape"):
        mg.grad(y, x, [np.ones(3)])
    assert close(mg.grad(y, x)[0], 4)


def test_grad_does_not_visit_what_it_does_not_need():
    x, w, seen = leaf(2.0), leaf(3.0), []
    side = mg.exp(w)
    side.register_hook(lambda _: seen.append("side"))
    y = x * side
    assert close(mg.grad(y, x)[0], np.exp(3)) and seen == []


def test_grad_frees_only_what_it_went_through():
    w = leaf(3.0)
    h = w * w
    assert close(mg.grad((h * h).sum(), h)[0], 18)
    (h * 3.0).sum().backward()
    assert close(w.grad, 18)
    layer = mg.nn.LSTM(2, 3)
    out, _ = layer(mg.ones((3, 2, 2)))
    mg.grad((out * out).sum(), out)
    out.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    x = leaf(2.0)
    y = mg.exp(x)
    handle = y.register_hook(lambda dy: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        y.sum().backward()
    handle.remove()
    y.sum().backward()  # the rule of exp had not run
    assert close(x.grad, np.exp(2))


def test_grad_of_tensors_with_their_own_equality():
    class Odd(mg.Tensor):
        def __hash__(self):
            return 1

        def __eq__(self, other):
            raise KeyError("never asked")

    x, y = Odd([1.0, 2.0], requires_grad=True), Odd([3.0, 4.0], requires_grad=True)
    dx, dy = mg.grad((x * y).sum(), [x, y])
    assert dx.tolist() == [3, 4] and dy.tolist() == [1, 2]
    (x * y).sum().backward()
    assert x.grad.tolist() == [3, 4]


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda x: mg.Tensor(np.broadcast_to(np.ones(1), (3,)), copy=False), "read-only"),
        (lambda x: mg.ones(1, np.float64).broadcast_to(3), "share one memory location"),
        (lambda x: x, "that of the tensor itself"),
        (lambda x: x.detach(), "that of the tensor itself"),
    ],
    ids=["read-only", "expanded", "itself", "detached"],
)
def test_grad_that_cannot_be_added_to(make, text):
    x = leaf(1.0, 2.0, 3.0)
    with pytest.raises(ValueError, match=f"grad: .*{text}"):
        x.grad = make(x)
    assert x.grad is None
    buffer = np.ones(3)
    x.grad = mg.Tensor(buffer, copy=False)
    (x * 2.0).sum().backward()  # a buffer of the user's is added to in place
    assert buffer.tolist() == [3, 3, 3]


def test_third_order():
    x = leaf(0.5, -1.0)
    y = mg.sin(x) * x
    (d1,) = mg.grad(y.sum(), x, create_graph=True)
    (d2,) = mg.grad(d1.sum(), x, create_graph=True)
    (d3,) = mg.grad(d2.sum(), x)
    v = x.numpy()
    np.testing.assert_allclose(d1.numpy(), np.cos(v) * v + np.sin(v), rtol=1e-14)
    np.testing.assert_allclose(d2.numpy(), -np.sin(v) * v + 2 * np.cos(v), rtol=1e-14)
    np.testing.assert_allclose(d3.numpy(), -np.cos(v) * v - 3 * np.sin(v), rtol=1e-14)
    assert not d3.requires_grad


def test_backward_with_create_graph():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    assert x.grad.requires_grad and close(x.grad, 27)
    penalty = (x.grad * x.grad).sum()
    x.grad = None
    penalty.backward()
    assert close(x.grad, 2 * 27 * 18)


def test_gradient_penalty_accumulates_into_a_grad_with_graph():
    x = leaf(2.0)
    (x**3).backward(create_graph=True)
    (x**2).backward(create_graph=True)
    assert close(x.grad, 12 + 4)
    (second,) = mg.grad(x.grad, x)
    assert close(second, 12 + 2)


def test_leaves_do_not_share_a_gradient():
    """dx and dw of x + w are one and the same for the sweep; adding to one later must not change
    the other, nor the seed."""
    for create_graph in (False, True):
        x, w, seed = leaf(1.0), leaf(1.0), mg.ones(1, np.float64)
        (x + w).backward(seed, create_graph=create_graph)
        (x * 2.0).backward()
        assert close(x.grad, 3) and close(w.grad, 1) and close(seed, 1)
