"""Runs all tests in an empty folder: a subprocess started with `python -c` then imports the
installed minigrad, not the source folder beside it. Each test starts from the same random numbers.
And Ctrl-C works in the tests and their subprocesses, also where a shell has started pytest in the
background, which makes a process ignore it.
"""

import os
import signal

import pytest

import minigrad as mg


@pytest.fixture(scope="session", autouse=True)
def empty_folder(tmp_path_factory):
    before = os.getcwd()
    if (
        "PYTHONPATH" in os.environ
    ):  # relative entries are those of the folder in which pytest was started
        os.environ["PYTHONPATH"] = os.pathsep.join(
            os.path.abspath(p) for p in os.environ["PYTHONPATH"].split(os.pathsep)
        )
    os.chdir(tmp_path_factory.mktemp("cwd"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def seed():
    """Bounds on random weights hold for these numbers, and then in every run."""
    mg.manual_seed(0)
