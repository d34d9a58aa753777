"""Trains a character LSTM on a text and prints samples of what it has learnt.

    python examples/char_lm.py                          on prose that every Python ships, one or two minutes
    python examples/char_lm.py --text FILE              on any UTF-8 text; --help lists all options
    python examples/char_lm.py --save m.safetensors     and later: --resume m.safetensors --steps 3000

It prints the speed of the network op by op and fused, then, once a second, the loss in nats and
bits per character, characters per second, the norm of the gradient and the time left. The last
tenth of the text is held out: its first half chooses the weights, the loss on its second half is
printed at the end, with samples. The losses are drawn where matplotlib is installed. Ctrl-C saves
(with --save) and leaves. A full run with the default options gave 1.046 nats there (1.135 on the
whole tenth), in 31 s on 2 cores of an AMD EPYC with AVX-512; the help topics have 465,000
characters.
"""

import functools
import math
import time
from pydoc_data.topics import topics

import numpy as np
from _script import Script, count, picture, place, positive, real, seed_number, size

import minigrad as mg

script = Script("char_lm", __doc__)
fail = script.fail

OPTIONS = {  # default, type, what it is
    "steps": (1500, count, "training steps in all"),
    "batch": (32, size, "pieces of text read side by side"),
    "length": (64, size, "characters of a step, in each piece"),
    "hidden": (192, size, "LSTM units of a layer"),
    "layers": (2, size, "LSTM layers"),
    "dropout": (0.1, real(0, 1), "share of units dropped between layers"),
    "lr": (3e-3, positive, "Adam's learning rate"),
    "clip": (1.0, positive, "largest norm of the gradient"),
    "temperature": (0.7, real(1e-3), "of the samples: a low one prefers the likely characters"),
    "seed": (0, seed_number, "of weights, dropout and samples"),
}


class CharLM(mg.nn.Module):
    """Characters -> embedding -> LSTM -> logits of the next character."""

    def __init__(self, characters: int, hidden: int, layers: int, dropout: float) -> None:
        self.embed, self.dropout = mg.nn.Embedding(characters, 64), mg.nn.Dropout(dropout)
        self.lstm = mg.nn.LSTM(64, hidden, layers, dropout=dropout)
        self.head = mg.nn.Linear(hidden, characters)

    def forward(self, indices, state=None):
        x, state = self.lstm(self.embed(indices), state)
        return self.head(self.dropout(x)), state

    def op_by_op(self, indices):
        """The same from a zero state, without dropout, made of single ops: the specification, with
        the same bits."""
        return self.head(
            functools.reduce(
                lambda x, cell: mg.nn.unroll(cell, x)[0], self.lstm.cells, self.embed(indices)
            )
        )


def nats(model: CharLM, data: np.ndarray) -> float:
    """The loss per character on data, read as one sequence in pieces with the state carried on."""
    pieces = mg.training.TruncatedBPTT(
        model.eval(), functools.partial(mg.cross_entropy, reduction="sum"), k1=1000
    )
    with mg.no_grad():
        return sum(loss.item() for loss in pieces.over(data[:-1, None], data[1:, None])) / (
            len(data) - 1
        )


def sample(
    model: CharLM, characters: str, prompt: np.ndarray, temperature: float, rng: np.random.Generator
) -> str:
    """200 characters drawn one after another."""
    text, indices, state = "", prompt, None
    with mg.no_grad():
        for _ in range(200):
            logits, state = model(np.reshape(indices, (-1, 1)), state)
            p = mg.softmax(logits[-1, 0] / temperature).numpy().astype(np.float64)
            indices = rng.choice(len(characters), p=p / p.sum())
            text += characters[indices]
    return text


def draw(figure, losses: list[float]) -> None:
    axes = figure.add_subplot(xlabel="step", ylabel="training loss, nats per character")
    axes.plot(losses)


def main(arguments: list[str] | None = None) -> None:
    parser = script.parser()
    parser.add_argument(
        "--text", metavar="FILE", help="UTF-8 text to learn (default: the help topics of Python)"
    )
    parser.add_argument(
        "--save",
        metavar="FILE",
        type=place,
        help="write a checkpoint here after each pass, at the end and at Ctrl-C",
    )
    parser.add_argument("--resume", metavar="FILE", help="go on from a checkpoint")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=picture,
        default="char_lm.png",
        help='picture of the losses, "" for none (default char_lm.png)',
    )
    for name, (default, kind, what) in OPTIONS.items():
        parser.add_argument(
            f"--{name}", type=kind, default=default, help=f"{what} (default {default})"
        )
    o = parser.parse_args(arguments)
    text = script.read_text(o.text) if o.text else "\n".join(topics[key] for key in sorted(topics))
    characters = "".join(sorted(set(text)))
    codes = np.array([ord(c) for c in characters])
    data = np.searchsorted(codes, np.frombuffer(text.encode("utf-32-le"), np.uint32))
    train, choice, held_out = np.split(
        data, [len(data) - len(data) // 10, len(data) - len(data) // 20]
    )
    if len(text) < 1000 or len(train) < o.batch * (o.length + 1):
        fail(
            f"{len(text)} characters of text are too few for --batch {o.batch} and --length {o.length}, or below 1000"
        )
    mg.manual_seed(o.seed)
    stream, model = (
        mg.data.Stream(train, o.batch, o.length),
        CharLM(len(characters), o.hidden, o.layers, o.dropout),
    )
    optimizer = mg.optim.Adam(model.parameters(), lr=o.lr)
    bptt = mg.training.TruncatedBPTT(model, mg.cross_entropy, k1=o.length)
    print(
        f"{len(text):,} characters, {len(characters)} different ones; {len(data) - len(train):,} held out\n{model}"
    )
    x, y = next(iter(stream))
    for name, loss in (
        ("op by op", lambda: mg.cross_entropy(model.op_by_op(x), y)),
        ("fused", lambda: bptt(x, y)),
    ):
        loss()
        start = time.perf_counter()
        loss().backward()
        print(
            f"{name}: {x.size / (time.perf_counter() - start):,.0f} characters per second, without the optimiser"
        )
    bptt.reset()
    try:
        history = mg.training.fit(
            model,
            optimizer,
            bptt,
            stream,
            steps=o.steps,
            clip=o.clip,
            validate=lambda: nats(model, choice),
            line=lambda h: (
                f"loss {h.recent:.3f} nats  {h.recent / math.log(2):.3f} bits per character  "
                f"{h.speed * x.size:,.0f} characters/s  gradient {h.norm[-1]:.2f}"
            ),
            after_step=[
                lambda h: optimizer.param_groups[0].update(
                    lr=o.lr * min(1.0, 3.02 - 3 * h.step / o.steps)
                )
            ],  # falls
            after_epoch=[lambda h: bptt.reset()],
            save=o.save,
            resume=o.resume,
            parts={"bptt": bptt},
            config={
                "characters": characters,
                "hidden": o.hidden,
                "layers": o.layers,
                "batch": o.batch,
                "length": o.length,
            },
        )
    except BrokenPipeError:
        raise
    except (
        mg.CheckpointError,
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: a gradient that is not finite
        fail(f"the training ends: {error}")
    if o.save:
        print(f"saved {o.save} at step {history.step}")
    if history.interrupted:
        raise KeyboardInterrupt
    if script.draw(o.plot, lambda figure: draw(figure, history.loss), 6.4, 4.8, dpi=100):
        print(f"the losses are drawn in {o.plot}")
    loss = nats(model, held_out)
    print(
        f"\nheld out: {loss:.3f} nats per character, {loss / math.log(2):.3f} bits\n\nsamples at temperature {o.temperature}:"
    )
    for k in range(3):
        prompt = held_out[k * len(held_out) // 3 :][:40]
        print(f"--- {''.join(characters[i] for i in prompt)!r} goes on:")
        print(sample(model, characters, prompt, o.temperature, np.random.default_rng([o.seed, k])))


if __name__ == "__main__":
    script.run(main)
