"""examples/scratch.py: its networks are those of minigrad.nn to rounding, all three learn, refusals
are one line."""

import inspect
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from running import Script

import minigrad as mg

SCRIPT = Script("scratch")
run = SCRIPT.run


@pytest.fixture(scope="module")
def scratch():
    return SCRIPT.load()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_each_is_the_layer_of_nn(scratch, kind):
    """The same weights, the same outputs and gradients; float32, so up to its rounding."""
    T, B, I, H = 7, 3, 2, 5
    network, gates = scratch.NETWORKS[kind]
    w = scratch.weights(np.random.default_rng(0), gates, I, H, 1)
    layer = getattr(mg.nn, kind)(I, H, bias=kind != "RNN")
    cell, letters = layer.cells[0], {"g": "c", "h": ""}
    with mg.no_grad():
        for name in cell.gates:
            letter = letters.get(name, name)
            cell.gate(name).W[...], cell.gate(name).U[...] = w[f"W2{letter}"], w[f"W1{letter}"]
            if cell.b is not None:
                cell.gate(name).b[...] = w[f"b{letter}"]
    x = mg.Tensor(np.random.default_rng(1).standard_normal((T, B, I)).astype(np.float32))
    y = network(x, w, B, H)
    expected = layer(x)[0] @ w["W3"].detach()
    assert y.shape == (T, B, 1) and np.allclose(y, expected, rtol=1e-5, atol=1e-5)
    cotangent = mg.Tensor(np.random.default_rng(2).standard_normal(y.shape).astype(np.float32))
    (y * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    H = cell.hidden_size
    for k, name in enumerate(cell.gates):
        for mine, theirs in (("W2", cell.W), ("W1", cell.U)):
            part = theirs.grad.numpy()[:, k * H : (k + 1) * H]
            assert np.allclose(
                w[mine + letters.get(name, name)].grad, part, rtol=1e-4, atol=1e-4
            ), (name, mine)


def test_no_help_from_nn_and_about_ten_lines_each(scratch):
    source = SCRIPT.path.read_text(encoding="utf-8")
    assert "mg.nn" not in source and "import nn" not in source
    for network, _ in scratch.NETWORKS.values():
        lines = inspect.getsource(network).splitlines()
        assert len([line for line in lines if not line.strip().startswith("#")]) <= 13


@pytest.mark.slow
def test_all_three_learn(tmp_path):
    done = run("--steps", 300, folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    last = [line for line in done.stdout.splitlines() if line.startswith("    step   300")]
    right = [float(line.split("right ")[1].split("%")[0]) for line in last]
    assert len(right) == 3 and min(right) > 95, done.stdout


def test_the_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    done = run("--steps", 2, "--plot", "picture.png", "--graph", "graph.svg", folder=tmp_path)
    assert done.returncode == 0 and (tmp_path / "picture.png").read_bytes().startswith(
        b"\x89PNG"
    ), done.stderr
    labels = [
        e.text
        for e in ElementTree.parse(tmp_path / "graph.svg").getroot()
        if e.tag.endswith("text")
    ]
    assert labels.count("W1 (4, 4)") == 1 and labels.count("tanh") == 3 and labels[-1] == "stack"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--length", 2), "argument --length: must be at least 3, got 2"),
        (("--steps", 0), "argument --steps: must be at least 1, got 0"),
        (("--hidden", "x"), "argument --hidden: invalid int value: 'x'"),
        (("--seed", -1), "argument --seed: must be at least 0, got -1"),
        (("--graph", "no/such/folder.svg", "--steps", 1), "cannot write no/such/folder.svg"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    done = run(*arguments, folder=tmp_path)
    assert (
        done.returncode == 2
        and done.stderr.startswith("scratch: ")
        and done.stderr.count("\n") == 1
    )
    assert message in done.stderr
