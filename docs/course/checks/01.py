"""Exercise 1: value and gradients of y = tanh(a b + c) a, by hand along the graph."""

from typing import Any

import numpy as np
from checks.tools import compare, complex_step, listed

NAMES = ("value_and_gradients",)


def formula(a: Any, b: Any, c: Any) -> Any:
    return np.tanh(a * b + c) * a


def results(student: Any, rng: np.random.Generator) -> tuple[list[float], list[Any]]:
    inputs = [float(x) for x in rng.uniform(0.3, 0.9, 3)]
    return inputs, listed("value_and_gradients", student.value_and_gradients(*inputs), 4)


def value(student: Any, rng: np.random.Generator) -> None:
    """y."""
    inputs, got = results(student, rng)
    compare("y", got[0], formula(*inputs), "Go through the graph from the left: p, q, t, y.")


def gradient_of_c(student: Any, rng: np.random.Generator) -> None:
    """dy/dc, along one path."""
    (a, b, c), got = results(student, rng)
    q = a * b + c
    known = [
        (0.0, "c is an input like a and b: it moves q, and so y."),
        (a, "The path from c to y goes through tanh: one factor, tanh' = 1 - t^2, is missing."),
        (a * (1 - q * q), "tanh'(q) is 1 - t^2, with the output t of tanh, not with its input q."),
        (1 - np.tanh(q) ** 2, "The last step, y = t a, has the factor dy/dt = a."),
    ]
    expected = complex_step(formula, [a, b, c])[2]
    compare("dy/dc", got[3], expected, "Multiply along the path c, q, t, y.", known)


def gradient_of_b(student: Any, rng: np.random.Generator) -> None:
    """dy/db, along one path."""
    (a, b, c), got = results(student, rng)
    g = a * (1 - np.tanh(a * b + c) ** 2)
    known = [(g * b, "p = a b: the derivative for b is the OTHER factor, a.")]
    expected = complex_step(formula, [a, b, c])[1]
    compare("dy/db", got[2], expected, "Multiply along the path b, p, q, t, y.", known)


def gradient_of_a(student: Any, rng: np.random.Generator) -> None:
    """dy/da, along two paths."""
    (a, b, c), got = results(student, rng)
    t = np.tanh(a * b + c)
    long = a * (1 - t * t) * b
    known = [
        (long, "a is used twice. The short path, from a straight to y = t a, is missing."),
        (t, "a is used twice. The long path, from a through p, q and t, is missing."),
        (long * t, "Along a path the factors are multiplied. The two paths are added."),
        (long - t, "Paths are added, whatever the order in which they were walked."),
    ]
    expected = complex_step(formula, [a, b, c])[0]
    compare("dy/da", got[1], expected, "Two paths lead from a to y: add what each gives.", known)


CHECKS = [value, gradient_of_c, gradient_of_b, gradient_of_a]
