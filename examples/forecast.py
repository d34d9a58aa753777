"""Forecasts a time series many steps ahead, with bands, beside the naive and the seasonal-naive
forecast.

    python examples/forecast.py                                     yearly sunspots, out of statsmodels when it is installed
    python examples/forecast.py --csv FILE --column NAME --season 12 --horizon 24       any column of numbers, oldest first

The last fifth of the series is held out, the fifth before it calibrates the bands, the rest is
learnt. An LSTM reads two seasons, minus their last value and divided by their standard deviation
(after RevIN, Kim et al. 2022), and gives the quantiles 10, 50 and 90 % of each of the next values,
learnt by the quantile loss (Wen et al. 2017); three networks are averaged. The band from 10 to 90 %
is moved, step by step, until it holds 80 % of the calibration's values (conformalised quantiles,
Romano et al. 2019). Printed are RMSE and MASE, on the held-out end and from each of its starting
points, of the medians and the naive forecasts, and how many values the bands hold. The picture,
forecast.png, shows a forecast, and the error by steps ahead.

Full runs, one core of an AMD EPYC. Sunspots, 1 s, seeds 0 to 4: RMSE 34.2 to 37.2, MASE 1.16 to
1.25 (as one season ago 38.9 and 1.36), bands 83 to 86 %. Their monthly means to 1983, 20 s, seeds 0
to 2: 41.1 to 44.0, 1.09 to 1.13 (47.3 and 1.26), 77 to 80 %.
"""

import csv
import io
import re

import numpy as np
from _script import NUMBER, Script, count, literal, number, picture, seed_number, shown, size

import minigrad as mg

SEPARATORS = ",;\t|"
# What a number with commas may be: 1,5 or 1.234,5 where the comma is the decimal point, 1,234.5
# where it groups thousands.
DECIMAL_COMMA = re.compile(
    r"[+-]?([0-9]+(,[0-9]+)?|[0-9]{1,3}(\.[0-9]{3})+,[0-9]+)([eE][+-]?[0-9]+)?"
)
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?")

script = Script("forecast", __doc__)
fail = script.fail


class Forecaster(mg.nn.Module):
    """A window (L, B) -> quantiles (B, horizon, 3) of what follows it."""

    def __init__(self, horizon):
        self.lstm, self.head = mg.nn.LSTM(1, 32), mg.nn.Linear(32, 3 * horizon)

    def forward(self, x):
        _, state = self.lstm(x[..., None])
        return self.head(state.h[0]).reshape(x.shape[1], -1, 3)


def records(text, separator):
    """(line, fields) of each record of a CSV text but blank lines; csv.Error, with the line, where
    a quote is amiss."""
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


def separator_of(path, text):
    """What separates the fields: the character of SEPARATORS that splits the first line, outside of
    quotes."""

    def lengths(separator):
        try:
            return [len(fields) for _, fields in records(text, separator)]
        except csv.Error:
            return []

    first = next((line for line in text.split("\n") if line.strip()), "")
    unquoted = re.sub(r'"[^"]*"', "", first)
    candidates = [c for c in SEPARATORS if c in unquoted]
    if len(candidates) > 1:
        candidates = [c for c in candidates if len(set(lengths(c))) == 1]
        if len(candidates) != 1:
            fail(
                f"{path}, line 1: {shown(first)} may be separated in more than one way: put names that hold one of "
                f"{' '.join(SEPARATORS).replace(chr(9), 'tab')} in quotes"
            )
    return candidates[0] if candidates else ","


def read_csv(path, column):
    """The numbers of one column, by default the last, and its name. Each row must be as long as the
    first line, the names."""
    text = script.read_text(path)
    separator = separator_of(path, text)
    try:
        rows = list(records(text, separator))
    except csv.Error as error:
        fail(f"{path}, {error}")
    if not rows:
        fail(
            f"{path}: no column {column!r}, the first line names none"
            if column
            else f"{path}: the file is empty"
        )
    (_, names), *rows = rows
    for line, fields in rows:
        if len(fields) != len(names):
            advice = (
                ": numbers with a decimal comma must stand in quotes" if separator == "," else ""
            )
            fail(
                f"{path}, line {line}: {len(fields)} fields, but the first line names {len(names)} columns{advice}"
            )
    if not names[-1] and not any(
        fields[-1] for _, fields in rows
    ):  # a separator at the end of each line
        names = names[:-1]
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    if column is None:
        column = names[-1]
        if NUMBER.fullmatch(column) or re.fullmatch("[0-9.,-]*", column):
            fail(
                f"{path}, line 1: the first line must name the columns, but the last name is {shown(column)}; --column takes "
                "one of " + listed
            )
    if names.count(column) != 1:
        fail(
            f"{path}: {'two columns' if column in names else 'no column'} {column!r}, the first line names {listed}"
        )
    place = names.index(column)
    lines, values = [line for line, _ in rows], [fields[place] for _, fields in rows]
    if len(names) == 1:
        check_gaps(path, text, lines)
    days = [fields[0] for _, fields in rows]
    if days and all(ISO_DATE.match(day) for day in days) and days[0] > days[-1]:
        fail(
            f"{path}, line {lines[-1]}: the table goes from {shown(days[0])} to {shown(days[-1])}: sort it, oldest first"
        )
    return numbers(path, column, lines, values), column


def check_gaps(path, text, lines):
    """In a table of one column a blank line between numbers is a missing value, not the end of the
    table."""
    for number_of_line, line in enumerate(text.split("\n")[: lines[-1] if lines else 0], 1):
        if lines[0] < number_of_line and not line.strip():
            fail(
                f"{path}, line {number_of_line}: a missing value (a blank line): fill the gaps first"
            )


def numbers(path, column, lines, values):
    """The values of a column as numbers, with commas read as decimal or as thousands, whichever all
    values allow."""
    if any("," in value for value in values):
        with_commas = [value for value in values if "," in value]
        decimal = all(
            DECIMAL_COMMA.fullmatch(value) for value in values if re.search("[0-9]", value)
        )
        thousands = all(THOUSANDS.fullmatch(value) for value in with_commas)
        if decimal == thousands:
            line = lines[values.index(with_commas[0])]
            why = (
                "may be a decimal comma or thousands"
                if decimal
                else "is no number, or other values use commas otherwise"
            )
            fail(
                f"{path}, line {line}: {column}: {shown(with_commas[0])} {why}: write numbers as 1234.5"
            )
        if decimal:
            values = [value.replace(".", "").replace(",", ".") for value in values]
        else:
            values = [value.replace(",", "") for value in values]
        print(
            f"{path}: commas in {column} are read as {'decimal points' if decimal else 'separators of thousands'}"
        )
    result = []
    for line, value in zip(lines, values, strict=True):
        try:
            result.append(number(value))
        except ValueError as error:
            fail(f"{path}, line {line}: {column}: {error}")
    return np.array(result)


def default_series(seed):
    try:
        from statsmodels.datasets import sunspots

        return sunspots.load().data["SUNACTIVITY"].to_numpy(float), "sunspots"
    except ImportError:
        print(
            "no sunspots without statsmodels: pip install statsmodels. Instead: noisy cycles of 9 to 13 steps, made here"
        )
    rng = np.random.default_rng(seed)
    series = np.concatenate(
        [
            rng.uniform(40, 160) * np.sin(np.pi * np.arange(n) / n) ** 2
            for n in rng.integers(9, 14, 28)
        ]
    )
    return np.abs(
        series * rng.normal(1, 0.1, len(series)) + rng.normal(0, 3, len(series))
    ), "made here"


def train(x, y, learn, epochs):
    """What a network that has learnt y (horizon, N) after some of the windows x (L, N) says of all:
    quantiles (N, horizon, 3)."""
    model, levels = Forecaster(len(y)), np.array([0.1, 0.5, 0.9], np.float32)
    optimizer = mg.optim.Adam(model.parameters(), lr=3e-3)
    batches = mg.data.Batches(x.T[learn], np.flatnonzero(learn), batch_size=32, shuffle=True)
    for _ in range(epochs):
        for window, _, chosen in batches:
            error = y.T[chosen, :, None] - model(window)
            loss = mg.maximum(error * levels, error * (levels - 1)).mean()  # the quantile loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with mg.no_grad():
        return np.sort(model(x).numpy())


def draw(figure, series, name, low, high, forecasts, truth):
    """The last forecast whose outcome is known and that after the end; the error by steps ahead."""
    (n, H), N = truth.shape, len(series)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    left.plot(np.arange(max(0, N - 8 * H), N), series[-8 * H :], "black", lw=1, label=literal(name))
    known, unknown = np.arange(N - H, N), np.arange(N, N + H)
    for k, (method, values) in enumerate(forecasts.items()):
        left.plot(known, values[n - 1], f"C{k}", label=method)
        left.plot(unknown, values[-1], f"C{k}")
        right.plot(
            np.arange(1, H + 1), np.sqrt(np.mean((values[:n] - truth) ** 2, axis=0)), f"C{k}"
        )
    left.fill_between(known, low[n - 1], high[n - 1], color="C0", alpha=0.2)
    left.fill_between(unknown, low[-1], high[-1], color="C0", alpha=0.2)
    left.axvline(N - 0.5, color="gray", lw=0.8, ls=":", label="end of the series")
    left.legend(loc="upper left")
    right.set(xlabel="steps ahead", ylabel="RMSE on the held-out end")


def main(arguments=None):
    parser = script.parser()
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="a table whose first line names the columns (default: sunspots)",
    )
    parser.add_argument("--column", metavar="NAME", help="default: the last one")
    parser.add_argument(
        "--season", type=size, default=11, help="values of a season or cycle (default 11)"
    )
    parser.add_argument("--horizon", type=size, default=11, help="values to forecast (default 11)")
    parser.add_argument("--epochs", type=count, default=60, help="default 60")
    parser.add_argument("--seed", type=seed_number, default=0, help="default 0")
    parser.add_argument(
        "--plot", metavar="FILE", type=picture, default="forecast.png", help="default forecast.png"
    )
    o = parser.parse_args(arguments)
    if o.column is not None and not o.csv:
        fail("--column needs --csv")
    series, name = read_csv(o.csv, o.column) if o.csv else default_series(o.seed)
    H, L, N = o.horizon, max(2 * o.season, 8), len(series)
    calibration, test = N - 2 * (N // 5), N - N // 5  # where these parts begin
    if (
        N // 5 < H
        or calibration < L + H + 8
        or (series[o.season : test] == series[: test - o.season]).all()
    ):
        fail(
            f"{o.csv or name}: {N} values are too few for windows of {L} and {H} steps ahead, or they repeat themselves exactly"
        )
    spread = series[:calibration].std()
    if spread < 1e-30:
        fail(
            f"{o.csv or name}: the first {calibration} values, which are to be learnt, are all the same"
        )
    x, y = mg.data.windows(
        np.concatenate([series, np.full(H, np.nan)]), L, H
    )  # after the last windows comes the unknown
    now, last = np.arange(L, N + 1), x[-1]  # where the future of each window begins; its last value
    scale = np.maximum(x.std(0), 0.1 * spread)
    u, v = (((a - last) / scale).astype(np.float32) for a in (x, y))
    learn, calibrate, held_out = (
        now + H <= calibration,
        (now >= calibration) & (now + H <= test),
        (now >= test) & (now + H <= N),
    )
    print(
        f"{name}: {N} values; of {L} and {H} ahead {learn.sum()} windows to learn from, {held_out.sum()} held out"
    )
    mg.manual_seed(o.seed)
    low, median, high = np.moveaxis(
        np.mean([train(u, v, learn, o.epochs) for _ in range(3)], 0, np.float64), -1, 0
    )
    outside = np.maximum(low - v.T, v.T - high)[
        calibrate
    ]  # by how much a value is outside of its band, below 0 inside
    margin = np.quantile(outside, min(1, 0.8 * (1 + 1 / len(outside))), axis=0)
    low, high = np.minimum(low - margin, median), np.maximum(high + margin, median)
    low, median, high = (a * scale[:, None] + last[:, None] for a in (low, median, high))
    truth, first = y.T[held_out], int(np.argmax(held_out))
    forecasts = {
        "LSTM": median[first:],
        "as the last value": np.repeat(last[first:, None], H, 1),
        "as one season ago": x[L - o.season + np.arange(H) % o.season].T[first:],
    }
    for method, values in forecasts.items():
        pair = truth, values[: len(truth)]
        print(
            f"{method:17} RMSE {mg.metrics.rmse(*pair):8.4g}  MASE {mg.metrics.mase(*pair, series[:test], o.season):6.3f}"
        )
    inside = (low[held_out] <= truth) & (truth <= high[held_out])
    print(
        f"80 % bands hold {inside.mean():.0%}; 1 step ahead {inside[:, 0].mean():.0%}, {H} ahead {inside[:, -1].mean():.0%}"
    )
    print(
        "after the end:",
        *(
            "{:.4g} ({:.4g} to {:.4g}),".format(*v)
            for v in np.stack([median, low, high], 2)[-1, :4]
        ),
        "...",
    )
    script.draw(
        o.plot,
        lambda figure: draw(figure, series, name, low[first:], high[first:], forecasts, truth),
        13,
        4.5,
    )


if __name__ == "__main__":
    script.run(main)
