"""examples/forecast.py as a user runs it: better than the naive forecasts, bands that hold what
they should, refusals."""

import gzip
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from running import Script

import minigrad as mg

SCRIPT = Script("forecast", timeout=240)
run, run_alone = SCRIPT.run, SCRIPT.run_alone
FILES = Path(__file__).parents[1] / "files"


@pytest.fixture(scope="module")
def forecast():
    return SCRIPT.load()


def results(out):
    """(RMSE, MASE) of the LSTM, of the last value and of one season ago; the share of values within
    the bands."""
    errors = [
        (float(a), float(b)) for a, b in re.findall(r"RMSE +([\d.e+-]+)  MASE +([\d.]+)", out)
    ]
    assert len(errors) == 3, out
    return errors, int(re.search(r"80 % bands hold (\d+)%", out)[1])


def table(path, values, header="month;sales", delimiter=";"):
    path.write_text(
        header + "\n" + "".join(f"{k}{delimiter}{v}\n" for k, v in enumerate(values)),
        encoding="utf-8",
    )
    return path


def trend(count=240):
    """A season of 12 that grows on a rising line, with noise: levels that the training never
    saw."""
    t = np.arange(count)
    return (
        100
        + t
        + (10 + 0.1 * t) * np.sin(2 * np.pi * t / 12)
        + np.random.default_rng(0).normal(0, 2, count)
    )


@pytest.mark.slow
def test_sunspots(tmp_path):
    pytest.importorskip("statsmodels")
    pytest.importorskip("matplotlib")
    done = run("--plot", "sun.png", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    (lstm, last, season), inside = results(done.stdout)
    assert "sunspots: 309 values" in done.stdout and lstm < season < last and 70 <= inside <= 95, (
        done.stdout
    )
    assert (tmp_path / "sun.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_column_of_a_file(tmp_path):
    file = table(tmp_path / "shop.csv", trend())
    arguments = ("--csv", file, "--column", "sales", "--season", 12, "--horizon", 12)
    done = run_alone(*arguments, folder=tmp_path, without=("matplotlib",))
    assert (
        done.returncode == 0
        and "no picture without matplotlib: pip install matplotlib" in done.stdout
    ), done.stderr
    (lstm, last, season), inside = results(done.stdout)
    assert lstm[0] < 0.7 * min(last[0], season[0]) and 60 <= inside <= 97, done.stdout
    after = [
        float(v)
        for v in re.search(r"after the end: (.*), \.\.\.", done.stdout)[1]
        .replace(",", "")
        .split()[::4]
    ]
    expected = 100 + np.arange(240, 244) + 34 * np.sin(2 * np.pi * np.arange(240, 244) / 12)
    assert len(after) == 4 and np.abs(np.array(after) - expected).max() < 20
    assert (
        run_alone(*arguments, folder=tmp_path, without=("matplotlib",)).stdout == done.stdout
    )  # a seed repeats a run


def test_the_quantile_loss_gives_quantiles(forecast):
    """Of noise that no window foretells, the network learns the quantiles themselves."""
    mg.manual_seed(0)
    rng = np.random.default_rng(0)
    x, y = (
        rng.normal(0, 1, (4, 3000)).astype(np.float32),
        rng.normal(0, 1, (2, 3000)).astype(np.float32),
    )
    quantiles = forecast.train(x, y, np.arange(3000) < 2500, 4)
    assert quantiles.shape == (3000, 2, 3)
    share = (y.T[2500:, :, None] < quantiles[2500:]).mean((0, 1))
    assert np.abs(share - [0.1, 0.5, 0.9]).max() < 0.06, share


@pytest.mark.slow
def test_without_statsmodels_it_makes_a_series(tmp_path):
    done = run_alone("--epochs", 20, folder=tmp_path, without=("statsmodels",))
    assert done.returncode == 0 and done.stdout.startswith(
        "no sunspots without statsmodels: pip install"
    ), done.stderr
    (lstm, last, season), inside = results(done.stdout)
    assert lstm[0] < min(last[0], season[0]) and 60 <= inside <= 97, done.stdout


def test_reading(forecast, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes('\ufeff"day","a, b",c\n1,1e3,x\n\n2,"-2",y\n'.encode())
    values, name = forecast.read_csv(file, "a, b")
    assert values.tolist() == [1000, -2] and name == "a, b"
    assert forecast.read_csv(table(tmp_path / "b.csv", [1, 2.5], "a\tb", "\t"), None)[1] == "b"


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        (
            "shop.csv",
            None,
            [1234.5, -2.5, 10, 0.25],
        ),  # ; decimal commas, quotes, a byte order mark, CRLF, U+2028 in a field
        ("shop.csv", "sales 🎈", [1234.5, -2.5, 10, 0.25]),
        ("thousands.tsv", "sales", [1234.5, 12, 1_000_000]),
        ("lone_cr.csv", "sales", [1.5, 2.5, 3.5]),
        ("trailing.csv", None, [1.5, -2.5]),
    ],
)
def test_files(forecast, name, column, expected, capsys):
    values, found = forecast.read_csv(FILES / name, column)
    assert values.tolist() == expected and found == (
        column or ("sales" if name == "trailing.csv" else "sales 🎈")
    )
    said = capsys.readouterr().out
    assert ("decimal points" in said, "separators of thousands" in said) == (
        name == "shop.csv",
        name == "thousands.tsv",
    )


def test_a_column_name_that_is_a_number_must_be_asked_for(forecast, tmp_path):
    file = tmp_path / "years.csv"
    file.write_text("day,2019,2020\n1,2.5,3\n2,4.5,5\n")
    assert forecast.read_csv(file, "2019")[0].tolist() == [2.5, 4.5]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "decimal_comma.csv",
            "decimal_comma.csv, line 3: 3 fields, but the first line names 2 columns",
        ),
        ("two_names.csv", "two_names.csv: two columns 'sales'"),
        ("missing.csv", "missing.csv, line 4: sales: a missing value ('NA')"),
        (
            "no_header.csv",
            "no_header.csv, line 1: the first line must name the columns, "
            "but the last name is '2.5'",
        ),
        (
            "newest_first.csv",
            "newest_first.csv, line 4: the table goes from '2024-03-01' "
            "to '2024-01-01': sort it, oldest first",
        ),
        ("latin1.csv", "latin1.csv, line 1, as UTF-8 text"),
        ("utf16.csv", "utf16.csv: it is UTF-16 text"),
    ],
)
def test_files_that_are_refused(forecast, name, message, capsys):
    with pytest.raises(SystemExit) as left:
        forecast.read_csv(FILES / name, None)
    errors = capsys.readouterr().err
    assert left.value.code == 2 and errors.count("\n") == 1 and message in errors, errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day,sales\n1,2\n2,many\n", ", line 3: sales: 'many' is not a number"),
        ("day,sales\n1,2\n2,1_000\n", ", line 3: sales: '1_000' is not a number"),
        ("day,sales\n1,2\n2,٣\n", ", line 3: sales: '٣' is not a number"),
        ("day,sales\n1,2\n2,$5\n", ", line 3: sales: '$5' is not a number"),
        ("day,sales\n1,2024-01-01\n", ", line 2: sales: '2024-01-01' is not a number"),
        ("day,sales\n1,2\n2,\n", ", line 3: sales: a missing value (''): fill the gaps first"),
        ("day,sales\n1,2\n,\n3,4\n", ", line 3: sales: a missing value (''): fill the gaps first"),
        ("day,sales\n1,2\n2,?\n", ", line 3: sales: a missing value ('?'): fill the gaps first"),
        ("sales\n1\n\n3\n", ", line 3: a missing value (a blank line): fill the gaps first"),
        ("day,sales\n1,2\n2\n", ", line 3: 1 fields, but the first line names 2 columns"),
        (
            "day,sales\n1,2\n2,1,5\n",
            ", line 3: 3 fields, but the first line names 2 columns: "
            "numbers with a decimal comma must",
        ),
        ("sales\n1,5\n2,5\n", ", line 2: 2 fields, but the first line names 1 columns"),
        ("day,sales\n1,NaN\n", ", line 2: sales: a missing value ('NaN'): fill the gaps first"),
        ("day,sales\n1,inf\n", ", line 2: sales: 'inf' is not a number"),
        (
            "day,sales\n1,-1e300\n",
            ", line 2: sales: '-1e300' is too large: a number must be below 1e+30",
        ),
        (
            "day,sales,sales\n1,2,3\n",
            ": two columns 'sales', the first line names day, sales, sales",
        ),
        (
            "day;sales\n1;1,234\n2;5\n",
            ", line 2: sales: '1,234' may be a decimal comma or thousands: write numbers as 1234.5",
        ),
        (
            "day;sales\n1;7\n2;1,5\n3;2.5\n",
            ", line 3: sales: '1,5' is no number, or other values use commas otherwise",
        ),
        (
            "day;sales\n1;1,5\n2;NA\n",
            ", line 3: sales: a missing value ('NA'): fill the gaps first",
        ),
        ("a;b, sales\n1;2,5\n", ", line 1: 'a;b, sales' may be separated in more than one way"),
        ('day,sales\n1,"2\n2,3\n', ", line 2: unexpected end of data"),
        ('day,sales\n1,"2"3\n', """, line 2: ',' expected after '"'"""),
        ("day,amount\n1,2\n", ": no column 'sales', the first line names day, amount"),
        ("", ": no column 'sales', the first line names none"),
        ("day,sales\n1,2\0\n", ", line 2: it holds a zero byte, so it is not UTF-8 text"),
        ("day,sales\n1," + "9" * 200000 + "\n", ", line 2: field larger than field limit"),
    ],
)
def test_bad_files(forecast, tmp_path, capsys, text, message):
    file = tmp_path / "bad.csv"
    file.write_bytes(text.encode())
    with pytest.raises(SystemExit) as left:
        forecast.read_csv(file, "sales")
    errors = capsys.readouterr().err
    start = f"forecast: cannot read {file}" if "zero byte" in message else f"forecast: {file}"
    assert (
        left.value.code == 2 and errors.count("\n") == 1 and errors.startswith(f"{start}{message}")
    ), errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--csv", "none.csv"), "cannot read none.csv: [Errno 2] No such file or directory"),
        (("--csv", "."), "cannot read .: [Errno"),
        (
            ("--csv", "bytes.csv"),
            "cannot read bytes.csv, line 2, as UTF-8 text: 'utf-8' codec can't decode byte 0xff",
        ),
        (("--csv", "packed.csv"), "cannot read packed.csv: it is compressed by gzip"),
        (
            ("--csv", "starts.csv"),
            "starts.csv: the first 144 values, which are to be learnt, are all the same",
        ),
        (("--csv", "nothing.csv"), "nothing.csv: the file is empty"),
        (
            ("--csv", "short.csv"),
            "short.csv: 20 values are too few for windows of 22 and 11 steps ahead",
        ),
        (("--csv", "empty.csv"), "empty.csv: 0 values are too few"),
        (("--csv", "constant.csv"), "or they repeat themselves exactly"),
        (
            ("--csv", "good.csv", "--horizon", 70),
            "240 values are too few for windows of 22 and 70 steps ahead",
        ),
        (("--csv", "good.csv", "--season", 0), "argument --season: must be at least 1, got 0"),
        (("--csv", "good.csv", "--seed", -1), "argument --seed: must be at least 0, got -1"),
        (("--column", "sales"), "--column needs --csv"),
        (
            ("--csv", "good.csv", "--epochs", 1, "--plot", "none/p.png"),
            "--plot: cannot write none/p.png",
        ),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    for name, values in (
        ("short", trend(20)),
        ("empty", []),
        ("constant", [5] * 200),
        ("good", trend()),
    ):
        table(tmp_path / f"{name}.csv", values)
    table(tmp_path / "starts.csv", [5] * 150 + list(range(90)))
    (tmp_path / "bytes.csv").write_bytes(b"a,b\n\xff,1\n")
    (tmp_path / "packed.csv").write_bytes(gzip.compress(b"a,b\n1,1\n"))
    (tmp_path / "nothing.csv").write_bytes(b"")
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, (
        done.stderr
    )
    assert done.stderr.startswith("forecast: ")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")
def test_interrupting(tmp_path):
    with SCRIPT.start(
        "--csv", table(tmp_path / "shop.csv", trend()), "--epochs", 10**6, folder=tmp_path
    ) as child:
        assert "values" in child.stdout.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    assert child.returncode == 130 and out.endswith("interrupted\n") and errors == "", errors


def test_help(tmp_path):
    done = run("--help", folder=tmp_path)
    assert (
        done.returncode == 0
        and "python examples/forecast.py" in done.stdout
        and "--column" in done.stdout
    )
