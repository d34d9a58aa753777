"""RNN, LSTM and GRU on the same text with the same number of weights: what each has learnt after
the same number of steps.

    python benchmarks/text.py                       on prose that every Python ships; five minutes
    python benchmarks/text.py --text FILE           on any UTF-8 text

A network is an embedding of the characters, one recurrent layer and a linear layer. The LSTM has
--hidden units; the others get as many as bring them nearest to its number of weights. Each learns
by Adam, with the norm of the gradient clipped at 1, from the first nine tenths of the text. Printed
is the loss on the last tenth, in nats and bits per character, a mean over the seeds and its
extremes, and the mean seconds of a training.
"""

import argparse
import math
import sys
import time
from pydoc_data.topics import topics

import numpy as np
from _measure import count, parser

import minigrad as mg

# ---------------------------------------------------------------- settings

EMBEDDING = 32  # numbers for each character
BATCH = 32  # pieces of the text that are read side by side
LENGTH = 64  # characters of a step, in each piece
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}


def settings() -> argparse.Namespace:
    options = parser(__doc__)
    add = options.add_argument
    add("--text", metavar="FILE", help="UTF-8 text (default: the help topics of Python)")
    add("--hidden", type=count, default=128, help="units of the LSTM (default 128)")
    add(
        "--steps",
        type=count,
        default=1500,
        help="training steps of each network (default 1500)",
    )
    add(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="one training for each (default 0 1 2)",
    )
    return options.parse_args()


# ---------------------------------------------------------------- data


def read(path: str | None) -> str:
    """The text of a file, or Python's help topics."""
    if path is None:
        return "\n".join(topics[key] for key in sorted(topics))
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"text: cannot read {path}: {error}")


# ---------------------------------------------------------------- model


class Network(mg.nn.Module):
    """Characters -> embedding -> recurrent layer -> logits of the next character."""

    def __init__(self, kind: str, characters: int, hidden: int) -> None:
        self.embed = mg.nn.Embedding(characters, EMBEDDING)
        self.layer = getattr(mg.nn, kind)(EMBEDDING, hidden)
        self.head = mg.nn.Linear(hidden, characters)

    def forward(self, indices, state=None):
        out, state = self.layer(self.embed(indices), state)
        return self.head(out), state.detach()


def weights(kind: str, characters: int, hidden: int) -> int:
    """The number of weights of a Network, without making it."""
    embedding = characters * EMBEDDING
    layer = GATES[kind] * hidden * (EMBEDDING + hidden + 1)
    head = (hidden + 1) * characters
    return embedding + layer + head


def units_for(kind: str, characters: int, wanted: int) -> int:
    """The units with which a Network has the number of weights that is nearest to `wanted`."""
    units = 1
    while weights(kind, characters, units + 1) <= wanted:
        units += 1
    below = wanted - weights(kind, characters, units)
    above = weights(kind, characters, units + 1) - wanted
    return units if below <= above else units + 1


# ---------------------------------------------------------------- training


def train(
    kind: str, data: np.ndarray, held_out: np.ndarray, hidden: int, steps: int, seed: int
) -> tuple[float, float]:
    """The nats per character on `held_out`, and the seconds of the training."""
    mg.manual_seed(seed)
    characters = int(max(data.max(), held_out.max())) + 1
    network = Network(kind, characters, hidden)
    optimizer = mg.optim.Adam(network.parameters(), lr=3e-3)
    pieces = data[: len(data) // BATCH * BATCH].reshape(BATCH, -1).T  # a piece is a column
    steps_of_a_pass = (len(pieces) - 1) // LENGTH

    state = None
    start = time.perf_counter()
    for step in range(steps):
        first = step % steps_of_a_pass * LENGTH
        if first == 0:
            state = None
        logits, state = network(pieces[first : first + LENGTH], state)
        loss = mg.cross_entropy(logits, pieces[first + 1 : first + LENGTH + 1])
        optimizer.zero_grad()
        loss.backward()
        mg.optim.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - start

    with mg.no_grad():
        logits, _ = network(held_out[:-1, None])
        loss = mg.cross_entropy(logits, held_out[1:, None])
    return loss.item(), seconds


# ---------------------------------------------------------------- result


def main() -> None:
    args = settings()
    text = read(args.text)
    least = 10 * BATCH * LENGTH
    if len(text) < least:
        sys.exit(f"text: {args.text} has {len(text)} characters, at least {least} are needed")
    characters, codes = np.unique([ord(character) for character in text], return_inverse=True)
    data, held_out = np.split(codes, [len(codes) - len(codes) // 10])
    print(
        f"{len(text):,} characters, {len(characters)} different ones; "
        f"{len(held_out):,} held out; {args.steps} steps"
    )

    wanted = weights("LSTM", len(characters), args.hidden)
    for kind in GATES:
        hidden = units_for(kind, len(characters), wanted)
        losses = []
        seconds = []
        for seed in args.seeds:
            loss, duration = train(kind, data, held_out, hidden, args.steps, seed)
            losses.append(loss)
            seconds.append(duration)
        loss = sum(losses) / len(losses)
        print(
            f"{kind:4}  {hidden:4} units  {weights(kind, len(characters), hidden):7,} weights  "
            f"{loss:.3f} nats ({min(losses):.3f} to {max(losses):.3f})  "
            f"{loss / math.log(2):.3f} bits per character  {np.mean(seconds):.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
