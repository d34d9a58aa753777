"""The steps of the optimisers as kernels: their formulas, the same bits wherever an element is, and
a step that cannot be made."""

import numpy as np
import pytest
from makers import bits, draw, each_optimizer, leaves, rows, same_state, set_gradients, trained

import minigrad as mg
from minigrad.core import kernels

optim = mg.optim


def by_formula(name, p, gradients, o):
    """The formulas of the docstrings, in float64."""
    p, zero = p.astype(np.float64), np.zeros(p.shape)
    m = v = b = v_max = s = zero
    s = s + o.get("initial_accumulator_value", 0)
    for t, g in enumerate(gradients, 1):
        g = -g.astype(np.float64) if o.get("maximize") else g.astype(np.float64)
        decay = o.get("weight_decay", 0)
        if name == "AdamW":
            p = p - o["lr"] * decay * p
        else:
            g = g + decay * p
        if name == "SGD":
            v = g if t == 1 else o.get("momentum", 0) * v + (1 - o.get("dampening", 0)) * g
            p = p - o["lr"] * (g + o["momentum"] * v if o.get("nesterov") else v)
        elif name == "RMSprop":
            m, v = o["alpha"] * m + (1 - o["alpha"]) * g, o["alpha"] * v + (1 - o["alpha"]) * g * g
            b = o.get("momentum", 0) * b + g / (
                np.sqrt(v - m * m if o.get("centered") else v) + o["eps"]
            )
            p = p - o["lr"] * b
        elif name == "Adagrad":
            s = s + g * g
            p = p - o["lr"] / (1 + (t - 1) * o.get("lr_decay", 0)) * g / (np.sqrt(s) + 1e-10)
        else:
            b1, b2 = o["betas"]
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            v_max = np.maximum(v, v_max)
            root = np.sqrt((v_max if o.get("amsgrad") else v) / (1 - b2**t))
            p = p - o["lr"] * (m / (1 - b1**t)) / (root + o["eps"])
    return p


OPTIONS = [
    ("SGD", dict(lr=0.1)),
    ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True)),
    ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)),
    ("RMSprop", dict(lr=0.01, alpha=0.9, eps=1e-3)),
    ("RMSprop", dict(lr=0.01, alpha=0.95, eps=1e-3, momentum=0.9, centered=True)),
    ("RMSprop", dict(lr=0.01, alpha=0.9, eps=1e-3, weight_decay=0.1, maximize=True)),
    ("Adam", dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6)),
    ("Adam", dict(lr=0.01, betas=(0.5, 0.9), eps=1e-6, amsgrad=True)),
    ("Adam", dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, maximize=True)),
    ("AdamW", dict(lr=0.01, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)),
    ("Adagrad", dict(lr=0.1)),
    ("Adagrad", dict(lr=0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2)),
]
all_options = pytest.mark.parametrize("name, options", OPTIONS, ids=str)


@all_options
@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_the_formulas(name, options, dtype, tolerance):
    for n in (1, 7, 16, 37):
        start, *gradients = rows(n, dtype)
        np.testing.assert_allclose(
            trained(name, options, start, gradients)[0],
            by_formula(name, start, gradients, options),
            rtol=tolerance,
            atol=tolerance,
        )


@all_options
def test_torch_float32(name, options):
    torch = pytest.importorskip("torch")
    start, *gradients = rows(1000, np.float32, 30)
    p = torch.tensor(start, requires_grad=True)
    optimizer = getattr(torch.optim, name)([p], **options)
    for g in gradients:
        p.grad = torch.tensor(g)
        optimizer.step()
    np.testing.assert_allclose(
        trained(name, options, start, gradients)[0], p.detach().numpy(), rtol=1e-5, atol=1e-5
    )


@all_options
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_has_the_same_bits_wherever_it_is(name, options, dtype):
    """Alone, within any vector, in any piece and with any number of threads, on every instruction
    set."""
    n = 70_001
    start, *gradients = rows(n, dtype, 4)
    before, isa, found = mg.get_num_threads(), kernels.isa_in_use(), []
    try:
        for threads in (1, 2, 5):
            mg.set_num_threads(threads)
            found.append(trained(name, options, start, gradients))
        for other in kernels.isas_built():
            try:
                kernels._use_isa(other)
            except ValueError:  # not on this CPU
                continue
            found.append(trained(name, options, start, gradients))
    finally:
        mg.set_num_threads(before)
        kernels._use_isa(isa)
    assert len(found) > 3
    for run in found[1:]:
        assert [a.tobytes() for a in run] == [a.tobytes() for a in found[0]]
    for part in (
        slice(0, 1),
        slice(5, 40),
        *(slice(k, k + 9_999) for k in range(0, n, 9_999)),
    ):  # the pieces have other cuts
        alone = trained(name, options, start[part], [g[part] for g in gradients])
        assert [a.tobytes() for a in alone] == [a[part].tobytes() for a in found[0]]


def test_many_parameters_are_as_each_alone():
    """They share one call into C, which cuts all of them into pieces."""
    sizes = (3, 40_000, 0, 16_384, 1, 16_385, 700)
    together = leaves([rows(n, np.float32)[0] for n in sizes[:-1]] + [rows(700, np.float64)[0]])
    optimizer = optim.Adam(together, 0.1)
    for k in range(1, 4):
        set_gradients(together, [rows(p.size, p.dtype)[k] for p in together])
        optimizer.step()
    for p in together:
        start, *gradients = rows(p.size, p.dtype)[:4]
        assert p.numpy().tobytes() == trained("Adam", dict(lr=0.1), start, gradients)[0].tobytes()


@each_optimizer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layouts_of_memory(make, dtype):
    """Fortran order, views with strides, gradients in another layout than the parameter: the same
    bits as in C order."""

    def layouts(arrays):
        return [np.asfortranarray(arrays[0]), np.repeat(arrays[1], 3)[::-3][::-1], arrays[2]]

    plain, other = (
        leaves(draw(0, dtype)),
        [mg.Tensor(a, requires_grad=True, copy=False) for a in layouts(draw(0, dtype))],
    )
    assert not other[0].numpy().flags.c_contiguous and not other[1].numpy().flags.c_contiguous
    first, second = make(plain), make(other)
    for k in range(3):
        set_gradients(plain, draw(k, dtype))
        for p, a in zip(other, layouts(draw(k, dtype)), strict=True):
            p.grad = mg.Tensor(a, copy=False)
        optim.clip_grad_norm_(plain, 2.0)
        optim.clip_grad_norm_(other, 2.0)
        optim.clip_grad_value_(plain, 0.4)
        optim.clip_grad_value_(other, 0.4)
        assert [p.grad.numpy().tobytes() for p in plain] == [
            p.grad.numpy().tobytes() for p in other
        ]
        first.step()
        second.step()
    assert bits(plain) == bits(other)


@each_optimizer
def test_a_step_that_cannot_be_made_changes_nothing(make):
    fixed = draw(0)[1]
    fixed.flags.writeable = False
    parameters = leaves(draw(0))
    parameters[1] = mg.Tensor(fixed, requires_grad=True, copy=False)
    optimizer = make(parameters)
    state = optimizer.state_dict()
    set_gradients(parameters, draw(1))
    with pytest.raises(ValueError, match=r"the memory of a tensor of shape \(5,\) is read-only"):
        optimizer.step()
    assert bits(parameters) == [a.tobytes() for a in draw(0)] and same_state(
        optimizer.state_dict(), state
    )


@pytest.mark.parametrize(
    "array",
    [
        None,
        3.0,
        np.zeros(5),
        np.zeros(4, np.float32),
        np.zeros(10, np.float32)[::2],
        np.broadcast_to(np.float32(0), 5),
        np.zeros(5, ">f4"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "make, name", [(optim.Adam, "v"), (optim.Adam, "m"), (optim.RMSprop, "v"), (optim.Adagrad, "s")]
)
def test_a_spoiled_state_is_an_error_and_nothing_changes(make, name, array):
    parameters = leaves(draw(0))
    optimizer = make(parameters)
    set_gradients(parameters, draw(1))
    optimizer.state[parameters[1]][name] = array
    with pytest.raises((TypeError, ValueError), match=name):
        optimizer.step()
    assert (
        bits(parameters) == [a.tobytes() for a in draw(0)]
        and optimizer.state[parameters[0]]["step"] == 0
    )


def test_a_gradient_that_never_changes():
    """The variance of centered RMSprop is then 0 but for rounding, and may come out negative; its
    root must not be NaN."""
    (p,) = leaves([np.zeros(1000, np.float32)])
    optimizer = optim.RMSprop([p], centered=True, alpha=0.7)
    p.grad = mg.Tensor(np.linspace(-3, 3, 1000, dtype=np.float32))
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(p.numpy()).all()


def test_expanded_gradients_are_refused():
    (p,) = leaves([np.zeros((3, 2), np.float32)])
    with pytest.raises(
        ValueError, match="several elements of an expanded view share one memory location"
    ):
        p.grad = mg.broadcast_to(mg.ones(2), (3, 2))
    assert p.grad is None


@pytest.mark.slow
def test_no_allocation_stays_behind():
    """2000 steps and clippings do not grow the heap."""
    tracemalloc = pytest.importorskip("tracemalloc")
    parameters = leaves(draw(0))
    optimizer = optim.AdamW(parameters)

    def turn():
        optim.clip_grad_norm_(parameters, 0.1)
        optim.clip_grad_value_(parameters, 0.1)
        optimizer.step()

    set_gradients(parameters, draw(1))
    tracemalloc.start()
    try:
        for _ in range(2000):
            turn()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            turn()
        assert tracemalloc.get_traced_memory()[0] - before < 2000
    finally:
        tracemalloc.stop()
