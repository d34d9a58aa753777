"""Trains a character LSTM on a text and prints samples of what it has learnt.

    python examples/char_lm.py                              on prose that every Python ships, about two minutes
    python examples/char_lm.py --text FILE                  on any UTF-8 text
    python examples/char_lm.py --save m.safetensors         and later: --resume m.safetensors --steps 3000
    python examples/char_lm.py --steps 50                   a short look

While it runs it prints the loss in nats per character, bits per character, characters per second, the norm of the gradient and
the time left. The last tenth of the text is held out; the loss on it is printed at the end, with samples. --plot draws the curve
of the training loss, where matplotlib is installed. Ctrl-C saves (with --save) and leaves.
"""
import argparse
import math
import os
import signal
import sys
import time

import numpy as np

import minigrad as mg


class CharLM(mg.nn.Module):
    """Characters -> embedding -> LSTM -> logits of the next character."""

    def __init__(self, characters: int, embedding: int, hidden: int) -> None:
        self.embed = mg.nn.Embedding(characters, embedding)
        self.lstm = mg.nn.LSTM(embedding, hidden)
        self.head = mg.nn.Linear(hidden, characters)

    def forward(self, indices, state=None, composed=False):
        x = self.embed(indices)
        if composed:        # the same layer op by op: the specification
            out, (h, c) = mg.nn.unroll(self.lstm.cells[0], x, None if state is None else (state.h[0], state.c[0]))
            return self.head(out), mg.nn.CellState(mg.stack([h]), mg.stack([c]))
        out, state = self.lstm(x, state)
        return self.head(out), state


def fail(message: str) -> None:
    """One clear line, exit status 2."""
    print(f"char_lm: {message}", file=sys.stderr)
    sys.exit(2)


def read_text(path: str | None) -> str:
    if path is None:
        from pydoc_data.topics import topics
        return "\n".join(topics[key] for key in sorted(topics))
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        fail(f"{path} is not UTF-8 text: {error}")
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror or error}")
    if len(text) < 1000:
        fail(f"{path} has {len(text)} characters, at least 1000 are needed")
    return text


def held_out_loss(model: CharLM, data: np.ndarray, length: int = 1000) -> float:
    """Nats per character on data, read as one sequence in pieces with the state carried on."""
    total, count, state = 0.0, 0, None
    with mg.no_grad():
        for start in range(0, len(data) - 1, length):
            piece = data[start:start + length + 1]
            logits, state = model(piece[:-1, None], state)
            total += mg.cross_entropy(logits, piece[1:, None], reduction="sum").item()
            count += len(piece) - 1
    return total / count


def sample(model: CharLM, characters: list[str], prompt: np.ndarray, length: int, temperature: float,
           rng: np.random.Generator) -> str:
    """`length` characters drawn one after another; a low temperature prefers the likely ones."""
    text = []
    with mg.no_grad():
        logits, state = model(prompt[:, None])
        for _ in range(length):
            p = mg.softmax(logits[-1, 0] / temperature).numpy().astype(np.float64)
            index = rng.choice(len(characters), p=p / p.sum())
            text.append(characters[index])
            logits, state = model(np.array([[index]]), state)
    return "".join(text)


def checkpoint(path: str, model: CharLM, optimizer: mg.optim.Adam, state, step: int, curve: list, characters: list[str],
               options: dict) -> None:
    adam = optimizer.state_dict()
    arrays = {f"model.{k}": v for k, v in model.state_dict().items()}
    arrays |= {f"adam.{k}": v for k, v in adam.items() if isinstance(v, np.ndarray)}
    if state is not None:
        arrays |= {"state.h": state.h.numpy(), "state.c": state.c.numpy()}
    extra = {"step": step, "adam": {k: adam[k] for k in ("param_groups", "steps")}, "curve": curve, "characters": characters,
             "options": options}
    try:
        mg.save(path, arrays, extra)
    except OSError as error:
        fail(f"cannot save {path}: {error.strerror or error}")


def restore(path: str, model: CharLM, optimizer: mg.optim.Adam, characters: list[str], options: dict):
    try:
        arrays, extra = mg.load(path)
        if not isinstance(extra, dict) or extra.get("characters") != characters or extra.get("options") != options:
            raise ValueError("it belongs to another model or text (same --text, --hidden, --batch, --length are needed)")
        step, curve, state = extra["step"], extra["curve"], None
        if type(step) is not int or step < 0 or not isinstance(curve, list) or [type(v) for v in curve] != [float] * step:
            raise ValueError("its step and its losses do not belong together")
        if step:
            h, c = arrays["state.h"], arrays["state.c"]
            expected = (1, options["batch"], options["hidden"])
            if not h.shape == c.shape == expected or not h.dtype == c.dtype == np.float32:
                raise ValueError(f"the LSTM's state must be two arrays of shape {expected}, float32")
            state = mg.nn.CellState(mg.Tensor(h), mg.Tensor(c))
        model.load_state_dict({k[6:]: v for k, v in arrays.items() if k.startswith("model.")})
        optimizer.load_state_dict(extra["adam"] | {k[5:]: v for k, v in arrays.items() if k.startswith("adam.")})
    except OSError as error:
        fail(f"cannot resume from {path}: {error.strerror or error}")
    except KeyError as error:
        fail(f"cannot resume from {path}: it has no {error}")
    except (TypeError, ValueError) as error:
        fail(f"cannot resume from {path}: {error}")
    return state, step, curve


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", metavar="FILE", help="UTF-8 text to learn (default: the help topics of Python)")
    parser.add_argument("--steps", type=int, default=1500, help="training steps in all (default 1500)")
    parser.add_argument("--batch", type=int, default=32, help="pieces of text read side by side (default 32)")
    parser.add_argument("--length", type=int, default=64, help="characters of a step, in each piece (default 64)")
    parser.add_argument("--hidden", type=int, default=192, help="LSTM units (default 192)")
    parser.add_argument("--lr", type=float, default=3e-3, help="Adam's learning rate (default 0.003)")
    parser.add_argument("--clip", type=float, default=1.0, help="largest norm of the gradient (default 1)")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the samples (default 0.7)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", metavar="FILE", help="write a checkpoint here at the end, and at Ctrl-C")
    parser.add_argument("--resume", metavar="FILE", help="go on from a checkpoint")
    parser.add_argument("--plot", metavar="PNG", help="draw the loss curve here (needs matplotlib)")
    o = parser.parse_args()
    if min(o.steps, o.batch, o.length, o.hidden) < 1 or not 0 < o.temperature < math.inf:
        fail("--steps, --batch, --length and --hidden must be at least 1, and --temperature above 0 and finite")
    if not (0 <= o.lr < math.inf and o.clip >= 0 and 0 <= o.seed < 2**128):
        fail("--lr, --clip and --seed must be at least 0, --lr finite and --seed below 2^128")
    if o.save and (os.path.isdir(o.save) or not os.access(os.path.dirname(os.path.abspath(o.save)), os.W_OK)):
        fail(f"cannot save {o.save}: no file can be written there")
    sys.stdout.reconfigure(errors="replace")        # a terminal may lack some of the text's characters

    text = read_text(o.text)
    characters = sorted(set(text))
    index = {c: i for i, c in enumerate(characters)}
    data = np.array([index[c] for c in text])
    train, held_out = data[:-(len(data) // 10)], data[-(len(data) // 10):]
    pieces = train[:len(train) // o.batch * o.batch].reshape(o.batch, -1).T      # (time, batch): column b is piece b of the text
    spans = (len(pieces) - 1) // o.length
    if spans < 1:
        fail(f"the text is too short for --batch {o.batch} and --length {o.length}")
    mg.manual_seed(o.seed)
    model = CharLM(len(characters), 64, o.hidden)
    optimizer = mg.optim.Adam(model.parameters(), lr=o.lr)
    print(f"{len(text):,} characters, {len(characters)} different ones; {len(held_out):,} held out\n{model}")
    options = {"hidden": o.hidden, "batch": o.batch, "length": o.length}
    state, step, curve = restore(o.resume, model, optimizer, characters, options) if o.resume else (None, 0, [])

    def loss_of(step, state, composed=False):
        at = step % spans * o.length
        logits, state = model(pieces[at:at + o.length], None if step % spans == 0 else state, composed)
        return mg.cross_entropy(logits, pieces[at + 1:at + o.length + 1]), state

    for name, composed in (("op by op", True), ("fused", False)):           # the two forms give the same bits
        start = time.perf_counter()
        for _ in range(2):
            loss_of(0, None, composed)[0].backward()
        speed = 2 * o.batch * o.length / (time.perf_counter() - start)
        print(f"{name}: {speed:,.0f} characters per second, without the optimiser")
        model.zero_grad()

    stop = []
    signal.signal(signal.SIGINT, lambda *_: (stop.append(1), signal.signal(signal.SIGINT, signal.SIG_DFL)))
    first, start, shown = step, time.perf_counter(), 0.0
    while step < o.steps and not stop:
        optimizer.param_groups[0]["lr"] = o.lr * min(1.0, 3 * (1 - step / o.steps) + 0.02)         # falling over the last third
        loss, state = loss_of(step, state)
        state = state.detach()
        optimizer.zero_grad()
        loss.backward()
        norm = mg.optim.clip_grad_norm_(model.parameters(), o.clip)
        optimizer.step()
        step += 1
        curve.append(round(loss.item(), 4))
        now = time.perf_counter()
        if now - shown > 1 or step == o.steps:
            shown, speed = now, (now - start) / (step - first)
            recent = float(np.mean(curve[-20:]))
            print(f"step {step}/{o.steps}  loss {recent:.3f} nats  {recent / math.log(2):.3f} bits per character  "
                  f"{o.batch * o.length / speed:,.0f} characters/s  gradient {norm:.2f}  {speed * (o.steps - step):.0f} s left",
                  flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if o.save:
        checkpoint(o.save, model, optimizer, state, step, curve, characters, options)
        print(f"saved {o.save} at step {step}")
    if stop:
        print("interrupted")
        return 130
    loss = held_out_loss(model, held_out)
    print(f"\nheld out: {loss:.3f} nats per character, {loss / math.log(2):.3f} bits")
    print(f"\nsamples at temperature {o.temperature}:")
    rng = np.random.default_rng(o.seed)
    for k in range(3):
        begin = k * len(held_out) // 3
        prompt = held_out[begin:begin + 40]
        print(f"--- {''.join(characters[i] for i in prompt)!r} goes on:")
        print(sample(model, characters, prompt, 200, o.temperature, rng))
    if o.plot:
        try:
            import matplotlib
            matplotlib.use("Agg")
            import matplotlib.pyplot as plt
        except ImportError:
            fail("--plot needs matplotlib: pip install matplotlib")
        plt.plot(curve)
        plt.xlabel("step")
        plt.ylabel("loss, nats per character")
        plt.savefig(o.plot, dpi=120)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:       # outside of the training steps
        print("interrupted")
        sys.exit(130)
