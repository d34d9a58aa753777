"""examples/forecast.py as a user runs it: better than the naive forecasts, bands that hold what they should, refusals."""
import os
import re
import signal
import time

import numpy as np
import pytest
from running import Script

import minigrad as mg

SCRIPT = Script("forecast", timeout=240)
start, run = SCRIPT.start, SCRIPT.run


@pytest.fixture(scope="module")
def forecast():
    return SCRIPT.load()


def results(out):
    """(RMSE, MASE) of the LSTM, of the last value and of one season ago; the share of values within the bands."""
    errors = [(float(a), float(b)) for a, b in re.findall(r"RMSE +([\d.e+-]+)  MASE +([\d.]+)", out)]
    assert len(errors) == 3, out
    return errors, int(re.search(r"80 % bands hold (\d+)%", out)[1])


def table(path, values, header="month;sales", delimiter=";"):
    path.write_text(header + "\n" + "".join(f"{k}{delimiter}{v}\n" for k, v in enumerate(values)), encoding="utf-8")
    return path


def trend(count=240):
    """A season of 12 that grows on a rising line, with noise: levels that the training never saw."""
    t = np.arange(count)
    return 100 + t + (10 + 0.1 * t) * np.sin(2 * np.pi * t / 12) + np.random.default_rng(0).normal(0, 2, count)


def test_sunspots(tmp_path):
    pytest.importorskip("statsmodels")
    pytest.importorskip("matplotlib")
    done = run("--plot", "sun.png", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    (lstm, last, season), inside = results(done.stdout)
    assert "sunspots: 309 values" in done.stdout and lstm < season < last and 70 <= inside <= 95, done.stdout
    assert (tmp_path / "sun.png").read_bytes().startswith(b"\x89PNG")


def test_a_column_of_a_file(tmp_path):
    file = table(tmp_path / "shop.csv", trend())
    arguments = ("--csv", file, "--column", "sales", "--season", 12, "--horizon", 12)
    done = run(*arguments, folder=tmp_path, without=("matplotlib",))
    assert done.returncode == 0 and "no picture without matplotlib: pip install matplotlib" in done.stdout, done.stderr
    (lstm, last, season), inside = results(done.stdout)
    assert lstm[0] < 0.7 * min(last[0], season[0]) and 60 <= inside <= 97, done.stdout
    after = [float(v) for v in re.search(r"after the end: (.*), \.\.\.", done.stdout)[1].replace(",", "").split()[::4]]
    expected = 100 + np.arange(240, 244) + 34 * np.sin(2 * np.pi * np.arange(240, 244) / 12)
    assert len(after) == 4 and np.abs(np.array(after) - expected).max() < 20
    assert run(*arguments, folder=tmp_path, without=("matplotlib",)).stdout == done.stdout         # a seed repeats a run


def test_the_quantile_loss_gives_quantiles(forecast):
    """Of noise that no window foretells, the network learns the quantiles themselves."""
    mg.manual_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (4, 3000)).astype(np.float32), rng.normal(0, 1, (2, 3000)).astype(np.float32)
    quantiles = forecast.train(x, y, np.arange(3000) < 2500, 4)
    assert quantiles.shape == (3000, 2, 3)
    share = (y.T[2500:, :, None] < quantiles[2500:]).mean((0, 1))
    assert np.abs(share - [0.1, 0.5, 0.9]).max() < 0.06, share


def test_without_statsmodels_it_makes_a_series(tmp_path):
    done = run("--epochs", 20, folder=tmp_path, without=("statsmodels",))
    assert done.returncode == 0 and done.stdout.startswith("no sunspots without statsmodels: pip install"), done.stderr
    (lstm, last, season), inside = results(done.stdout)
    assert lstm[0] < min(last[0], season[0]) and 60 <= inside <= 97, done.stdout


def test_reading(forecast, tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes('\ufeff"day","a, b",c\n1,1e3,x\n\n2,"-2",y\n'.encode())
    values, name = forecast.read_csv(file, "a, b")
    assert values.tolist() == [1000, -2] and name == "a, b"
    assert forecast.read_csv(table(tmp_path / "b.csv", [1, 2.5], "a\tb", "\t"), None)[1] == "b"


@pytest.mark.parametrize(("text", "message"), [
    ("day,sales\n1,2\n2,many\n", ", line 3: could not convert string to float: 'many'"),
    ("day,sales\n1,2\n2,\n", ", line 3: sales must be a number below 1e30, got ''"),
    ("day,sales\n1,2\n2\n", ", line 3: sales must be a number below 1e30, got None"),
    ("day,sales\n1,NaN\n", ", line 2: sales must be a number below 1e30, got 'NaN'"),
    ("day,sales\n1,-1e300\n", ", line 2: sales must be a number below 1e30, got '-1e300'"),
    ("day,amount\n1,2\n", ": no column 'sales', the first line names day, amount"),
    ("", ": no column 'sales', the first line names none"),
    ("day,sales\n1," + "9" * 200000 + "\n", ", line 1: field larger than field limit"),
])
def test_bad_files(forecast, tmp_path, capsys, text, message):
    file = tmp_path / "bad.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as left:
        forecast.read_csv(file, "sales")
    errors = capsys.readouterr().err
    assert left.value.code == 2 and errors.count("\n") == 1 and errors.startswith(f"forecast: {file}{message}"), errors


@pytest.mark.parametrize(("arguments", "message"), [
    (("--csv", "none.csv"), "none.csv: [Errno 2] No such file or directory"),
    (("--csv", "bytes.csv"), "bytes.csv: 'utf-8' codec can't decode byte 0xff"),
    (("--csv", "short.csv"), "short.csv: 20 values are too few for windows of 22 and 11 steps ahead"),
    (("--csv", "empty.csv"), "empty.csv: 0 values are too few"),
    (("--csv", "constant.csv"), "or they repeat themselves exactly"),
    (("--csv", "good.csv", "--horizon", 70), "240 values are too few for windows of 22 and 70 steps ahead"),
    (("--csv", "good.csv", "--season", 0), "--season, --horizon and --epochs must be at least 1"),
    (("--csv", "good.csv", "--seed", -1), "--seed from 0 to 2^64 - 1"),
    (("--column", "sales"), "--column needs --csv"),
    (("--csv", "good.csv", "--epochs", 1, "--plot", "none/p.png"), "--plot: cannot write none/p.png"),
])
def test_bad_arguments(tmp_path, arguments, message):
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    for name, values in (("short", trend(20)), ("empty", []), ("constant", [5] * 200), ("good", trend())):
        table(tmp_path / f"{name}.csv", values)
    (tmp_path / "bytes.csv").write_bytes(b"a,b\n\xff,1\n")
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert done.stderr.startswith("forecast: ")


@pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX signals here")
def test_interrupting(tmp_path):
    with start("--csv", table(tmp_path / "shop.csv", trend()), "--epochs", 10**6, folder=tmp_path) as child:
        assert "values" in child.stdout.readline()
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        out, errors = child.communicate(timeout=10)
    assert child.returncode == -signal.SIGINT and errors == ""


def test_help(tmp_path):
    done = run("--help", folder=tmp_path)
    assert done.returncode == 0 and "python examples/forecast.py" in done.stdout and "--column" in done.stdout
