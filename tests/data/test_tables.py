"""Sequences, targets and tables from pandas and other containers, and from Tensors."""

import numpy as np
import pytest

import minigrad as mg
from minigrad.data.batches import Batches, pad
from minigrad.data.scaler import Scaler
from minigrad.data.series import windows
from minigrad.data.streams import Stream


def frame(*columns, index=None):
    return pytest.importorskip("pandas", reason="skipped: pandas is not installed").DataFrame(
        dict(enumerate(columns)), index=index
    )


def column(values, index=None, **options):
    return pytest.importorskip("pandas", reason="skipped: pandas is not installed").Series(
        values, index=index, **options
    )


GAP = [7, 3, 40]


def test_a_series_with_gaps_is_read_by_position():
    words, tags = [[1, 2], [3], [4, 5, 6]], [[0, 1], [1], [1, 0, 1]]
    expected = list(Batches(words, [5, 6, 7], tags, batch_size=2))
    found = list(
        Batches(column(words, GAP), column([5, 6, 7], GAP), column(tags, GAP), batch_size=2)
    )
    for a, b in zip(expected, found, strict=True):
        assert all((x == y).all() and x.dtype == y.dtype for x, y in zip(a, b, strict=True))
    found = list(
        Batches(
            [column(w, GAP[: len(w)]) for w in words],
            np.array([5, 6, 7]),
            [column(t) for t in tags],
            batch_size=2,
        )
    )
    assert all(
        (x == y).all()
        for a, b in zip(expected, found, strict=True)
        for x, y in zip(a, b, strict=True)
    )


def test_tables_are_read_by_rows():
    table = frame([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], index=GAP)
    ((x, lengths, y),) = Batches(
        table, frame([0.5, 1.5, 2.5], [3.5, 4.5, 5.5], index=GAP), batch_size=3, per_step=False
    )
    assert (
        x.dtype == np.float64 and (x == table.to_numpy().T).all() and lengths.tolist() == [2, 2, 2]
    )
    assert y.tolist() == [[0.5, 3.5], [1.5, 4.5], [2.5, 5.5]]
    ((x, _),) = Batches([table, table[:2]], batch_size=2)  # a table for a sequence: (T, features)
    assert x.shape == (3, 2, 2) and (x[:, 0] == table.to_numpy()).all()
    assert (windows(table, 2)[0][:, 0] == table.to_numpy()[:2]).all() and windows(
        column([1, 2, 3], GAP), 2
    )[0].shape == (2, 1)
    z = Scaler().fit(table).transform(table)
    assert z.dtype == np.float64 and np.abs(z.std(0) - 1).max() < 1e-12
    assert Stream(column(range(20), range(5, 25)), 2, 3)._pieces[:, 0].tolist() == list(range(10))


def test_bad_tables():
    with pytest.raises(
        TypeError,
        match=r"Batches: targets\[0\] must be made of real numbers, got .* of dtype "
        r"(object|str|<U1)",
    ):
        Batches([[1], [2]], column(["a", "b"]), batch_size=2)
    with pytest.raises(TypeError, match=r"pad: sequences\[0\] must be made of real numbers"):
        pad(frame(["a"], [1]))
    with pytest.raises(TypeError, match=r"Scaler: x must be made of real numbers"):
        Scaler().fit(column(["2020-01-01"], dtype="datetime64[s]"))
    with pytest.raises(ValueError, match=r"Scaler: x must be finite, got nan at \[1\]"):
        Scaler().fit(column([1, None], dtype="Int64"))


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        iter,
        lambda v: (x for x in v),
        lambda v: dict(enumerate(v)).values(),
        lambda v: np.array(v + [None], object)[:-1],
    ],
)
def test_containers_of_sequences_and_of_targets(make):
    words, tags = [[1, 2], [3], [4, 5, 6]], [[0, 1], [1], [1, 0, 1]]
    ((x, lengths, y),) = Batches(make(words), make(tags), batch_size=3)
    ((x2, lengths2, y2),) = Batches(words, tags, batch_size=3)
    assert (x == x2).all() and (y == y2).all() and (lengths == lengths2).all()


def test_tensors_as_sequences_and_targets():
    ((x, _, y),) = Batches(mg.Tensor(np.ones((3, 2))), mg.Tensor([1.0, 2.0, 3.0]), batch_size=3)
    assert x.dtype == np.float64 and y.tolist() == [1.0, 2.0, 3.0]
    torch = pytest.importorskip("torch", reason="skipped: torch is not installed")
    ((x, _, y),) = Batches(torch.ones(3, 2), torch.tensor([1, 2, 3]), batch_size=3)
    assert x.dtype == np.float32 and y.tolist() == [1, 2, 3]
    assert pad([torch.ones(2), torch.ones(1)])[1].tolist() == [2, 1]
