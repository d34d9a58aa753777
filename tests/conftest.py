"""Runs all tests in an empty folder, each from the same random numbers, and lets their subprocesses
import the minigrad that the tests import: the installed one, or the one that was built in place.

Ctrl-C works in the tests and their subprocesses, also where a shell has started pytest in the
background, which makes a process ignore it.
"""

import os
import signal
from pathlib import Path

import pytest

import minigrad as mg


@pytest.fixture(scope="session", autouse=True)
def empty_folder(tmp_path_factory):
    before = os.getcwd()
    # Relative entries are those of the folder in which pytest was started.
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = [Path(mg.__file__).parents[1], *map(os.path.abspath, entries)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, path)))
        os.chdir(tmp_path_factory.mktemp("cwd"))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def seed():
    """Bounds on random weights hold for these numbers, and then in every run."""
    mg.manual_seed(0)
