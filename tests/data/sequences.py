"""The sequences that the tests of mg.data draw batches from."""

import numpy as np

from minigrad.data.batches import Batches


def ragged(lengths, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, *shape)).astype(np.float32) for n in lengths]


N = 23
SEQUENCES = ragged([(7 * k) % 11 + 1 for k in range(N)])


def numbered(**options):
    return Batches(SEQUENCES, np.arange(N), **{"batch_size": 4} | options)
