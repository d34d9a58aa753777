"""Makes pages of the explorer and checks them in Chromium (check.mjs).

    python tests/explorer/check.py [--pictures FOLDER]

Needs Node.js, Chromium at /usr/bin/chromium (or where CHROMIUM says), and npm's playwright-core and
axe-core, which it installs into build/explorer. --pictures takes the screenshots of
docs/explorer.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

import minigrad as mg

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "explorer"
sys.path.insert(0, str(HERE.parents[1] / "examples"))


def gradients(loss):
    """[op, norm of its gradient] for each op of a graph without layers, as it was made."""
    found = {}
    with mg.study.steps(loss, retain_graph=True) as run:
        for step in run:
            found[step.node.serial] = [step.name, float(np.linalg.norm(step.dy.numpy()))]
            leads_on = any(
                slot is not None and slot.__class__.__name__ == "Node" for slot in step.inputs
            )
            if not leads_on and len(run.pending) == 1:
                break
    return [found[serial] for serial in sorted(found)]


def diamond():
    """Ten ops that come apart and together again."""
    x = mg.Tensor([1.0, 2.0, -0.5], requires_grad=True)
    w = mg.Tensor([0.5, -1.0, 2.0], requires_grad=True)
    a = x * w
    b, c = mg.tanh(a), mg.sigmoid(a)
    d = b * c
    e = mg.exp(-d)
    f = (e + b) * c
    return (mg.sin(f) + a).sum(), {"x": x, "w": w}


def loop():
    """The LSTM of examples/scratch.py over 30 steps."""
    import scratch

    _, gates = scratch.NETWORKS["LSTM"]
    rng = np.random.default_rng(0)
    w = scratch.weights(rng, gates, 1, 16, 1)
    x = [mg.Tensor(rng.normal(size=(2, 1)).astype(np.float32)) for _ in range(30)]
    y = scratch.lstm(x, w, 2, 16)
    return (y * y).mean(), w


def trained():
    """A bidirectional LSTM of two layers that was trained to tell whether the first input of 200
    was positive: the gradient has to come back all the way."""
    mg.manual_seed(0)
    rng = np.random.default_rng(0)
    layer, head = mg.nn.LSTM(2, 16, 2, bidirectional=True), mg.nn.Linear(32, 2)
    parameters = [*layer.parameters(), *head.parameters()]
    adam = mg.optim.Adam(parameters, lr=0.01)

    def loss():
        x = rng.normal(size=(200, 8, 2)).astype(np.float32)
        out, _ = layer(x)
        return mg.cross_entropy(head(out[-1]), (x[0, :, 0] > 0).astype(int))

    for _ in range(30):
        loss().backward()
        mg.optim.clip_grad_norm_(parameters, 1.0)
        adam.step()
        adam.zero_grad()
    return loss(), dict(layer.named_parameters()) | {"head": head.weight}


def hostile():
    """Names that would end the script, and a value that is not finite."""
    x = mg.Tensor([0.0, 1.0], requires_grad=True)
    name = "</script><script>window.injected = 1</script><!--"
    with mg.study.scope("<img src=x onerror='window.injected = 2'>"):
        return (mg.log(x) * mg.Tensor([1.0, 2.0])).sum(), {name: x}


def large():
    """An LSTM's cell over so many steps that there are more than 100,000 vertices."""
    cell = mg.nn.LSTMCell(3, 4)
    x = np.random.default_rng(0).normal(size=(5680, 1, 3)).astype(np.float32)
    out, _ = mg.nn.unroll(cell, x)
    return (out * out).sum(), dict(cell.named_parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="take screenshots into this folder")
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["npm", "install", "--no-save", "--silent", "playwright-core", "axe-core"],
        cwd=FOLDER,
        check=True,
    )
    expected = {}
    for make in (diamond, loop, trained, hostile, large):
        with mg.study.record(values="strips") as recording:
            loss, names = make()
        path = mg.study.explore(loss, FOLDER / f"{make.__name__}.html", names)
        size = path.stat().st_size / 1e6
        print(f"{make.__name__}: {len(recording.entries):,} ops, {size:.2f} MB")
        if make in (diamond, loop):
            expected[make.__name__] = {"ops": gradients(loss), "leaves": list(names)}
    with mg.study.record(values="strips") as recording:
        loss, names = diamond()
        loss.backward()
    mg.study.explore(recording, FOLDER / "recorded.html", names)
    (FOLDER / "expected.json").write_text(json.dumps(expected))
    command = ["node", str(HERE / "check.mjs"), str(FOLDER)]
    if args.pictures:
        command.append(str(args.pictures.resolve()))
    sys.exit(subprocess.run(command, cwd=FOLDER).returncode)


if __name__ == "__main__":
    main()
