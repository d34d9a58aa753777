"""Trains a character LSTM on a text and prints samples of what it has learnt.

    python examples/char_lm.py                          on prose that every Python ships
    python examples/char_lm.py --text FILE              on any UTF-8 text
    python examples/char_lm.py --save m.safetensors     and later, to go on:
    python examples/char_lm.py --resume m.safetensors --steps 3000

It prints the speed of the network, op by op and fused. Then, once a second, it prints the loss in
nats and bits per character, the characters per second, the norm of the gradient and the time left.
At the end it prints the loss on text that was held out, and samples. The picture, char_lm.png,
shows the losses; it needs matplotlib. Ctrl-C saves (with --save) and quits.

The last tenth of the text is held out. Its first half is used to choose the weights; the loss on
its second half is the one that is printed at the end.

The text is Python's help topics, 465,000 characters. A full run with the default options takes one
or two minutes. It gave 1.046 nats (1.135 on the whole tenth) in 31 s on 2 cores of an AMD EPYC with
AVX-512.
"""

import argparse
import functools
import math
import time
from collections.abc import Callable
from pydoc_data.topics import topics

import numpy as np
from _script import Script, count, picture, place, positive, real, seed_number, size

import minigrad as mg

script = Script("char_lm", __doc__)


# ---------------------------------------------------------------- settings


def settings(arguments: list[str] | None) -> argparse.Namespace:
    parser = script.parser()
    add = parser.add_argument
    add("--text", metavar="FILE", help="UTF-8 text to learn (default: the help topics of Python)")
    add(
        "--save",
        metavar="FILE",
        type=place,
        help="write a checkpoint here after each pass, at the end and at Ctrl-C",
    )
    add("--resume", metavar="FILE", help="go on from a checkpoint")
    add(
        "--plot",
        metavar="FILE",
        type=picture,
        default="char_lm.png",
        help='picture of the losses, "" for none (default char_lm.png)',
    )
    add("--steps", type=count, default=1500, help="training steps in all (default 1500)")
    add("--batch", type=size, default=32, help="pieces of text read side by side (default 32)")
    add("--length", type=size, default=64, help="characters of a step, in each piece (default 64)")
    add("--hidden", type=size, default=192, help="LSTM units of a layer (default 192)")
    add("--layers", type=size, default=2, help="LSTM layers (default 2)")
    add(
        "--dropout",
        type=real(0, 1),
        default=0.1,
        help="share of the units dropped between layers (default 0.1)",
    )
    add("--lr", type=positive, default=3e-3, help="Adam's learning rate (default 0.003)")
    add("--clip", type=positive, default=1.0, help="largest norm of the gradient (default 1.0)")
    add(
        "--temperature",
        type=real(1e-3),
        default=0.7,
        help="of the samples: a low one prefers the likely characters (default 0.7)",
    )
    add("--seed", type=seed_number, default=0, help="of weights, dropout and samples (default 0)")
    return parser.parse_args(arguments)


# ---------------------------------------------------------------- data


def read(path: str | None) -> str:
    """The text of the file, or Python's help topics."""
    if path:
        return script.read_text(path)
    return "\n".join(topics[key] for key in sorted(topics))


def indices_of(text: str, characters: str) -> np.ndarray:
    """The text as indices into `characters`, which are sorted."""
    codes = np.array([ord(c) for c in characters])
    return np.searchsorted(codes, np.frombuffer(text.encode("utf-32-le"), np.uint32))


# ---------------------------------------------------------------- model


class CharLM(mg.nn.Module):
    """Characters -> embedding -> LSTM -> logits of the next character."""

    def __init__(self, characters: int, hidden: int, layers: int, dropout: float) -> None:
        self.embed = mg.nn.Embedding(characters, 64)
        self.dropout = mg.nn.Dropout(dropout)
        self.lstm = mg.nn.LSTM(64, hidden, layers, dropout=dropout)
        self.head = mg.nn.Linear(hidden, characters)

    def forward(self, indices, state=None):
        x, state = self.lstm(self.embed(indices), state)
        return self.head(self.dropout(x)), state

    def op_by_op(self, indices):
        """The same from a zero state, without dropout, made of single ops. It is the specification
        of the fused layer, which gives the same bits."""
        x = self.embed(indices)
        for cell in self.lstm.cells:
            x, _ = mg.nn.unroll(cell, x)
        return self.head(x)


def nats(model: CharLM, data: np.ndarray) -> float:
    """The loss per character on `data`, read as one sequence, in pieces that pass the state on."""
    model.eval()
    sum_of_losses = functools.partial(mg.cross_entropy, reduction="sum")
    pieces = mg.training.TruncatedBPTT(model, sum_of_losses, k1=1000)
    with mg.no_grad():
        total = sum(loss.item() for loss in pieces.over(data[:-1, None], data[1:, None]))
    return total / (len(data) - 1)


def sample(
    model: CharLM, characters: str, prompt: np.ndarray, temperature: float, rng: np.random.Generator
) -> str:
    """200 characters drawn one after another."""
    text = ""
    indices = prompt
    state = None
    with mg.no_grad():
        for _ in range(200):
            logits, state = model(np.reshape(indices, (-1, 1)), state)
            p = mg.softmax(logits[-1, 0] / temperature).numpy().astype(np.float64)
            indices = rng.choice(len(characters), p=p / p.sum())
            text += characters[indices]
    return text


# ---------------------------------------------------------------- training


def print_speed(name: str, loss: Callable[[], mg.Tensor], characters: int) -> None:
    """Time one forward and backward pass, after a forward pass to warm up."""
    loss()
    start = time.perf_counter()
    loss().backward()
    speed = characters / (time.perf_counter() - start)
    print(f"{name}: {speed:,.0f} characters per second, without the optimiser")


def train(
    model: CharLM,
    stream: mg.data.Stream,
    choice: np.ndarray,
    characters: str,
    args: argparse.Namespace,
) -> mg.training.History:
    """Train the model. It ends up with the weights that do best on `choice`."""
    optimizer = mg.optim.Adam(model.parameters(), lr=args.lr)
    bptt = mg.training.TruncatedBPTT(model, mg.cross_entropy, k1=args.length)

    x, y = next(iter(stream))
    print_speed("op by op", lambda: mg.cross_entropy(model.op_by_op(x), y), x.size)
    print_speed("fused", lambda: bptt(x, y), x.size)
    bptt.reset()

    def progress(history: mg.training.History) -> str:
        return (
            f"loss {history.recent:.3f} nats  "
            f"{history.recent / math.log(2):.3f} bits per character  "
            f"{history.speed * x.size:,.0f} characters/s  gradient {history.norm[-1]:.2f}"
        )

    def lower_learning_rate(history: mg.training.History) -> None:
        """Keep it constant for two thirds of the steps, then lower it linearly to a fiftieth."""
        share = min(1.0, 3.02 - 3 * history.step / args.steps)
        optimizer.param_groups[0]["lr"] = args.lr * share

    def begin_text_again(history: mg.training.History) -> None:
        bptt.reset()

    try:
        return mg.training.fit(
            model,
            optimizer,
            bptt,
            stream,
            steps=args.steps,
            clip=args.clip,
            validate=lambda: nats(model, choice),
            line=progress,
            after_step=[lower_learning_rate],
            after_epoch=[begin_text_again],
            save=args.save,
            resume=args.resume,
            parts={"bptt": bptt},
            config={
                "characters": characters,
                "hidden": args.hidden,
                "layers": args.layers,
                "batch": args.batch,
                "length": args.length,
            },
        )
    except BrokenPipeError:
        raise
    except (mg.CheckpointError, OSError, RuntimeError) as error:
        # RuntimeError: a gradient that is not finite
        script.fail(f"the training ends: {error}")


# ---------------------------------------------------------------- result


def draw(figure, losses: list[float]) -> None:
    axes = figure.add_subplot(
        xlabel="step", ylabel="training loss, nats per character", title="training"
    )
    axes.plot(losses)


def print_samples(
    model: CharLM, characters: str, held_out: np.ndarray, args: argparse.Namespace
) -> None:
    """Go on from three places in the held-out text."""
    print(f"\nsamples at temperature {args.temperature}:")
    for k in range(3):
        start = k * len(held_out) // 3
        prompt = held_out[start : start + 40]
        print(f"--- {''.join(characters[i] for i in prompt)!r} goes on:")
        rng = np.random.default_rng([args.seed, k])
        print(sample(model, characters, prompt, args.temperature, rng))


def main(arguments: list[str] | None = None) -> None:
    args = settings(arguments)
    text = read(args.text)
    characters = "".join(sorted(set(text)))
    data = indices_of(text, characters)
    train_end = len(data) - len(data) // 10
    choice_end = len(data) - len(data) // 20
    learnt, choice, held_out = np.split(data, [train_end, choice_end])
    if len(text) < 1000 or len(learnt) < args.batch * (args.length + 1):
        script.fail(
            f"{len(text)} characters of text are too few for --batch {args.batch} "
            f"and --length {args.length}, or below 1000"
        )

    mg.manual_seed(args.seed)
    stream = mg.data.Stream(learnt, args.batch, args.length)
    model = CharLM(len(characters), args.hidden, args.layers, args.dropout)
    print(
        f"{len(text):,} characters, {len(characters)} different ones; "
        f"{len(data) - len(learnt):,} held out\n{model}"
    )
    history = train(model, stream, choice, characters, args)
    if args.save:
        print(f"saved {args.save} at step {history.step}")
    if history.interrupted:
        raise KeyboardInterrupt

    if script.draw(args.plot, lambda figure: draw(figure, history.loss), 6.4, 4.8, dpi=100):
        print(f"the losses are drawn in {args.plot}")
    loss = nats(model, held_out)
    print(f"\nheld out: {loss:.3f} nats per character, {loss / math.log(2):.3f} bits")
    print_samples(model, characters, held_out, args)


if __name__ == "__main__":
    script.run(main)
