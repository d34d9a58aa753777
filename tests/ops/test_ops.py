"""Every op of the table (op_table.py) through the same tests: values, gradients, second order,
memory layouts, bits."""

import gc
import warnings
import weakref

import numpy as np
import pytest
from op_table import rows, split

import minigrad as mg
from minigrad.core import kernels

ROWS = rows()
DIFFERENTIABLE = [op for op in ROWS if op.differentiable]
ELEMENTWISE = [op for op in ROWS if op.elementwise]
DTYPES = [np.float32, np.float64]

# Public functions and Tensor methods that are no ops of the table, each tested in a file of its
# own.
NOT_OPS = {
    "draw",
    "dropout_mask",
    "get_num_threads",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "hessian",
    "hvp",
    "is_grad_enabled",
    "jacobian",
    "jvp",
    "load",
    "manual_seed",
    "ones",
    "record",
    "save",
    "set_num_threads",
    "show_config",
    "vjp",
    "zeros",
}
NOT_METHODS = {
    "backward",
    "detach",
    "item",
    "numpy",
    "register_hook",
    "requires_grad_",
    "retain_grad",
    "tolist",
}


def each(ops):
    return pytest.mark.parametrize("op", ops, ids=str)


def each_dtype(function):
    return pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])(function)


def samples(op, dtype):
    """Pairs (arrays, keyword arguments)."""
    return [split(sample) for sample in op.samples(np.random.default_rng(7), dtype)]


def listed(outputs):
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def leaves(arrays, copy=True):
    return [mg.Tensor(array, requires_grad=True, copy=copy) for array in arrays]


def value(op, tensors, options):
    """The outputs as a list of Tensors (of arrays for an op without gradient)."""
    return listed(op.fn(*tensors, **options))


def reference(op, arrays, options):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return [np.asarray(y) for y in listed(op.ref(*arrays, **options))]


def cotangents(outputs, seed=11):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=y.shape).astype(y.dtype) for y in outputs]


def gradients(outputs, inputs, seeds, **options):
    """The gradients as arrays."""
    return [dx.numpy() for dx in mg.grad(outputs, inputs, seeds, **options)]


def run(op, arrays, options, copy=True):
    """Values and gradients as one list of arrays, in a fixed order."""
    inputs = leaves(arrays, copy)
    outputs = value(op, inputs, options)
    if not op.differentiable:
        return [np.asarray(y) for y in outputs]
    return [y.numpy() for y in outputs] + gradients(outputs, inputs, cotangents(outputs))


def same_bits(found, expected):
    return all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(found, expected, strict=True)
    )


def complex_step(op, arrays, options, seeds):
    """The gradients of sum(seeds * ref(arrays)) by imag(f(x + 1e-30j)) / 1e-30."""
    found = []
    for i, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for element in np.ndindex(array.shape):
            stepped = array.astype(complex)
            stepped[element] += 1e-30j
            given = [*arrays[:i], stepped, *arrays[i + 1 :]]
            gradient[element] = (
                sum(
                    (v * y.imag).sum()
                    for v, y in zip(seeds, reference(op, given, options), strict=True)
                )
                / 1e-30
            )
        found.append(gradient)
    return found


def differences(op, arrays, options, seeds, step=1e-3):
    """The same by central differences of five points of minigrad's own forward."""
    found = []
    for i, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for element in np.ndindex(array.shape):

            def at(h, i=i, element=element):
                moved = arrays[i].copy()
                moved[element] += h
                given = [mg.Tensor(a) for a in (*arrays[:i], moved, *arrays[i + 1 :])]
                return sum(
                    (v * y.numpy()).sum()
                    for v, y in zip(seeds, value(op, given, options), strict=True)
                )

            gradient[element] = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (
                12 * step
            )
        found.append(gradient)
    return found


# ---------------------------------------------------------------- the table itself


def test_every_public_op_has_a_row():
    functions = {
        name
        for name, thing in vars(mg).items()
        if name[0] != "_" and callable(thing) and not isinstance(thing, type)
    }
    methods = {
        name
        for name in dir(mg.Tensor)
        if not name.startswith("_") and callable(getattr(mg.Tensor, name))
    }
    assert functions - NOT_OPS - {op.public for op in ROWS} == set()
    assert methods - NOT_METHODS - {op.public for op in ROWS} == set()


def test_every_row_is_whole():
    names = [op.name for op in ROWS]
    assert len(names) == len(set(names)), "two rows of one name"
    for name in {op.public for op in ROWS}:
        assert sum(len(op.errors) for op in ROWS if op.public == name) >= 3, (
            f"{name}: less than three bad inputs"
        )
    for op in ROWS:
        for dtype in DTYPES:
            drawn = samples(op, dtype)
            assert len(drawn) >= 2 and all(
                array.dtype == dtype for arrays, _ in drawn for array in arrays
            ), op.name
            assert not op.empty or any(
                array.size == 0 for arrays, _ in drawn for array in arrays
            ), f"{op.name}: no empty sample"


@each([op for op in ROWS if op.errors])
def test_bad_input(op):
    for call, kind, pattern in op.errors:
        with pytest.raises(kind, match=pattern) as caught:
            call()
        assert op.public in str(caught.value), "the message must name the op"


# ---------------------------------------------------------------- values


@each_dtype
@each(ROWS)
def test_value(op, dtype):
    for arrays, options in samples(op, dtype):
        inputs = leaves(arrays)
        found = value(op, inputs, options)
        expected = reference(op, [array.astype(np.float64) for array in arrays], options)
        assert len(found) == len(expected)
        for y, z in zip(found, expected, strict=True):
            assert y.shape == z.shape, (arrays, options)
            if not op.differentiable:
                np.testing.assert_array_equal(y, z)
                continue
            assert type(y) is mg.Tensor and y.dtype == dtype
            scale = np.abs(z) if op.elementwise else np.abs(z).max(initial=0)
            error = np.abs(y.numpy() - z)
            assert (error <= op.ulps * np.finfo(dtype).eps * scale).all(), (
                error.max(),
                arrays,
                options,
            )
        for x, array in zip(inputs, arrays, strict=True):
            assert x.numpy().tobytes() == array.tobytes(), "an input was changed"


@each_dtype
@each(ROWS)
def test_not_a_number(op, dtype):
    """NaN (and where the row says so infinity) in any place of any input: NaN comes out where the
    reference has it."""
    rng = np.random.default_rng(3)
    for arrays, options in samples(op, dtype):
        for special in ([np.nan], [np.nan, np.inf, -np.inf]):
            if len(special) > 1 and not op.infinities:
                continue
            for i in range(len(arrays)):
                given = [array.copy() for array in arrays]
                given[i] = np.where(
                    rng.random(given[i].shape) < 0.3, rng.choice(special, given[i].shape), given[i]
                ).astype(dtype)
                expected = reference(op, given, options)
                for y, z in zip(value(op, leaves(given), options), expected, strict=True):
                    np.testing.assert_array_equal(
                        np.isnan(np.asarray(y)), np.isnan(z), str((given, options))
                    )


# ---------------------------------------------------------------- gradients


@each(DIFFERENTIABLE)
def test_gradient(op):
    for arrays, options in samples(op, np.float64):
        inputs = leaves(arrays)
        outputs = value(op, inputs, options)
        seeds = cotangents(outputs)
        oracle, rtol = (complex_step, 1e-10) if op.analytic else (differences, 1e-8)
        expected = oracle(op, arrays, options, seeds)
        for i, (dx, z) in enumerate(zip(gradients(outputs, inputs, seeds), expected, strict=True)):
            assert dx.shape == z.shape and dx.dtype == np.float64
            error = np.abs(dx - z).max(initial=0)
            assert error <= 1e-12 + rtol * np.abs(z).max(initial=0), (
                f"{op}: input {i}, {options}: {dx} instead of {z}"
            )


@each(DIFFERENTIABLE)
def test_gradient_in_float32(op):
    """Against the gradient in float64 of the same numbers."""
    for arrays, options in samples(op, np.float32):
        inputs = leaves(arrays)
        outputs = value(op, inputs, options)
        seeds = cotangents(outputs)
        exact = leaves([array.astype(np.float64) for array in arrays])
        expected = gradients(
            value(op, exact, options), exact, [v.astype(np.float64) for v in seeds]
        )
        for x, dx, z in zip(inputs, gradients(outputs, inputs, seeds), expected, strict=True):
            assert dx.shape == x.shape and dx.dtype == np.float32
            error = np.abs(dx - z).max(initial=0)
            assert error <= 8 * op.ulps * np.finfo(np.float32).eps * np.abs(z).max(initial=0), (
                op,
                options,
            )


@pytest.mark.slow
@each(DIFFERENTIABLE)
def test_second_order(op):
    for arrays, options in samples(op, np.float64):
        if sum(array.size for array in arrays) <= 40:
            assert mg.gradgradcheck(
                lambda *inputs, options=options: op.fn(*inputs, **options),
                leaves(arrays),
                rtol=1e-7,
            )


@each_dtype
@each(DIFFERENTIABLE)
def test_gradient_of_each_input_alone(op, dtype):
    """An input that needs no gradient changes no bit of the others'."""
    for arrays, options in samples(op, dtype):
        expected = run(op, arrays, options)
        for i in range(len(arrays)):
            inputs = [mg.Tensor(array, requires_grad=j == i) for j, array in enumerate(arrays)]
            outputs = value(op, inputs, options)
            seeds = cotangents(outputs)
            found = [y.numpy() for y in outputs] + gradients(outputs, inputs[i], seeds)
            assert same_bits(found, [*expected[: len(outputs)], expected[len(outputs) + i]])


@each_dtype
@each(DIFFERENTIABLE)
def test_twice_the_same_bits(op, dtype):
    for arrays, options in samples(op, dtype):
        inputs = leaves(arrays)
        outputs = value(op, inputs, options)
        seeds = cotangents(outputs)
        first = gradients(outputs, inputs, seeds, retain_graph=True)
        second = gradients(outputs, inputs, seeds)
        assert same_bits(first, second)
        inputs = leaves(arrays)
        for y, v in zip(value(op, inputs, options), seeds, strict=True):
            y.backward(v, retain_graph=True)
        for x, array in zip(inputs, arrays, strict=True):
            assert x.grad.shape == array.shape and x.grad.dtype == dtype
            assert x.numpy().tobytes() == array.tobytes(), "backward changed an input"


@each_dtype
@each(DIFFERENTIABLE)
def test_differentiable_backward_agrees(op, dtype):
    """create_graph=True may go another way to the same gradient."""
    for arrays, options in samples(op, dtype):
        inputs = leaves(arrays)
        outputs = value(op, inputs, options)
        seeds = cotangents(outputs)
        expected = gradients(outputs, inputs, seeds, retain_graph=True)
        for dx, z in zip(
            gradients(outputs, inputs, seeds, create_graph=True), expected, strict=True
        ):
            assert dx.shape == z.shape and dx.dtype == z.dtype
            assert np.abs(dx - z).max(initial=0) <= 8 * op.ulps * np.finfo(dtype).eps * np.abs(
                z
            ).max(initial=0)


@each(DIFFERENTIABLE)
def test_recording(op):
    """A node only where a gradient is wanted and recording is on; the value is the same."""
    for arrays, options in samples(op, np.float32):
        inputs = leaves(arrays)
        outputs = value(op, inputs, options)
        assert all(y.requires_grad and not y.is_leaf and y.grad_fn.name for y in outputs)
        with mg.no_grad():
            silent = value(op, inputs, options)
        constant = value(op, [mg.Tensor(array) for array in arrays], options)
        for y, z, w in zip(outputs, silent, constant, strict=True):
            assert (
                not z.requires_grad
                and z.grad_fn is None
                and not w.requires_grad
                and w.grad_fn is None
            )
            assert same_bits([z.numpy(), w.numpy()], [y.numpy(), y.numpy()])


@each(DIFFERENTIABLE)
def test_no_cycle(op):
    """Outputs die with their last name, without the garbage collector, before and after a sweep."""
    for arrays, options in samples(op, np.float32):
        inputs = leaves(arrays)
        gc.disable()
        try:
            for retain in (None, True, False):
                outputs = value(op, inputs, options)
                watched = [weakref.ref(y) for y in outputs]
                if retain is not None:
                    mg.grad(
                        outputs,
                        inputs,
                        cotangents(outputs),
                        retain_graph=retain,
                        create_graph=retain,
                    )
                del outputs
                assert not any(ref() for ref in watched), (op, options, retain)
        finally:
            gc.enable()


# ---------------------------------------------------------------- memory


def layouts(array):
    """The same numbers in other memory: (name, array, array in C order to compare with)."""
    if array.ndim:
        yield "Fortran", np.asfortranarray(array), array
        yield "negative strides", np.flip(np.flip(array).copy()), array
        gaps = np.full([2 * n for n in array.shape], np.nan, array.dtype)
        gaps[tuple([slice(None, None, 2)] * array.ndim)] = array
        yield "gaps", gaps[tuple([slice(None, None, 2)] * array.ndim)], array
    if array.ndim and array.shape[-1]:
        repeated = np.broadcast_to(array[..., :1], array.shape)
        yield "stride 0", repeated, repeated.copy()
    locked = array.copy()
    locked.flags.writeable = False
    yield "read-only", locked, array
    memory = np.zeros(array.nbytes + 1, np.uint8)
    shifted = np.ndarray(array.shape, array.dtype, memory.data, offset=1)
    shifted[...] = array
    yield "misaligned", shifted, array
    yield "other byte order", array.astype(array.dtype.newbyteorder()), array


@each_dtype
@each(ROWS)
def test_memory_layout(op, dtype):
    """However an input lies in memory, value and gradients have the bits of the contiguous one, and
    the input stays as it was."""
    for arrays, options in samples(op, dtype):
        for i in range(len(arrays)):
            for name, laid, plain in layouts(arrays[i]):
                before = laid.tobytes()
                found = run(op, [*arrays[:i], laid, *arrays[i + 1 :]], options, copy=False)
                assert same_bits(found, run(op, [*arrays[:i], plain, *arrays[i + 1 :]], options)), (
                    name,
                    i,
                    options,
                )
                assert laid.tobytes() == before


@each_dtype
@each(ROWS)
def test_no_alias(op, dtype):
    for arrays, options in samples(op, dtype):
        inputs = leaves(arrays)
        outputs = value(op, inputs, options)
        if not op.view:
            assert not any(
                np.shares_memory(np.asarray(y), x.numpy()) for y in outputs for x in inputs
            )
        if op.differentiable:
            seeds = [mg.Tensor(v) for v in cotangents(outputs)]
            for y, v in zip(outputs, seeds, strict=True):
                y.backward(v, retain_graph=True)
            places = (
                [x.grad.numpy() for x in inputs]
                + [v.numpy() for v in seeds]
                + [x.numpy() for x in inputs]
            )
            for i in range(len(inputs)):
                assert not any(np.shares_memory(places[i], other) for other in places[i + 1 :]), (
                    f"the grad of input {i} is shared"
                )


# ---------------------------------------------------------------- bits


@each_dtype
@each(ROWS)
def test_same_bits_on_every_instruction_set(op, dtype):
    in_use = kernels.isa_in_use()
    for arrays, options in samples(op, dtype):
        expected = run(op, arrays, options)
        try:
            for isa in kernels._usable():
                kernels._use_isa(isa)
                assert same_bits(run(op, arrays, options), expected), isa
        finally:
            kernels._use_isa(in_use)


@each_dtype
@each(ROWS)
def test_same_bits_with_more_threads(op, dtype):
    before = mg.get_num_threads()
    for arrays, options in samples(op, dtype):
        try:
            results = []
            for n in (1, 3):
                mg.set_num_threads(n)
                results.append(run(op, arrays, options))
        finally:
            mg.set_num_threads(before)
        assert same_bits(*results)


# ---------------------------------------------------------------- what holds for elementwise ops


def resized(op, dtype, shapes):
    """Inputs of the given shapes, filled with numbers of the op's longest sample, and that sample's
    keyword arguments."""
    arrays, options = max(
        samples(op, dtype), key=lambda sample: sum(array.size for array in sample[0])
    )
    return [
        np.resize(array.ravel(), shape) for array, shape in zip(arrays, shapes, strict=False)
    ], options


def inputs_of(op):
    return len(samples(op, np.float32)[0][0])


@each_dtype
@each(ELEMENTWISE)
def test_position_does_not_matter(op, dtype):
    """The value and gradient of an element do not depend on where it stands in an array of 1 to
    65."""
    arrays, options = resized(op, dtype, [(65,)] * inputs_of(op))

    def both(part):
        inputs = leaves(part)
        y = op.fn(*inputs, **options)
        return [y.numpy(), *gradients(y, inputs, np.ones(y.shape, dtype))]

    whole = both(arrays)
    for n in range(1, 65):
        assert same_bits(both([array[:n] for array in arrays]), [z[:n] for z in whole]), n
        assert same_bits(both([array[n:] for array in arrays]), [z[n:] for z in whole]), n


@each([op for op in ELEMENTWISE if inputs_of(op) == 2])
def test_broadcasting(op):
    """All pairs of shapes with dimensions 1 and n, of 0 to 3 dimensions: like the op on arrays that
    were repeated first."""
    sizes = (2, 3, 4)
    shapes = [
        tuple(n if bit else 1 for n, bit in zip(sizes[3 - rank :], bits, strict=True))
        for rank in range(4)
        for bits in np.ndindex((2,) * rank)
    ]
    for one in shapes:
        for other in shapes:
            arrays, options = resized(op, np.float64, [one, other])
            inputs = leaves(arrays)
            y = op.fn(*inputs, **options)
            shape = np.broadcast_shapes(one, other)
            repeated = leaves([np.broadcast_to(array, shape) for array in arrays])
            z = op.fn(*repeated, **options)
            assert same_bits([y.numpy()], [z.numpy()])
            seeds = cotangents([y])
            for dx, dz, array in zip(
                gradients(y, inputs, seeds), gradients(z, repeated, seeds), arrays, strict=True
            ):
                lead = dz.ndim - array.ndim
                summed = dz.sum(
                    tuple(d for d in range(dz.ndim) if d < lead or array.shape[d - lead] == 1)
                ).reshape(array.shape)
                assert dx.shape == array.shape
                np.testing.assert_allclose(
                    dx, summed, rtol=1e-13, atol=1e-14, err_msg=f"{one} {other}"
                )


@each(ELEMENTWISE)
def test_method(op):
    """A Tensor method of the op's name is the op."""
    method = getattr(mg.Tensor, op.public, None)
    if method is not None and op.name == op.public:
        for arrays, options in samples(op, np.float32):
            inputs = leaves(arrays)
            assert same_bits(
                [method(*inputs, **options).numpy()], [op.fn(*inputs, **options).numpy()]
            )
