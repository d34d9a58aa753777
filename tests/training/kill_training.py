"""A program that trains, is killed at random moments, goes on, and prints how often it was killed.

kill_training.py FOLDER SEED KILLS NAME...: for each named configuration, one run in a process of
its own that is left alone, and one that SIGKILL ends again and again until it has been killed KILLS
times; then it may finish. Both leave the file of the whole training and one of the final weights,
which the test compares. Children are forked before minigrad has started any thread; each seeds its
generator differently, which the file that is resumed must make up for.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import minigrad as mg

RNG = np.random.default_rng(0)
WORDS = [RNG.integers(0, 12, n) for n in RNG.integers(0, 9, 50)]  # some are empty
SHIFTED = [np.roll(word, 1) for word in WORDS]
TOKENS = RNG.integers(0, 12, 700)
STEPS = 60


class Tagger(mg.nn.Module):
    """Dropout of every kind, one with a generator of its own."""

    def __init__(self, kind):
        self.embed = mg.nn.Embedding(12, 6)
        self.layer = getattr(mg.nn, kind)(6, 16, 2, dropout=0.3, recurrent_dropout=0.2)
        self.drop = mg.nn.Dropout(0.2, mg.Generator(5))
        self.head = mg.nn.Linear(16, 12)

    def forward(self, x, state=None, lengths=None):
        out, state = self.layer(self.embed(x), state, lengths=lengths)
        return self.head(self.drop(out)), state


class ListState(Tagger):
    """Carries its state in a dict with a list, a None and a number."""

    def forward(self, x, state=None, lengths=None):
        out, (h, c) = self.layer(self.embed(x), None if state is None else tuple(state["pair"]))
        return self.head(self.drop(out)), {
            "pair": [h, c],
            "nothing": None,
            "calls": 1 if state is None else state["calls"] + 1,
        }


def sequences(model, optimizer, accumulated=False, **options):
    """Padded batches, shuffled, in buckets; the validation reads the same object inside of fit's
    epoch."""
    batches = mg.data.Batches(
        WORDS,
        SHIFTED,
        batch_size=8,
        shuffle=True,
        bucket=True,
        generator=options.pop("generator", None),
    )

    def loss(x, lengths, y):
        def part(rows):
            return mg.cross_entropy(
                model(x[:, rows], lengths=lengths[rows])[0], y[:, rows], reduction="sum"
            )

        if not accumulated:
            return part(slice(None)) / 20.0
        return mg.training.accumulate(
            (part(rows) for rows in (slice(0, 3), slice(3, None)) if len(lengths[rows])), 20
        )

    def validate():
        total = 0.0
        for x, lengths, y in batches:
            total += mg.cross_entropy(model(x, lengths=lengths)[0], y, reduction="sum").item()
        return total

    def peek(history):
        if history.step % 3 == 0:
            for _ in batches:
                break

    return loss, batches, {"validate": validate, "after_step": [peek]} | options


def stream(model, optimizer, **options):
    bptt = mg.training.TruncatedBPTT(model, mg.cross_entropy, 5, 8)
    return (
        bptt,
        mg.data.Stream(TOKENS, 4, 5),
        {
            "validate": lambda: float(np.abs(model.head.bias.numpy()).max()),
            "after_epoch": [bptt.reset],
        }
        | options,
    )


def listed(model, optimizer, **options):
    """A plain list of batches, which has no state."""
    data = list(mg.data.Batches(WORDS, SHIFTED, batch_size=9, bucket=True))
    return (
        lambda x, lengths, y: (
            mg.cross_entropy(model(x, lengths=lengths)[0], y, reduction="sum") / 50.0
        ),
        data,
        options,
    )


def scheduled(make, schedule, where, **arguments):
    """The same with a schedule, given to fit as it is."""

    def made(model, optimizer):
        function, batches, options = make(model, optimizer)
        one = getattr(mg.optim.schedule, schedule)(optimizer, **arguments)
        return function, batches, options | {where: [*options.get(where, []), one]}

    return made


# name: (model, optimizer, its options, what makes loss, batches and options of fit)
CONFIGURATIONS = {
    "adam": (lambda: Tagger("LSTM"), "Adam", {}, lambda m, o: sequences(m, o, save_every=4)),
    "accumulated": (
        lambda: Tagger("GRU"),
        "SGD",
        {"momentum": 0.9, "nesterov": True},
        lambda m, o: sequences(m, o, accumulated=True, save_every=3, generator=mg.Generator(8)),
    ),
    "plateau": (
        lambda: Tagger("LSTM"),
        "RMSprop",
        {"centered": True, "momentum": 0.5},
        scheduled(
            lambda m, o: sequences(m, o, save_every=7),
            "ReduceLROnPlateau",
            "after_epoch",
            patience=0,
        ),
    ),
    "patience": (
        lambda: Tagger("RNN"),
        "AdamW",
        {"lr": 0.3},
        lambda m, o: sequences(m, o, patience=2, save_every=5),
    ),
    "bptt": (
        lambda: Tagger("LSTM"),
        "Adam",
        {"amsgrad": True},
        lambda m, o: stream(m, o, save_every=1),
    ),
    "bptt, list": (
        lambda: ListState("LSTM"),
        "Adagrad",
        {},
        scheduled(
            lambda m, o: stream(m, o, save_every=4), "CosineAnnealingLR", "after_step", T_max=50
        ),
    ),
    "onecycle": (
        lambda: Tagger("GRU"),
        "AdamW",
        {},
        scheduled(
            lambda m, o: stream(m, o, save_every=6),
            "OneCycleLR",
            "after_step",
            max_lr=0.02,
            total_steps=100,
        ),
    ),
    "list": (
        lambda: Tagger("RNN"),
        "SGD",
        {"momentum": 0.5, "weight_decay": 0.01},
        scheduled(
            lambda m, o: listed(m, o, save_every=2), "StepLR", "after_step", step_size=7, gamma=0.5
        ),
    ),
    "epochs alone": (lambda: Tagger("GRU"), "Adam", {}, lambda m, o: sequences(m, o)),
}


def train(name, file, seed):
    """One process's work: begin, or go on where the file is, up to the end."""
    model, optimizer, given, make = CONFIGURATIONS[name]
    mg.manual_seed(
        seed if file.exists() else 1
    )  # of another one nothing must be left after resuming
    model = model()
    optimizer = getattr(mg.optim, optimizer)(model.parameters(), **({"lr": 0.01} | given))
    loss, batches, options = make(model, optimizer)
    mg.training.fit(
        model,
        optimizer,
        loss,
        batches,
        steps=STEPS,
        clip=2.0,
        save=file,
        resume=file if file.exists() else None,
        config={"name": name, "pair": (1, 2)},
        **options,
    )
    mg.save(f"{file}.weights", model.state_dict())


def child(name, file, seed, threads=1):
    process = os.fork()
    if process:
        return process
    mg.set_num_threads(threads)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = 1
    try:
        train(name, file, seed)
        status = 0
    except BaseException as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def main():
    folder, seed, kills, *names = sys.argv[1:]
    rng, folder, total = random.Random(int(seed)), Path(folder), 0
    for name in names:
        start = time.monotonic()
        assert os.waitpid(child(name, folder / f"{name}.whole", 7), 0)[1] == 0
        duration = time.monotonic() - start
        killed = 0
        while killed < int(kills):
            process = child(name, folder / f"{name}.killed", 100 + killed, threads=1 + killed % 2)
            time.sleep(rng.uniform(0, duration))
            os.kill(process, signal.SIGKILL)
            if os.waitpid(process, 0)[1] == signal.SIGKILL:
                killed += 1
            else:  # it had come to its end: once more from the beginning
                (folder / f"{name}.killed").unlink()
        assert os.waitpid(child(name, folder / f"{name}.killed", 99), 0)[1] == 0
        total += killed
    print(total)


if __name__ == "__main__":
    main()
