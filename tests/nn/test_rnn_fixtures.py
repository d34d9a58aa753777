"""The recurrent layers against other libraries: PyTorch's and ONNX Runtime's numbers, stored in
tests/fixtures."""

import json
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from minigrad.nn.arguments import Steps
from minigrad.nn.fused import sequence

nn = mg.nn


def fixtures(name):
    folder = Path(Path(__file__).parents[1], "fixtures", "rnn")
    if not folder.is_dir():
        return None, []
    return np.load(folder / f"{name}.npz"), json.loads((folder / f"{name}.json").read_text())[
        "cases"
    ]


TORCH, TORCH_CASES = fixtures("torch_rnn")
ORT, ORT_CASES = fixtures("ort_rnn")
needs_fixtures = pytest.mark.skipif(TORCH is None, reason="skipped: tests/fixtures is not there")


def close(found, expected, what):
    np.testing.assert_allclose(
        found,
        expected,
        rtol=1e-10,
        atol=1e-10 * max(1e-3, np.abs(expected).max(initial=0)),
        err_msg=what,
    )


def arrays_of(stored, case):
    """The arrays of a case, by their names without its prefix."""
    prefix = case["prefix"]
    return {k.removeprefix(prefix): stored[k] for k in stored.files if k.startswith(prefix)}


def torch_layer(case, z):
    """The layer with PyTorch's weights, and the names of its cells."""
    H, cell = case["H"], case["cell"]
    extra = {}
    if cell == "RNN":
        extra = {"nonlinearity": case["nonlinearity"]}
    if cell == "GRU":
        extra = {"reset_after": True}
    layer = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}[cell](
        case["I"],
        H,
        case["layers"],
        case["bidirectional"],
        bias=case["bias"],
        dtype=np.float64,
        **extra,
    )
    names = [
        f"l{k}{d}"
        for k in range(case["layers"])
        for d in (["", "_reverse"] if case["bidirectional"] else [""])
    ]
    with mg.no_grad():
        for c, n in zip(layer.cells, names, strict=True):
            c.W[...], c.U[...] = z[f"weight_ih_{n}"].T, z[f"weight_hh_{n}"].T
            if case["bias"]:
                outer, inner = z[f"bias_ih_{n}"], z[f"bias_hh_{n}"]
                both = outer + inner
                if cell == "GRU":
                    both = np.concatenate([both[: 2 * H], outer[2 * H :], inner[2 * H :]])
                c.b[...] = both
    return layer, names


@needs_fixtures
@pytest.mark.parametrize("case", TORCH_CASES, ids=lambda c: c["prefix"] + c["name"])
def test_torch_fixtures(case):
    """PyTorch: weights (out, in), two biases a gate that are added, but for the GRU's inner one."""
    if case["proj"]:
        pytest.skip("projections are not offered")
    z = arrays_of(TORCH, case)
    H, cell = case["H"], case["cell"]
    layer, names = torch_layer(case, z)
    x = mg.Tensor(z["x"], requires_grad=True)
    state = None
    if case["initial_state"]:
        initial = ["h0", "c0"] if cell == "LSTM" else ["h0"]
        state = layer.state_type(*(mg.Tensor(z[n], requires_grad=True) for n in initial))
    out, final = layer(x, state, case["lengths"])
    for found, name in zip((out, *final), case["outputs"], strict=True):
        close(found.numpy(), z[f"out_{name}"], name)
    total = sum(
        (y * mg.Tensor(z[f"cot_{n}"])).sum()
        for y, n in zip((out, *final), case["outputs"], strict=True)
        if f"cot_{n}" in z
    )
    total.backward()
    close(x.grad.numpy(), z["grad_x"], "dx")
    for name, value in zip(("h0", "c0"), state or (), strict=False):
        close(value.grad.numpy(), z[f"grad_{name}"], name)
    for c, n in zip(layer.cells, names, strict=True):
        close(c.W.grad.numpy().T, z[f"grad_weight_ih_{n}"], "dW")
        close(c.U.grad.numpy().T, z[f"grad_weight_hh_{n}"], "dU")
        if case["bias"]:
            close(c.b.grad.numpy()[: z[f"grad_bias_ih_{n}"].size], z[f"grad_bias_ih_{n}"], "db")
            if cell == "GRU":
                close(c.b.grad.numpy()[3 * H :], z[f"grad_bias_hh_{n}"][2 * H :], "db_u")


GATE_ORDER = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}  # ours in ONNX's


def onnx_cell(op, attributes, z, d, turned):
    """The cell of a direction with ONNX's weights."""
    I, H, G = z["W"].shape[2], attributes["hidden_size"], len(GATE_ORDER[op])
    after = bool(attributes.get("linear_before_reset", 0))
    activation = attributes.get("activations", ["tanh"])[0].lower()
    if op == "RNN":
        nonlinearity = "relu" if activation == "relu" else "tanh"
        cell = nn.RNNCell(I, H, nonlinearity=nonlinearity, dtype=np.float64)
    elif op == "LSTM":
        cell = nn.LSTMCell(I, H, peepholes="P" in z, dtype=np.float64)
    else:
        cell = nn.GRUCell(I, H, reset_after=after, dtype=np.float64)
    with mg.no_grad():
        cell.W[...], cell.U[...] = turned(z["W"][d]).T, turned(z["R"][d]).T
        outer, inner = np.zeros((2, G * H))
        if "B" in z:
            outer, inner = np.split(z["B"][d].astype(np.float64), 2)
        both = turned(outer + inner)
        if after:
            both = np.concatenate([both[: 2 * H], turned(outer)[2 * H :], turned(inner)[2 * H :]])
        cell.b[...] = both
        if "P" in z:
            i, o, f = np.split(z["P"][d].astype(np.float64), 3)
            cell.p[...] = np.stack([i, f, o])
    return cell


@needs_fixtures
@pytest.mark.parametrize("case", ORT_CASES, ids=lambda c: c["prefix"] + c["name"])
def test_onnx_fixtures(case):
    """ONNX: W (D, G H, I), R, B (D, 2 G H), gates i o f c or z r h, peepholes P i o f; outputs by
    ONNX Runtime, gradients by JAX."""
    z = arrays_of(ORT, case)
    op, attributes, H = case["op"], case["attrs"], case["attrs"]["hidden_size"]
    order = GATE_ORDER[op]
    D, G = z["W"].shape[0], len(order)

    def turned(m):
        return np.concatenate([m[k * H : (k + 1) * H] for k in order]).astype(np.float64)

    x = mg.Tensor(z["X"].astype(np.float64), requires_grad=True)
    lengths = z.get("sequence_lens")
    outs, finals, leaves = [], [], []
    for d in range(D):
        cell = onnx_cell(op, attributes, z, d, turned)
        state = [
            mg.Tensor(z[n][d].astype(np.float64), requires_grad=True)
            for n in ("initial_h", "initial_c")
            if n in z
        ]
        two = op == "LSTM"
        initial = None if not state else tuple(state) if two else state[0]
        reverse = attributes["direction"] == "reverse" or d == 1
        composed_form = nn.unroll(cell, x, initial, lengths=lengths, reverse=reverse)
        fused = sequence(
            cell.kind,
            x,
            *([*state, None, None][:2] if state else (None, None)),
            *cell.weights(),
            steps=Steps("LSTM", *x.shape[:2], lengths, None),
            reverse=reverse,
        )
        final = composed_form[1] if two else (composed_form[1],)
        for a, b in zip((composed_form[0], *final), fused, strict=True):
            assert np.array_equal(a.numpy(), b.numpy())
        outs.append(fused[0])
        finals.append(fused[1:])
        leaves.append((cell, state))
    out = mg.stack(outs, 1)
    results = {"Y": out, "Y_h": mg.stack([f[0] for f in finals])} | (
        {"Y_c": mg.stack([f[1] for f in finals])} if op == "LSTM" else {}
    )
    total = 0.0
    for name in case["outputs"]:
        close(results[name].numpy(), z[f"out64_{name}"], name)
        total = total + (results[name] * mg.Tensor(z[f"cot_{name}"])).sum()
    total.backward()
    close(x.grad.numpy(), z["grad_X"], "dX")
    for d, (cell, state) in enumerate(leaves):
        close(cell.W.grad.numpy().T, turned(z["grad_W"][d]), "dW")
        close(cell.U.grad.numpy().T, turned(z["grad_R"][d]), "dR")
        for name, value in zip(("initial_h", "initial_c"), state, strict=False):
            close(value.grad.numpy(), z[f"grad_{name}"][d], name)
        if "B" in z:
            close(cell.b.grad.numpy()[: G * H], turned(z["grad_B"][d][: G * H]), "dB")
        if "P" in z:
            i, o, f = np.split(z["grad_P"][d], 3)
            close(cell.p.grad.numpy(), np.stack([i, f, o]), "dP")
