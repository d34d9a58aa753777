"""RNN, LSTM and GRU on the same text with the same number of weights: what each has learnt after
the same number of steps.

    python benchmarks/text.py                       on prose that every Python ships, some five minutes
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

import numpy as np

import minigrad as mg

EMBEDDING, BATCH, LENGTH = 32, 32, 64


class Network(mg.nn.Module):
    def __init__(self, kind, characters, hidden):
        self.embed = mg.nn.Embedding(characters, EMBEDDING)
        self.layer = getattr(mg.nn, kind)(EMBEDDING, hidden)
        self.head = mg.nn.Linear(hidden, characters)

    def forward(self, indices, state=None):
        out, state = self.layer(self.embed(indices), state)
        return self.head(out), state.detach()


def weights(kind, characters, H):
    """The number of weights of a Network, by hand."""
    gates = {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    return characters * EMBEDDING + gates * H * (EMBEDDING + H + 1) + (H + 1) * characters


def train(kind, data, held_out, hidden, steps, seed):
    """Nats per character on held_out, and the seconds of the training."""
    mg.manual_seed(seed)
    network = Network(kind, int(max(data.max(), held_out.max())) + 1, hidden)
    optimizer, state = mg.optim.Adam(network.parameters(), lr=3e-3), None
    pieces = (
        data[: len(data) // BATCH * BATCH].reshape(BATCH, -1).T
    )  # column b is piece b of the text
    spans, start = (len(pieces) - 1) // LENGTH, time.perf_counter()
    for step in range(steps):
        at = step % spans * LENGTH
        logits, state = network(pieces[at : at + LENGTH], state if at else None)
        loss = mg.cross_entropy(logits, pieces[at + 1 : at + LENGTH + 1])
        optimizer.zero_grad()
        loss.backward()
        mg.optim.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - start
    with mg.no_grad():
        logits, _ = network(held_out[:-1, None])
        return mg.cross_entropy(logits, held_out[1:, None]).item(), seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text", metavar="FILE", help="UTF-8 text (default: the help topics of Python)"
    )
    parser.add_argument("--hidden", type=int, default=128, help="units of the LSTM (default 128)")
    parser.add_argument(
        "--steps", type=int, default=1500, help="training steps of each network (default 1500)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="one training for each (default 0 1 2)",
    )
    o = parser.parse_args()
    if o.text is None:
        from pydoc_data.topics import topics

        text = "\n".join(topics[key] for key in sorted(topics))
    else:
        try:
            with open(o.text, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"text: cannot read {o.text}: {error}")
    if len(text) < 10 * BATCH * LENGTH:
        sys.exit(
            f"text: {o.text} has {len(text)} characters, at least {10 * BATCH * LENGTH} are needed"
        )
    characters, codes = np.unique([ord(c) for c in text], return_inverse=True)
    data, held_out = codes[: -(len(codes) // 10)], codes[-(len(codes) // 10) :]
    wanted = weights("LSTM", len(characters), o.hidden)
    print(
        f"{len(text):,} characters, {len(characters)} different ones; {len(held_out):,} held out; {o.steps} steps"
    )
    for kind in ("RNN", "LSTM", "GRU"):
        hidden = min(
            range(1, 8 * o.hidden), key=lambda H: abs(weights(kind, len(characters), H) - wanted)
        )
        losses, seconds = zip(
            *(train(kind, data, held_out, hidden, o.steps, seed) for seed in o.seeds), strict=True
        )
        loss = sum(losses) / len(losses)
        print(
            f"{kind:4}  {hidden:4} units  {weights(kind, len(characters), hidden):7,} weights  "
            f"{loss:.3f} nats ({min(losses):.3f} to {max(losses):.3f})  {loss / math.log(2):.3f} bits per character  "
            f"{sum(seconds) / len(seconds):.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
