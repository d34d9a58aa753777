"""python -m minigrad.study, at a terminal and by a pipe."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minigrad as mg

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(mg.__file__).parents[1]), "TERM": "dumb"}
SCRIPT = """
import minigrad as mg
w = {"W1": mg.Tensor([2.0], requires_grad=True), "W2": mg.Tensor([0.0], requires_grad=True)}
def train():
    for _ in range(2):
        loss = (mg.tanh(w["W1"] * 3.0) + mg.sqrt(w["W2"])).sum()
        loss.backward()
try:
    train()
finally:
    print("grads", w["W1"].grad, w["W2"].grad)
"""


def run(arguments, commands):
    done = subprocess.run(
        [sys.executable, "-m", "minigrad.study", *map(str, arguments)],
        input="".join(command + "\n" for command in commands),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.slow
def test_next_print_and_leave(script):
    commands = ["p dx", "n", "p rule", "p so_far", "p this", "w", "u", "u", "u", "x", "h", "q"]
    code, out, err = run([script], commands)
    assert code == 0, err
    assert "backward pass at" in out and "train: loss.backward()" in out
    assert "1 sum of add" in out and "2 add of tanh, sqrt" in out
    assert "z = a + b   da = dz, db = dz\n" in out and "elementwise.pyx:" in out
    assert "p takes one of dy, dx, saved, so_far, rule" in out
    assert f"> {script}:7, train: loss.backward()" in out
    assert re.search(r">\s+9     train\(\)", out) and "this is the outermost line" in out
    assert "there is no command 'x'" in out and "give the backward pass up" in out
    assert out.endswith("grads None None\n")


@pytest.mark.slow
def test_breaks(script):
    code, out, err = run([script], ["b nonfinite", "b tanh", "b", "c", "p dx", "c", "p saved", "c"])
    assert code == 0, err
    assert "breaks: nonfinite, tanh" in out
    stops = re.findall(r"^(?:\(study\) )*(\d+ \w+) of (.*)$", out, re.MULTILINE)
    assert stops == [("1 sum", "add"), ("3 sqrt", "w['W2'] (1,)"), ("4 tanh", "mul")]
    assert "(Tensor([inf])," in out
    assert "has run to its end; the script goes on" in out
    assert "grads Tensor([" in out  # the second backward does not stop


@pytest.mark.slow
def test_expand(tmp_path):
    """Into a fused layer, to a break inside, back; inside to the end; on."""
    script = tmp_path / "layer.py"
    script.write_text(
        "import minigrad as mg\n"
        "layer = mg.nn.LSTM(2, 3)\n"
        "out, _ = layer(mg.ones((4, 1, 2)))\n"
        "out.sum().backward()\n"
        "print('grad of', layer.cells[0].U.grad.shape)\n"
    )
    commands = ["e", "b lstm", "c", "e", "b tanh", "c", "w", "p dx", "q", "expand", "c", "n"]
    code, out, err = run([script], commands)
    assert code == 0, err
    assert "(study) steps: only a fused layer can be expanded, sum is none" in out
    assert "(study) 1 stack of mul, mul, mul, mul" in out
    assert "(inside) breaks: tanh" in out
    assert re.search(r"\(inside\) 3 tanh of add\n +LSTM/LSTMCell, t = 3, .*:3: out, _ = layer", out)
    assert "waiting: sigmoid, mul" in out and "(inside) (Tensor([[" in out
    assert "(inside) the pass through the layer has run to its end\n3 lstm of" in out
    assert out.endswith("grad of (3, 12)\n")
    assert out.count("(inside)") == 6  # five commands and the end


@pytest.mark.slow
def test_where_tells_line_module_and_time_step(tmp_path):
    script = tmp_path / "loop.py"
    script.write_text(
        "import minigrad as mg\n"
        "layer = mg.nn.Recurrent(lambda features: mg.nn.RNNCell(features, 2), 1)\n"
        "with mg.study.scope('train'):\n"
        "    out, _ = layer(mg.ones((3, 1, 1)))\n"
        "out.sum().backward()\n"
    )
    code, out, err = run([script], ["b tanh", "c", "c", "w", "q"])
    assert code == 0, err
    shown = r" tanh of addmm\n +train/Recurrent/cells.0, t = 1, .*loop.py:4: out, _ = layer"
    assert len(re.findall(shown, out)) == 2  # when it stopped there, and for w
    assert re.search(r"> .*loop.py:5, <module>: out.sum\(\).backward\(\)\n\d+" + shown, out)


@pytest.mark.slow
def test_scripts_without_a_backward_pass_and_bad_arguments(tmp_path):
    script = tmp_path / "short.py"
    script.write_text("import sys; print(sys.argv)")
    code, out, _ = run([script, "--steps", "3"], [])
    assert code == 0 and "'--steps', '3'" in out and "made no backward pass" in out
    code, _, err = run([tmp_path / "none.py"], [])
    assert code == 2 and "no such file" in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.skipif(not (ROOT / "examples").is_dir(), reason="needs the examples of a clone")
@pytest.mark.slow
def test_an_example_at_a_terminal(tmp_path):
    import pty

    script = ROOT / "examples" / "scratch.py"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "minigrad.study", script, "--steps=3", "--plot="],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,  # in the root Python would find the source folder first
        env=ENVIRONMENT,
    )
    os.close(theirs)

    def read_until(text):
        """What comes until `text` is there."""
        got, end = "", time.monotonic() + 120
        while text not in got:
            assert time.monotonic() < end, got
            try:
                got += os.read(ours, 4096).decode()
            except OSError:  # Linux ends so, where others give b""
                break
        assert text in got, got
        return got

    def command(text):
        os.write(ours, text.encode() + b"\n")
        return read_until("(study) ")

    try:
        assert "1 mean of mul" in read_until("(study) ")
        assert "2 mul of sub, sub" in command("n")
        assert "train: loss.backward()" in command("w")
        assert "y = tanh x" in command("b tanh") + command("c")
        assert "Tensor(" in command("p dx")
        assert "Tensor(" in command("p saved")
        assert "losses = " in command("u") + command("u")
        assert "breaks: tanh" in command("b")
        assert "tanh of" in command("continue")
        os.write(ours, b"q\n")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
