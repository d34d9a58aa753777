"""Prints one line for each result of minigrad that must not change by a bit: a name and a hash of
values and gradients.

    python tests/print_bits.py > before.txt        (on one commit; then the same on the other)
    diff before.txt after.txt

Values, gradients and second derivatives of every row of the table of ops, layers and loops over
many options, optimisers, modules, and short runs of the examples (their printed numbers without the
times). --rows DIR takes the rows of another checkout's tests, so that both runs compute the same.
MINIGRAD_ISA and MINIGRAD_NUM_THREADS work as everywhere.
"""

import argparse
import hashlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

import minigrad as mg

HERE = Path(__file__).resolve().parent


def show(name, *arrays):
    """A line for some arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    print(name, digest.hexdigest()[:16], flush=True)


def arrays_of(values):
    return [
        np.asarray(v.numpy() if isinstance(v, mg.Tensor) else v) for v in values if v is not None
    ]


def listed(y):
    return list(y) if isinstance(y, (tuple, list)) else [y]


def op_bits(op, dtype):
    """Values, gradients and second derivatives of one row of the table."""
    from op_table import split

    for number, sample in enumerate(op.samples(np.random.default_rng(7), dtype)):
        arrays, options = split(sample)
        name = f"op {op.name} {np.dtype(dtype).name} {number}"
        inputs = [mg.Tensor(a, requires_grad=True) for a in arrays]
        outputs = listed(op.fn(*inputs, **options))
        if not op.differentiable:
            show(name, *arrays_of(outputs))
            continue
        rng = np.random.default_rng(11)
        seeds = [
            mg.Tensor(rng.normal(size=y.shape).astype(y.dtype), requires_grad=True) for y in outputs
        ]
        first = mg.grad(outputs, inputs, seeds, create_graph=True, allow_unused=True)
        show(name, *arrays_of(outputs), *arrays_of(first))
        plain = mg.grad(listed(op.fn(*inputs, **options)), inputs, seeds, allow_unused=True)
        show(name + " plain", *arrays_of(plain))
        pairs = [dx for dx in first if dx is not None and dx.requires_grad]
        if pairs:
            others = [mg.Tensor(rng.normal(size=dx.shape).astype(dx.dtype)) for dx in pairs]
            second = mg.grad(pairs, inputs + seeds, others, allow_unused=True)
            show(name + " second", *arrays_of(second))


LAYERS = {
    "rnn": (mg.nn.RNN, {}),
    "rnn_relu": (mg.nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (mg.nn.LSTM, {}),
    "lstm_peepholes": (mg.nn.LSTM, {"peepholes": True}),
    "gru": (mg.nn.GRU, {"reset_after": False}),
    "gru_after": (mg.nn.GRU, {"reset_after": True}),
}


def layer_bits(kind, dtype, layers, both, bias, varied, masked, checkpoint, clipped):
    """Outputs, gradients of x, states and all weights; a training step of Adam."""
    make, options = LAYERS[kind]
    mg.manual_seed(3)
    rng = np.random.default_rng(5)
    T, B, I, H = 7, 5, 3, 6
    try:
        layer = make(
            I,
            H,
            num_layers=layers,
            bidirectional=both,
            bias=bias,
            dtype=dtype,
            rng=np.random.default_rng(2),
            dropout=0.3 if masked else 0.0,
            recurrent_dropout=0.2 if masked else 0.0,
            checkpoint="sqrt" if checkpoint else None,
            clip_state_grad=0.05 if clipped else None,
            **options,
        )
    except TypeError as error:
        print("no such option", kind, error)
        return
    x = mg.Tensor(rng.normal(size=(T, B, I)).astype(dtype), requires_grad=True)
    rows = layers * (2 if both else 1)
    state = tuple(
        mg.Tensor(rng.normal(size=(rows, B, H)).astype(dtype), requires_grad=True)
        for _ in range(2 if "lstm" in kind else 1)
    )
    call = {}
    if varied:
        call = {"lengths": np.array([7, 3, 0, 5, 1]), "reset": rng.random((T, B)) < 0.2}
    y, last = layer(x, state if len(state) > 1 else state[0], **call)
    outputs = [y, *last]
    seeds = [mg.Tensor(rng.normal(size=t.shape).astype(t.dtype)) for t in outputs]
    inputs = [x, *state, *layer.parameters()]
    gradients = mg.grad(outputs, inputs, seeds, retain_graph=True, allow_unused=True)
    switches = f"{both} {bias} {varied} {masked} {checkpoint} {clipped}"
    name = f"layer {kind} {np.dtype(dtype).name} {layers} {switches}"
    show(name, *arrays_of(outputs), *arrays_of(gradients))
    optimizer = mg.optim.Adam(layer.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        y, last = layer(x.detach(), **call)
        (y * y).mean().backward()
        optimizer.step()
    show(name + " trained", *arrays_of(layer.parameters()))


def loop_bits(kind, dtype, reverse):
    """A cell in a loop of ops."""
    make = {"rnn": mg.nn.RNNCell, "lstm": mg.nn.LSTMCell, "gru": mg.nn.GRUCell}[kind]
    rng = np.random.default_rng(5)
    cell = make(3, 4, dtype=dtype, rng=np.random.default_rng(2))
    x = mg.Tensor(rng.normal(size=(6, 5, 3)).astype(dtype), requires_grad=True)
    y, last = mg.nn.unroll(cell, x, lengths=np.array([6, 0, 3, 5, 1]), reverse=reverse)
    seed = mg.Tensor(rng.normal(size=y.shape).astype(dtype))
    gradients = mg.grad([y], [x, *cell.parameters()], [seed])
    show(f"loop {kind} {np.dtype(dtype).name} {reverse}", *arrays_of([y]), *arrays_of(gradients))


OPTIMISERS = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1},
    ],
    "RMSprop": [{}, {"centered": True}, {"momentum": 0.9, "weight_decay": 0.1}],
    "Adam": [
        {},
        {"amsgrad": True},
        {"weight_decay": 0.1, "betas": (0.5, 0.7)},
        {"betas": (0.0, 0.9)},
    ],
    "AdamW": [{}, {"weight_decay": 0.2}],
    "Adagrad": [{}, {"lr_decay": 0.1}],
}


def optimiser_bits(kind, number, options, dtype):
    rng = np.random.default_rng(1)
    parameters = [
        mg.Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True)
        for shape in ((3, 4), (17,), (300, 70))
    ]
    optimiser = getattr(mg.optim, kind)(parameters, lr=0.03, **options)
    schedules = mg.schedule if hasattr(mg, "schedule") else mg.optim.schedule
    schedule = schedules.CosineAnnealingLR(optimiser, 9)
    for _ in range(12):
        optimiser.zero_grad()
        loss = sum(
            (
                (p * p).sum() * 0.5 + (p * mg.Tensor(rng.normal(size=p.shape).astype(dtype))).sum()
                for p in parameters
            ),
            0,
        )
        loss.backward()
        mg.optim.clip_grad_norm_(parameters, 3.0)
        optimiser.step()
        schedule.step()
    show(f"optim {kind} {number} {np.dtype(dtype).name}", *arrays_of(parameters))


def large_bits(dtype):
    """Shapes that run on several threads and through every tail."""
    rng = np.random.default_rng(3)
    for m, k, n in ((1, 700, 33), (129, 65, 257), (300, 200, 130), (64, 1000, 7)):
        a = mg.Tensor(rng.normal(size=(m, k)).astype(dtype), requires_grad=True)
        b = mg.Tensor(rng.normal(size=(k, n)).astype(dtype), requires_grad=True)
        y = a @ b
        gradients = mg.grad([y], [a, b], [mg.Tensor(rng.normal(size=y.shape).astype(dtype))])
        show(f"matmul {np.dtype(dtype).name} {m} {k} {n}", *arrays_of([y, *gradients]))
    x = mg.Tensor(rng.normal(size=(500, 300)).astype(dtype), requires_grad=True)
    for name in (
        "exp",
        "tanh",
        "sigmoid",
        "sin",
        "cos",
        "softplus",
        "relu",
        "sum",
        "mean",
        "var",
        "softmax",
        "log_softmax",
        "logsumexp",
    ):
        fn = getattr(mg, name)
        for axis in (
            (None,)
            if name in ("exp", "tanh", "sigmoid", "sin", "cos", "softplus", "relu")
            else (0, 1)
        ):
            y = fn(x) if axis is None else fn(x, axis=axis)
            gradients = mg.grad([y], [x], [mg.Tensor(rng.normal(size=y.shape).astype(dtype))])
            show(f"large {name} {axis} {np.dtype(dtype).name}", *arrays_of([y, *gradients]))
    for kind in ("lstm", "gru", "rnn"):
        layer = LAYERS[kind][0](
            40, 96, num_layers=2, bidirectional=True, dtype=dtype, rng=np.random.default_rng(2)
        )
        y, last = layer(mg.Tensor(rng.normal(size=(20, 33, 40)).astype(dtype)))
        y.backward(mg.Tensor(rng.normal(size=y.shape).astype(dtype)))
        show(
            f"large layer {kind} {np.dtype(dtype).name}",
            *arrays_of([y, *last]),
            *arrays_of([p.grad for p in layer.parameters()]),
        )


EXAMPLES = {
    "scratch": ["--steps", "20"],
    "adding": ["--length", "20", "--steps", "30", "--hidden", "16"],
    "vanishing": ["--length", "30", "--steps", "30", "--hidden", "16"],
    "tagging": ["--epochs", "1"],
    "forecast": ["--epochs", "2"],
    "classify": ["--epochs", "2", "--seed", "0"],
    "music": ["--data", "synthetic", "--epochs", "2"],
    "char_lm": ["--steps", "20", "--hidden", "24"],
}


def example_bits(name, options, folder):
    """What a short run of an example prints, without what differs from run to run."""
    path = [str(Path(mg.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, str(folder / f"{name}.py"), *options],
            cwd=place,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        )
    numbers = re.findall(
        r"\d+\.\d{2,}", re.sub(r"[\d.,]+ ?(s|ms|min|seconds|/s)\b", "", done.stdout)
    )
    print(
        "example",
        name,
        done.returncode,
        hashlib.sha256(" ".join(numbers).encode()).hexdigest()[:16],
        len(numbers),
        flush=True,
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows",
        type=Path,
        default=HERE / "ops",
        help="folder of op_table.py and the rows (default: this one)",
    )
    parser.add_argument("--examples", type=Path, help="also run the examples of this folder")
    args = parser.parse_args()
    sys.path.insert(0, str(args.rows))
    warnings.simplefilter("ignore")
    from op_table import rows

    for op in rows():
        for dtype in (np.float32, np.float64):
            op_bits(op, dtype)
    for dtype in (np.float32, np.float64):
        for kind in LAYERS:
            for options in itertools.product((1, 2), *[(False, True)] * 6):
                layer_bits(kind, dtype, *options)
        for kind in ("rnn", "lstm", "gru"):
            for reverse in (False, True):
                loop_bits(kind, dtype, reverse)
        for kind, variants in OPTIMISERS.items():
            for number, options in enumerate(variants):
                optimiser_bits(kind, number, options, dtype)
        large_bits(dtype)
    if args.examples:
        for name, options in EXAMPLES.items():
            example_bits(name, options, args.examples)


if __name__ == "__main__":
    main()
