"""Forecasts a time series many steps ahead, with bands, and compares the result with the naive and
the seasonal-naive forecast.

    python examples/forecast.py                             yearly sunspots
    python examples/forecast.py --csv FILE --column NAME --season 12 --horizon 24

The second form takes any column of numbers, oldest first. The sunspots come from statsmodels; where
it is not installed, the script makes a series of its own.

It prints the RMSE and MASE of the medians and of the naive forecasts, over all starting points in
the end that was held out; then the share of the values that lie within the bands, and the forecast
after the end of the series. The picture, forecast.png, shows a forecast, and the error by steps
ahead; it needs matplotlib.

The last fifth of the series is held out, the fifth before it is used to calibrate the bands, and
the rest is learnt. An LSTM reads two seasons, from which their last value is subtracted and which
are divided by their standard deviation (after RevIN, Kim et al. 2022). It gives the 10, 50 and 90 %
quantiles of each of the next values, and is trained with the quantile loss (Wen et al. 2017). The
quantiles of three networks are averaged. For each number of steps ahead, the band from 10 to 90 %
is widened or narrowed until it holds 80 % of the values of the calibration (conformalised
quantiles, Romano et al. 2019).

Full runs on one core of an AMD EPYC:

    sunspots, 1 s, seeds 0 to 4: RMSE 34.2 to 37.2, MASE 1.16 to 1.25; bands hold 83 to 86 %;
        as one season ago 38.9 and 1.36
    their monthly means to 1983, 20 s, seeds 0 to 2: 41.1 to 44.0, 1.09 to 1.13; 77 to 80 %;
        as one season ago 47.3 and 1.26
"""

import argparse
import csv
import io
import re
from collections.abc import Iterator

import numpy as np
from _script import NUMBER, Script, count, literal, number, picture, seed_number, shown, size

import minigrad as mg

script = Script("forecast", __doc__)
fail = script.fail


# ---------------------------------------------------------------- settings

NETWORKS = 3  # whose quantiles are averaged
LEVELS = np.array([0.1, 0.5, 0.9], np.float32)  # of the quantiles
COVERAGE = 0.8  # the share of the values that the bands should hold


def settings(arguments: list[str] | None) -> argparse.Namespace:
    parser = script.parser()
    add = parser.add_argument
    add(
        "--csv",
        metavar="FILE",
        help="a table whose first line names the columns (default: sunspots)",
    )
    add("--column", metavar="NAME", help="column to forecast (default: the last one)")
    add("--season", type=size, default=11, help="values in a season or cycle (default 11)")
    add("--horizon", type=size, default=11, help="how many values to forecast (default 11)")
    add("--epochs", type=count, default=60, help="passes over the training data (default 60)")
    add("--seed", type=seed_number, default=0, help="of the weights and batches (default 0)")
    add(
        "--plot",
        metavar="FILE",
        type=picture,
        default="forecast.png",
        help='picture of the forecasts, "" for none (default forecast.png)',
    )
    args = parser.parse_args(arguments)
    if args.column is not None and not args.csv:
        fail("--column needs --csv")
    return args


# ---------------------------------------------------------------- data: a table

SEPARATORS = ",;\t|"
# What a number with commas may be: 1,5 or 1.234,5 where the comma is the decimal point, 1,234.5
# where it groups thousands.
DECIMAL_COMMA = re.compile(
    r"[+-]?([0-9]+(,[0-9]+)?|[0-9]{1,3}(\.[0-9]{3})+,[0-9]+)([eE][+-]?[0-9]+)?"
)
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?")


def records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each record of a CSV text, without blank lines. A misplaced quote is a
    csv.Error that names the line."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=separator != "\t")
    while True:
        line = reader.line_num + 1  # where the record begins: a quoted field may hold line ends
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise csv.Error(f"line {line}: {error}") from None
        if len(fields) > 1 or any(field.strip() for field in fields):
            yield line, [field.strip() for field in fields]


def splits_evenly(text: str, separator: str) -> bool:
    """Whether the text is CSV with this separator, with as many fields in each record."""
    try:
        lengths = {len(fields) for _, fields in records(text, separator)}
    except csv.Error:
        return False
    return len(lengths) == 1


def separator_of(path: str, text: str) -> str:
    """What separates the fields: the one of SEPARATORS that splits the first line outside of
    quotes."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", first)
    candidates = [c for c in SEPARATORS if c in unquoted]
    if not candidates:
        return ","
    if len(candidates) == 1:
        return candidates[0]
    candidates = [c for c in candidates if splits_evenly(text, c)]
    if len(candidates) != 1:
        listed = " ".join(SEPARATORS).replace("\t", "tab")
        fail(
            f"{path}, line 1: {shown(first)} may be separated in more than one way: "
            f"put names that hold one of {listed} in quotes"
        )
    return candidates[0]


def read_csv(path: str, column: str | None) -> tuple[np.ndarray, str]:
    """The numbers of one column, by default the last, and its name. Each row must have as many
    fields as the first line, which names the columns."""
    text = script.read_text(path)
    separator = separator_of(path, text)
    try:
        rows = list(records(text, separator))
    except csv.Error as error:
        fail(f"{path}, {error}")
    if not rows and column:
        fail(f"{path}: no column {column!r}, the first line names none")
    if not rows:
        fail(f"{path}: the file is empty")

    (_, names), *rows = rows
    check_lengths(path, names, rows, separator)
    separator_ends_lines = not names[-1] and not any(fields[-1] for _, fields in rows)
    if separator_ends_lines:
        names = names[:-1]
    column = chosen_column(path, names, column)

    lines = [line for line, _ in rows]
    if len(names) == 1:
        check_gaps(path, text, lines)
    check_order(path, rows)
    place = names.index(column)
    values = [fields[place] for _, fields in rows]
    return numbers(path, column, lines, values), column


def check_lengths(path: str, names: list[str], rows: list, separator: str) -> None:
    """Refuse a table in which a row is shorter or longer than the first line."""
    for line, fields in rows:
        if len(fields) != len(names):
            advice = ""
            if separator == ",":
                advice = ": numbers with a decimal comma must stand in quotes"
            fail(
                f"{path}, line {line}: {len(fields)} fields, "
                f"but the first line names {len(names)} columns{advice}"
            )


def chosen_column(path: str, names: list[str], column: str | None) -> str:
    """The column that was asked for, or the last. A name that no column has, or that two have, is
    refused."""
    listed = ", ".join(names[:20])
    if len(names) > 20:
        listed += ", ..."
    if column is None:
        column = names[-1]
        if NUMBER.fullmatch(column) or re.fullmatch("[0-9.,-]*", column):
            fail(
                f"{path}, line 1: the first line must name the columns, "
                f"but the last name is {shown(column)}; --column takes one of {listed}"
            )
    if names.count(column) != 1:
        found = "two columns" if column in names else "no column"
        fail(f"{path}: {found} {column!r}, the first line names {listed}")
    return column


def check_gaps(path: str, text: str, lines: list[int]) -> None:
    """Refuse a blank line between numbers in a table of one column: it is a missing value."""
    if not lines:
        return
    for line_number, line in enumerate(text.split("\n")[: lines[-1]], 1):
        if lines[0] < line_number and not line.strip():
            fail(f"{path}, line {line_number}: a missing value (a blank line): fill the gaps first")


def check_order(path: str, rows: list) -> None:
    """Refuse a table whose first column holds dates with the newest first."""
    days = [fields[0] for _, fields in rows]
    if days and all(ISO_DATE.match(day) for day in days) and days[0] > days[-1]:
        last_line, _ = rows[-1]
        fail(
            f"{path}, line {last_line}: the table goes from {shown(days[0])} "
            f"to {shown(days[-1])}: sort it, oldest first"
        )


def numbers(path: str, column: str, lines: list[int], values: list[str]) -> np.ndarray:
    """The values of a column as numbers, with commas read as decimal or as thousands, whichever all
    values allow."""
    if any("," in value for value in values):
        values = without_commas(path, column, lines, values)
    result = []
    for line, value in zip(lines, values, strict=True):
        try:
            result.append(number(value))
        except ValueError as error:
            fail(f"{path}, line {line}: {column}: {error}")
    return np.array(result)


def without_commas(path: str, column: str, lines: list[int], values: list[str]) -> list[str]:
    """The values with decimal points and without separators of thousands."""
    with_commas = [value for value in values if "," in value]
    with_digits = [value for value in values if re.search("[0-9]", value)]
    decimal = all(DECIMAL_COMMA.fullmatch(value) for value in with_digits)
    thousands = all(THOUSANDS.fullmatch(value) for value in with_commas)
    if decimal == thousands:
        line = lines[values.index(with_commas[0])]
        if decimal:
            why = "may be a decimal comma or thousands"
        else:
            why = "is no number, or other values use commas otherwise"
        fail(
            f"{path}, line {line}: {column}: {shown(with_commas[0])} {why}: write numbers as 1234.5"
        )
    if decimal:
        print(f"{path}: commas in {column} are read as decimal points")
        return [value.replace(".", "").replace(",", ".") for value in values]
    print(f"{path}: commas in {column} are read as separators of thousands")
    return [value.replace(",", "") for value in values]


# ---------------------------------------------------------------- data: the default, and windows


def default_series(seed: int) -> tuple[np.ndarray, str]:
    """The yearly sunspots of statsmodels, or else cycles that look a little like them."""
    try:
        from statsmodels.datasets import sunspots
    except ImportError:
        print(
            "no sunspots without statsmodels: pip install statsmodels. "
            "Instead: noisy cycles of 9 to 13 steps, made here"
        )
        return made_series(seed), "made here"
    return sunspots.load().data["SUNACTIVITY"].to_numpy(float), "sunspots"


def made_series(seed: int) -> np.ndarray:
    """28 cycles of random length and height, with noise."""
    rng = np.random.default_rng(seed)
    cycles = []
    for length in rng.integers(9, 14, 28):
        height = rng.uniform(40, 160)
        cycles.append(height * np.sin(np.pi * np.arange(length) / length) ** 2)
    series = np.concatenate(cycles)
    factor = rng.normal(1, 0.1, len(series))
    noise = rng.normal(0, 3, len(series))
    return np.abs(series * factor + noise)


def split(series: np.ndarray, source: str, args: argparse.Namespace) -> tuple[int, int]:
    """Where the values that are learnt end and the calibration begins, and where that ends and the
    test begins. A series with too little to learn is refused."""
    N = len(series)
    calibration = N - 2 * (N // 5)
    test = N - N // 5
    L = window_length(args)
    too_short = N // 5 < args.horizon or calibration < L + args.horizon + 8
    if too_short or (series[args.season : test] == series[: test - args.season]).all():
        fail(
            f"{source}: {N} values are too few for windows of {L} and {args.horizon} steps ahead, "
            "or they repeat themselves exactly"
        )
    if series[:calibration].std() < 1e-30:
        fail(f"{source}: the first {calibration} values, which are to be learnt, are all the same")
    return calibration, test


def window_length(args: argparse.Namespace) -> int:
    """How many values the network reads: two seasons."""
    return max(2 * args.season, 8)


class Windows:
    """All windows of a series, up to the one that ends where the series ends: what is read, x (L,
    N), and what follows, y (H, N), which is NaN where it is unknown."""

    def __init__(self, series: np.ndarray, L: int, H: int, least_scale: float) -> None:
        unknown = np.full(H, np.nan)
        self.x, self.y = mg.data.windows(np.concatenate([series, unknown]), L, H)
        self.now = np.arange(L, len(series) + 1)  # where the future of each window begins
        self.last = self.x[-1]
        self.scale = np.maximum(self.x.std(0), least_scale)

    def normalised(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y relative to each window's last value and spread."""
        x = (self.x - self.last) / self.scale
        y = (self.y - self.last) / self.scale
        return x.astype(np.float32), y.astype(np.float32)

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Relative values (N, H) in the units of the series."""
        return values * self.scale[:, None] + self.last[:, None]


# ---------------------------------------------------------------- model


class Forecaster(mg.nn.Module):
    """A window (L, B) -> quantiles (B, horizon, 3) of what follows it."""

    def __init__(self, horizon: int) -> None:
        self.lstm = mg.nn.LSTM(1, 32)
        self.head = mg.nn.Linear(32, 3 * horizon)

    def forward(self, x):
        _, state = self.lstm(x[..., None])
        return self.head(state.h[0]).reshape(x.shape[1], -1, 3)


# ---------------------------------------------------------------- training


def quantile_loss(y: np.ndarray, quantiles: mg.Tensor) -> mg.Tensor:
    """mean max(q e, (q - 1) e) with e = y - quantile, for y (B, horizon) and the levels q."""
    error = y[..., None] - quantiles
    return mg.maximum(error * LEVELS, error * (LEVELS - 1)).mean()


def train(x: np.ndarray, y: np.ndarray, learn: np.ndarray, epochs: int) -> np.ndarray:
    """Train a network on those of the windows x (L, N), and of what follows them, y (horizon, N),
    that `learn` selects. Return its quantiles (N, horizon, 3) for all windows."""
    model = Forecaster(len(y))
    optimizer = mg.optim.Adam(model.parameters(), lr=3e-3)
    batches = mg.data.Batches(x.T[learn], np.flatnonzero(learn), batch_size=32, shuffle=True)
    for _ in range(epochs):
        for window, _, chosen in batches:
            loss = quantile_loss(y.T[chosen], model(window))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with mg.no_grad():
        return np.sort(model(x).numpy())


def calibrated(
    quantiles: np.ndarray, y: np.ndarray, calibrate: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The low ends of the bands, the medians and the high ends, each (N, horizon), from quantiles
    (N, horizon, 3). The bands are widened or narrowed until they hold the share COVERAGE of the
    values y (horizon, N) of the windows that `calibrate` selects."""
    low, median, high = np.moveaxis(quantiles, -1, 0)
    # By how much a value is outside of its band; below 0 inside.
    outside = np.maximum(low - y.T, y.T - high)[calibrate]
    share = min(1, COVERAGE * (1 + 1 / len(outside)))
    margin = np.quantile(outside, share, axis=0)
    return np.minimum(low - margin, median), median, np.maximum(high + margin, median)


# ---------------------------------------------------------------- result


def print_results(
    truth: np.ndarray,
    forecasts: dict[str, np.ndarray],
    low: np.ndarray,
    high: np.ndarray,
    known: np.ndarray,
    season: int,
) -> None:
    """Print the errors of all methods and the share of values within the bands, where the truth is
    known; then the forecast after the end. `known` is the series before the held-out end, which
    scales MASE."""
    n, H = truth.shape
    for method, values in forecasts.items():
        rmse = mg.metrics.rmse(truth, values[:n])
        mase = mg.metrics.mase(truth, values[:n], known, season)
        print(f"{method:17} RMSE {rmse:8.4g}  MASE {mase:6.3f}")
    inside = (low[:n] <= truth) & (truth <= high[:n])
    print(
        f"80 % bands hold {inside.mean():.0%}; "
        f"1 step ahead {inside[:, 0].mean():.0%}, {H} ahead {inside[:, -1].mean():.0%}"
    )
    after = ""
    for value, least, most in zip(forecasts["LSTM"][-1][:4], low[-1], high[-1], strict=False):
        after += f" {value:.4g} ({least:.4g} to {most:.4g}),"
    print(f"after the end:{after} ...")


def draw(
    figure,
    series: np.ndarray,
    name: str,
    low: np.ndarray,
    high: np.ndarray,
    forecasts: dict[str, np.ndarray],
    truth: np.ndarray,
) -> None:
    """The last forecast whose outcome is known and the one after the end; the error by steps
    ahead."""
    n, H = truth.shape
    N = len(series)
    known = np.arange(N - H, N)
    unknown = np.arange(N, N + H)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    left.plot(np.arange(max(0, N - 8 * H), N), series[-8 * H :], "black", lw=1, label=literal(name))
    for k, (method, values) in enumerate(forecasts.items()):
        left.plot(known, values[n - 1], f"C{k}", label=method)
        left.plot(unknown, values[-1], f"C{k}")
        rmse = np.sqrt(np.mean((values[:n] - truth) ** 2, axis=0))
        right.plot(np.arange(1, H + 1), rmse, f"C{k}")
    band = f"{COVERAGE:.0%} band"
    left.fill_between(known, low[n - 1], high[n - 1], color="C0", alpha=0.2, label=band)
    left.fill_between(unknown, low[-1], high[-1], color="C0", alpha=0.2)
    left.axvline(N - 0.5, color="gray", lw=0.8, ls=":", label="end of the series")
    left.set(xlabel="step", ylabel=literal(name), title="the last forecasts")
    left.legend(loc="upper left", fontsize=9)
    right.set(xlabel="steps ahead", ylabel=f"RMSE of {literal(name)}", title="on the held-out end")


def main(arguments: list[str] | None = None) -> None:
    args = settings(arguments)
    if args.csv:
        series, name = read_csv(args.csv, args.column)
    else:
        series, name = default_series(args.seed)
    source = args.csv or name

    N = len(series)
    H = args.horizon
    L = window_length(args)
    calibration, test = split(series, source, args)
    windows = Windows(series, L, H, least_scale=0.1 * series[:calibration].std())
    end = windows.now + H
    learn = end <= calibration
    calibrate = (windows.now >= calibration) & (end <= test)
    held_out = (windows.now >= test) & (end <= N)
    print(
        f"{name}: {N} values; of {L} and {H} ahead {learn.sum()} windows to learn from, "
        f"{held_out.sum()} held out"
    )

    mg.manual_seed(args.seed)
    x, y = windows.normalised()
    quantiles = [train(x, y, learn, args.epochs) for _ in range(NETWORKS)]
    average = np.mean(quantiles, 0, np.float64)
    low, median, high = calibrated(average, y, calibrate)
    low = windows.restored(low)
    median = windows.restored(median)
    high = windows.restored(high)

    # From here on only the windows of the held-out end, and those after it.
    first = int(np.argmax(held_out))
    low = low[first:]
    high = high[first:]
    truth = windows.y.T[held_out]
    last_season = windows.x[L - args.season + np.arange(H) % args.season]
    forecasts = {
        "LSTM": median[first:],
        "as the last value": np.repeat(windows.last[first:, None], H, 1),
        "as one season ago": last_season.T[first:],
    }
    print_results(truth, forecasts, low, high, series[:test], args.season)
    script.draw(
        args.plot,
        lambda figure: draw(figure, series, name, low, high, forecasts, truth),
        9,
        4,
    )


if __name__ == "__main__":
    script.run(main)
