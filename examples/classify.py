"""Classifies sequences of any length with a bidirectional LSTM (many-to-one).

    python examples/classify.py                 scikit-learn's digits, read row by row
    python examples/classify.py --train X_TRAIN.ts --test X_TEST.ts

The second form reads .ts files, the format of timeseriesclassification.com.

For each seed it prints the training loss and the accuracy on the test data. Nothing was chosen by
the test data. The picture, classify.png, shows the losses, and which classes are mistaken for
which; it needs matplotlib.

Test accuracy in full runs, with the seconds of a seed on one core of an AMD EPYC:

    JapaneseVowels, seeds 0 to 9: 97.9 % on average, from 97.6 to 98.4 %; 2 s
    digits, seeds 0 to 2: 97.3 % on average, from 96.9 to 97.5 %; 3 s
"""

import argparse
import time
from typing import NamedTuple

import numpy as np
from _script import LARGEST_NUMBER, Script, count, literal, number, picture, seed_number, shown

import minigrad as mg

script = Script("classify", __doc__)
fail = script.fail


# ---------------------------------------------------------------- settings


def settings(arguments: list[str] | None) -> argparse.Namespace:
    parser = script.parser()
    add = parser.add_argument
    add("--train", metavar="FILE", help=".ts file to learn (default: scikit-learn's digits)")
    add("--test", metavar="FILE", help=".ts file with the same classes")
    add("--epochs", type=count, default=60, help="passes over the training data (default 60)")
    add(
        "--seed",
        type=seed_number,
        nargs="+",
        default=[0, 1, 2],
        help="one training for each (default 0 1 2)",
    )
    add(
        "--plot",
        metavar="FILE",
        type=picture,
        default="classify.png",
        help='picture of the losses and mistakes, "" for none (default classify.png)',
    )
    args = parser.parse_args(arguments)
    if bool(args.test) != bool(args.train):
        fail("--train and --test come together")
    return args


# ---------------------------------------------------------------- data


class Data(NamedTuple):
    """Sequences (T, I), and labels as indices into `classes`."""

    sequences: list[np.ndarray]
    labels: np.ndarray
    tests: list[np.ndarray]
    truth: np.ndarray
    classes: list[str]


def read(args: argparse.Namespace) -> Data:
    """The files or the digits, scaled by the mean and spread of the training data."""
    if args.train:
        sequences, labels, classes = read_ts(args.train)
        tests, truth, _ = read_ts(args.test, classes, sequences[0].shape[1])
        if len(set(labels)) < 2:
            fail(
                f"{args.train}: all cases are of one class, {classes[labels[0]]}: "
                "there is nothing to learn"
            )
    else:
        sequences, labels, tests, truth, classes = read_digits()
    scaler = mg.data.Scaler().fit(np.concatenate(sequences))
    return Data(
        [scaler.transform(sequence) for sequence in sequences],
        labels,
        [scaler.transform(sequence) for sequence in tests],
        truth,
        classes,
    )


def read_digits() -> Data:
    """Images of handwritten digits as sequences of 8 rows of 8 pixels. A fifth of them, chosen at
    random, are the test data."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        fail("the digits need scikit-learn: pip install scikit-learn (or give --train and --test)")
    digits = load_digits()
    x = digits.images.astype(np.float32)
    y = digits.target
    test = np.random.default_rng(0).permutation(len(x)) < len(x) // 5
    return Data(list(x[~test]), y[~test], list(x[test]), y[test], list("0123456789"))


def read_ts(
    path: str, known: list[str] | None = None, dimensions: int | None = None
) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Sequences (T, I), labels and classes of a .ts file. It has lines of the form "@key value",
    then a line for each case, of the form "row:row:...:label".

    known, dimensions: the classes and I of the training data, if this is the test data.
    """
    header = {}
    sequences = []
    labels = []
    for line_number, line in enumerate(script.read_text(path).split("\n"), 1):
        line = line.strip()
        try:
            if line[:1] in ("", "#", "%"):
                continue
            if line.startswith("@") and not sequences:
                header_line(header, line)
                continue
            if not sequences:  # the first case: the header is complete
                classes = known or header.get("classes")
                dimensions = declared_dimensions(header, dimensions)
            sequence, label = case(line, classes or [], dimensions)
            dimensions = dimensions or sequence.shape[1]
            check_length(header, sequence, sequences)
        except ValueError as error:
            fail(f"{path}, line {line_number}: {error}")
        sequences.append(sequence)
        labels.append(label)
    if not sequences:
        fail(f"{path} holds no cases")
    return sequences, np.array(labels), classes


def is_true(values: list[str]) -> bool:
    """Whether the value in a line of the header is `true`, in upper or lower case."""
    return bool(values) and values[0].lower() == "true"


def is_natural(text: str) -> bool:
    """Whether the text is a whole number above 0, in ASCII digits."""
    return text.isascii() and text.isdigit() and int(text) > 0


def header_line(header: dict, line: str) -> None:
    """Note in `header` what a line "@key value ..." says, if reading the cases depends on it. Keys
    and `true` may be in upper or lower case."""
    key, *values = line.split()
    key = key.lower()
    if key == "@classlabel":
        if not is_true(values):
            raise ValueError("the cases have no class labels")
        header["classes"] = values[1:]
        if len(set(values[1:])) != len(values[1:]):
            raise ValueError("@classLabel names a label twice")
    elif key == "@targetlabel":
        raise ValueError("@targetLabel is for regression: the cases have no classes")
    elif key == "@timestamps" and is_true(values):
        raise ValueError("time stamps cannot be read: write the values alone, at equal distances")
    elif key in ("@dimension", "@dimensions", "@serieslength"):
        if len(values) != 1 or not is_natural(values[0]):
            raise ValueError(f"{key} must be a whole number above 0")
        header["length" if key == "@serieslength" else "dimensions"] = int(values[0])
    elif key in ("@univariate", "@equallength"):
        header[key] = is_true(values)


def declared_dimensions(header: dict, dimensions: int | None) -> int | None:
    """How many rows a case must have, by the training file or by the header; None if neither says
    so."""
    declared = header.get("dimensions")
    if header.get("@univariate"):
        declared = declared or 1
        if declared != 1:
            raise ValueError(f"@univariate true, but {declared} dimensions")
    if dimensions and declared and declared != dimensions:
        raise ValueError(f"{declared} dimensions, the training data have {dimensions}")
    return dimensions or declared


def case(line: str, classes: list[str], dimensions: int | None) -> tuple[np.ndarray, int]:
    """The sequence (T, I) and the class of a line row:row:...:label."""
    if line.startswith("@"):
        raise ValueError(f"a line of the header, {shown(line)}, after the first case")
    *rows, label = (part.strip() for part in line.split(":"))
    if label not in classes:
        named = " ".join(classes) or "none"
        raise ValueError(f"label {shown(label)}, the line @classLabel true names {named}")
    if "(" in line:
        raise ValueError("time stamps cannot be read: write the values alone, at equal distances")
    lengths = [len(row.split(",")) if row else 0 for row in rows]
    dimensions = dimensions or max(1, len(rows))
    if len(rows) != dimensions or len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            f"expected {dimensions} equally long rows of numbers below {LARGEST_NUMBER:g}, "
            f"got lengths {lengths[:20]}"
        )
    values = [[number(value) for value in row.split(",")] for row in rows]
    return np.array(values, np.float32).T, classes.index(label)


def check_length(header: dict, sequence: np.ndarray, before: list[np.ndarray]) -> None:
    """Refuse a case that has another number of steps than the header says, if it says so."""
    if not header.get("@equallength"):
        return
    steps = len(sequence)
    expected = header.get("length")
    if not expected and before:
        expected = len(before[0])
    if expected and steps != expected:
        raise ValueError(
            f"{steps} steps, but @equalLength true and {expected} before it or in @seriesLength"
        )


# ---------------------------------------------------------------- model


class Classifier(mg.nn.Module):
    """Sequences (T, B, I) -> the last state of each direction -> logits of the classes (B, C)."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        self.lstm = mg.nn.LSTM(features, hidden, bidirectional=True)
        self.head = mg.nn.Linear(2 * hidden, classes)

    def forward(self, x, lengths):
        _, state = self.lstm(x, lengths=lengths)
        forward, backward = state.h
        return self.head(mg.concatenate([forward, backward], -1))


# ---------------------------------------------------------------- training


def train_and_test(data: Data, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """The training loss of each epoch, and the classes predicted for the test data."""
    features = data.sequences[0].shape[1]
    model = Classifier(features, 64, len(data.classes))
    optimizer = mg.optim.Adam(model.parameters(), lr=2e-3)
    batches = mg.data.Batches(data.sequences, data.labels, batch_size=16, shuffle=True)
    losses = []
    for _ in range(epochs):
        for x, lengths, y in batches:
            loss = mg.cross_entropy(model(x, lengths), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    predicted = []
    with mg.no_grad():
        for x, lengths in mg.data.Batches(data.tests, batch_size=256):
            predicted.append(model(x, lengths).argmax(-1))
    return np.reshape(losses, (epochs, -1)).mean(1), np.concatenate(predicted)


# ---------------------------------------------------------------- result


def draw(figure, losses: list[np.ndarray], confusion: np.ndarray, classes: list[str]) -> None:
    """The losses of each seed, and which classes were mistaken for which."""
    left, right = figure.subplots(1, 2)
    left.semilogy(np.transpose(losses))
    left.set(xlabel="epoch", ylabel="training loss, nats", title=f"{len(losses)} seeds")
    right.imshow(np.sqrt(confusion), cmap="Blues")
    for i, j in np.argwhere(confusion):
        color = "white" if i == j else "black"
        right.text(j, i, confusion[i, j], ha="center", va="center", color=color)
    names = [literal(name) for name in classes]
    right.set(
        xlabel="predicted",
        ylabel="true",
        title="test data, all seeds together",
        xticks=range(len(names)),
        yticks=range(len(names)),
        xticklabels=names,
        yticklabels=names,
    )


def main(arguments: list[str] | None = None) -> None:
    args = settings(arguments)
    data = read(args)
    print(
        f"{len(data.sequences)} sequences of {data.sequences[0].shape[1]} numbers a step; "
        f"{len(data.tests)} to test; {len(data.classes)} classes"
    )
    losses = []
    scores = []
    confusion = np.zeros((len(data.classes), len(data.classes)), int)
    for seed in args.seed:
        start = time.perf_counter()
        mg.manual_seed(seed)
        curve, predicted = train_and_test(data, args.epochs)
        losses.append(curve)
        scores.append(np.mean(predicted == data.truth))
        np.add.at(confusion, (data.truth, predicted), 1)
        print(
            f"seed {seed}: training loss {curve[0]:.3f} -> {curve[-1]:.4f} nats, "
            f"test accuracy {scores[-1]:.2%}, {time.perf_counter() - start:.1f} s",
            flush=True,
        )
    print(
        f"test accuracy: mean {np.mean(scores):.2%}, "
        f"least {min(scores):.2%}, most {max(scores):.2%}"
    )
    script.draw(args.plot, lambda figure: draw(figure, losses, confusion, data.classes), 11, 4.5)


if __name__ == "__main__":
    script.run(main)
