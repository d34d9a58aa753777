"""How tests run what must not run beside them: the example scripts in processes of their own, a
function in a small stack."""

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import minigrad as mg

# Put in front of the import path, this hides packages as if they were not installed.
HIDE = """import sys
from importlib.machinery import PathFinder
class Finder:
    def find_spec(name, path=None, target=None):
        return None if name in {hidden!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


class Script:
    """An example by its name, as a user runs it, in at most `timeout` seconds; every warning is an
    error."""

    def __init__(self, name, timeout=120):
        self.timeout = timeout
        self.path = Path(__file__).parents[1] / "examples" / f"{name}.py"

    def start(self, *arguments, folder=None, without=(), encoding="utf-8"):
        """A running process, started in a folder. without: packages that are not installed.
        encoding: of the terminal."""
        path = [str(Path(mg.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        if without:
            (folder / "hide").mkdir(exist_ok=True)
            (folder / "hide" / "sitecustomize.py").write_text(HIDE.format(hidden=without))
            path.insert(0, str(folder / "hide"))
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONIOENCODING": encoding,
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-X", "dev", "-W", "error", str(self.path), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": encoding}
        return subprocess.Popen(command, env=environment, cwd=folder, **pipes)

    def run(self, *arguments, **options):
        """The same to its end: returncode, stdout, stderr."""
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
