"""A scaler: to mean 0 and variance 1, and back."""

from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.data.arrays import _has_dtype, _numbers

if TYPE_CHECKING:
    from minigrad.core.tensor import Operand

__all__ = ["Scaler"]


def _exact_parts(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real numbers as the sum of two float64 arrays, high + low: exact also for whole numbers
    beyond 2^53."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8:
        return array.astype(np.float64), np.zeros(array.shape)
    return (array >> 32).astype(np.float64) * 2.0**32, (array & 0xFFFFFFFF).astype(np.float64)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b in float64, rounded once where both are made of whole numbers."""
    (high, low), (b_high, b_low) = _exact_parts(a), _exact_parts(b)
    difference: np.ndarray = (high - b_high) + (low - b_low)
    return difference


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean of each column. NumPy adds in pairs along rows that lie in one piece; down the
    columns it would add one row after the other, with an error that grows with their number."""
    if values.ndim == 1:
        return np.asarray(values.mean())
    columns = np.moveaxis(values, -1, 0).reshape(values.shape[-1], -1)
    return np.asarray(np.ascontiguousarray(columns).mean(1))


class Scaler:
    """Makes the mean of each column 0 and its standard deviation 1.

    The columns are the last axis; a series of one dimension is one column. A column that is
    constant becomes 0 and comes back as it was. Everything is computed in float64, whole numbers
    exactly, and rounded once at the end. So times such as 1,700,000,001 keep their seconds.

    Attributes:
        mean: The mean of each column, float64; None before `fit`.
        scale: The standard deviation of each column, 1 where it is constant; None before `fit`.

    >>> import numpy as np, minigrad as mg
    >>> x = np.array([[1.0, 7.0], [3.0, 7.0]])
    >>> scaler = mg.data.Scaler().fit(x)
    >>> scaler.transform(x)
    array([[-1.,  0.],
           [ 1.,  0.]])
    >>> scaler.inverse(scaler.transform(x))
    array([[1., 7.],
           [3., 7.]])
    """

    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    _rest: tuple[Any, Any] = (None, 0.0)  # the fitted mean, and what it lacks of the exact one
    _dtype: Any = np.float32  # of what was fitted

    def fit(self, x: "Operand") -> "Scaler":
        """Take mean and standard deviation of each column.

        Args:
            x: (..., columns) or (T,), finite numbers.

        Returns:
            The scaler.

        Raises:
            TypeError, ValueError: x is empty, or not made of finite numbers.
        """
        array = _numbers(x, "Scaler", "x")
        axes = tuple(range(array.ndim - 1)) if array.ndim > 1 else (0,)
        if array.ndim == 0:
            raise ValueError("Scaler: x must have shape (..., columns) or (T,), got ()")
        if array.size == 0:
            raise ValueError(
                f"Scaler: x must hold at least one value in each column, got shape {array.shape}"
            )
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            raise ValueError(f"Scaler: x must be finite, got {array[tuple(place)]} at {place}")
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            origin = array.min(axes)
            rise = _difference(array, origin)  # from the lowest value, in which the digits are
            offset = _mean(rise)
            offset += _mean(rise - offset)  # what the first sum has lost
            constant = rise.max(axes) == 0
            scale = np.where(constant, 1.0, np.sqrt(_mean((rise - offset) ** 2)))
            high, low = _exact_parts(np.asarray(origin))
            mean = high + (low + offset)
            rest = ((high - mean) + low) + offset
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            largest = np.abs(array.astype(np.float64)).max()
            raise ValueError(
                "Scaler: x must have columns whose variance fits into float64, got values up to "
                f"{largest}"
            )
        self.mean, self.scale, self._rest = mean, scale, (mean, rest)
        self._dtype = array.dtype if _has_dtype(x) and array.dtype.kind == "f" else np.float64
        return self

    def transform(self, x: "Operand") -> np.ndarray:
        """(x - mean) / scale.

        Args:
            x: An array with the columns that were fitted.

        Returns:
            An array in x's dtype; whole numbers and lists give float32.
        """
        array, mean, rest, scale = self._fitted(x)
        high, low = _exact_parts(array)
        dtype = array.dtype if _has_dtype(x) and array.dtype.kind == "f" else np.float32
        return np.asarray(((high - mean) + (low - rest)) / scale).astype(dtype)

    def inverse(self, x: "Operand") -> np.ndarray:
        """x * scale + mean: the inverse of `transform`.

        Args:
            x: An array with the columns that were fitted.

        Returns:
            An array in x's dtype, but float64 if that was fitted, or whole numbers or a list were.
        """
        array, mean, rest, scale = self._fitted(x)
        dtype = array.dtype if _has_dtype(x) and array.dtype.kind == "f" else np.float32
        back = (array.astype(np.float64) * scale + rest) + mean
        return np.asarray(back).astype(np.result_type(dtype, self._dtype))

    def _fitted(self, x: Any) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray]:
        if self.mean is None or self.scale is None:
            raise RuntimeError("Scaler: call fit first")
        array = _numbers(x, "Scaler", "x")
        if np.ndim(self.mean) and array.shape[-1:] != np.shape(self.mean):
            raise ValueError(
                f"Scaler: x must have the {len(self.mean)} columns that were fitted, got shape "
                f"{array.shape}"
            )
        fitted, rest = self._rest
        return array, self.mean, rest if fitted is self.mean else 0.0, self.scale
