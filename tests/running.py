"""How tests run the example scripts, in this process or in one of their own, and a function in a
small stack."""

import contextlib
import importlib.util
import io
import os
import runpy
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from unittest import mock

# Put in front of the import path, this hides packages as if they were not installed.
HIDE = """import sys
from importlib.machinery import PathFinder
class Finder:
    def find_spec(name, path=None, target=None):
        return None if name in {hidden!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


class Script:
    """An example by its name, as a user runs it; every warning is an error.

    run() runs it within this process, which takes no second to start. start() and run_alone() give
    it a process of its own, for at most `timeout` seconds: for signals, for packages that are not
    installed, for Python's own checks (-X dev).
    """

    def __init__(self, name, timeout=120):
        self.timeout = timeout
        self.path = Path(__file__).parents[1] / "examples" / f"{name}.py"

    def run(self, *arguments, folder="."):
        """The script to its end, in a folder: returncode, stdout, stderr. An exception that a user
        would see as a traceback is raised."""
        before = os.getcwd()
        status = 0
        # Files as the streams of a process are, with an encoding and reconfigure().
        out, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with (
            mock.patch.object(sys, "argv", [str(self.path), *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(errors),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error")
            os.chdir(folder)
            try:
                runpy.run_path(str(self.path), run_name="__main__")
            except SystemExit as end:
                status = end.code or 0
            finally:
                os.chdir(before)
        if status == 130:  # Ctrl-C, of whoever runs the tests
            raise KeyboardInterrupt
        texts = []
        for stream in (out, errors):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        return subprocess.CompletedProcess(arguments, status, *texts)

    def start(self, *arguments, folder=None, without=(), encoding="utf-8"):
        """A running process, started in a folder. without: packages that are not installed.
        encoding: of the terminal."""
        environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": "1"}
        if without:
            (folder / "hide").mkdir(exist_ok=True)
            (folder / "hide" / "sitecustomize.py").write_text(HIDE.format(hidden=without))
            path = [str(folder / "hide"), environment["PYTHONPATH"]]
            environment["PYTHONPATH"] = os.pathsep.join(path)
        command = [sys.executable, "-X", "dev", "-W", "error", str(self.path), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": encoding}
        return subprocess.Popen(command, env=environment, cwd=folder, **pipes)

    def run_alone(self, *arguments, **options):
        """start() to its end: returncode, stdout, stderr."""
        with self.start(*arguments, **options) as child:
            try:
                out, errors = child.communicate(timeout=self.timeout)
            except BaseException:
                child.kill()
                raise
        return subprocess.CompletedProcess(arguments, child.returncode, out, errors)

    def load(self):
        """Its functions, without running it."""
        spec = importlib.util.spec_from_file_location(self.path.stem, self.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def in_small_thread(function):
    """Run in a thread with a stack of 256 KB and hand on what it raises or returns."""
    result = []

    def run():
        try:
            result.append((function(), None))
        except BaseException as error:
            result.append((None, error))

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    value, error = result[0]
    if error is not None:
        raise error
    return value
