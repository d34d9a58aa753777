"""Saving is atomic: full disks, signals, kills, threads and odd places leave the old file or the
new one."""

import errno
import os
import stat
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from checkpoints import a_folder_as_no_root

import minigrad as mg

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX files here")


def save_old(tmp_path):
    mg.save(tmp_path / "a", {"w": np.zeros(1000)})
    return (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("where", ["open", "write", "flush", "fsync", "chmod", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, where, code):
    """Whatever call it is that fails, for whatever reason: an OSError that names the file; no
    temporary file stays."""
    before, opened = save_old(tmp_path), open

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    class Failing:
        """A file whose write or flush fails."""

        def __init__(self, handle, mode):
            self.file = opened(handle, mode)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return fail if name == where else getattr(self.file, name)

    with monkeypatch.context() as patch:
        if where in ("write", "flush"):
            patch.setattr("builtins.open", Failing)
        else:
            patch.setattr(os, where, fail)
        with pytest.raises(OSError) as caught:
            mg.save(tmp_path / "a", {"w": np.ones(1000)})
    assert caught.value.errno == code and caught.value.filename == str(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == before and os.listdir(tmp_path) == ["a"]


@posix
def test_a_folder_that_cannot_be_flushed(tmp_path, monkeypatch):
    """The error is told, and the place holds the whole new file."""
    save_old(tmp_path)
    fsync, calls = os.fsync, []

    def second(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", second)
        with pytest.raises(OSError) as caught:
            mg.save(tmp_path / "a", {"w": np.ones(1000)})
    assert caught.value.errno == errno.EIO and os.listdir(tmp_path) == ["a"]
    assert (mg.load(tmp_path / "a")[0]["w"] == 1).all()


@posix
def test_a_read_only_folder():
    """Nothing is lost, the message names the file."""
    with a_folder_as_no_root() as folder:
        mg.save(folder / "a", {"w": np.zeros(3)})
        os.chmod(folder, 0o555)
        try:
            with pytest.raises(PermissionError) as caught:
                mg.save(folder / "a", {"w": np.ones(3)})
        finally:
            os.chmod(folder, 0o755)
        assert caught.value.filename == str(folder / "a") and os.listdir(folder) == ["a"]
        assert (mg.load(folder / "a")[0]["w"] == 0).all()


@posix
def test_orphans_of_killed_savers_are_removed(tmp_path, monkeypatch):
    """Those that are ours and older than an hour; nothing else."""
    old, young = time.time() - 3700, time.time() - 3500
    files = {
        ".minigrad-abc.tmp": old,
        ".minigrad-def.tmp": old,
        ".minigrad-new.tmp": young,
        ".minigrad-abc.txt": old,
        "x.tmp": old,
        "minigrad-abc.tmp": old,
        "model.safetensors": old,
    }
    for name, changed in files.items():
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (changed, changed))
    (tmp_path / ".minigrad-folder.tmp").mkdir()
    os.utime(tmp_path / ".minigrad-folder.tmp", (old, old))
    os.symlink(tmp_path / "x.tmp", tmp_path / ".minigrad-link.tmp")
    os.utime(tmp_path / ".minigrad-link.tmp", (old, old), follow_symlinks=False)
    everything = {*files, ".minigrad-folder.tmp", ".minigrad-link.tmp", "a"}
    user = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: user + 1)  # the files are another user's
        mg.save(tmp_path / "a", {})
    assert set(os.listdir(tmp_path)) == everything
    mg.save(tmp_path / "a", {})
    assert set(os.listdir(tmp_path)) == everything - {".minigrad-abc.tmp", ".minigrad-def.tmp"}


@posix
def test_a_link_is_replaced_and_its_target_kept(tmp_path):
    before = save_old(tmp_path)
    os.symlink("a", tmp_path / "link")
    mg.save(tmp_path / "link", {"w": np.ones(3)})
    assert (tmp_path / "a").read_bytes() == before and not (tmp_path / "link").is_symlink()
    assert (mg.load(tmp_path / "link")[0]["w"] == 1).all()


@posix
def test_a_file_that_is_replaced_while_it_is_read(tmp_path, monkeypatch):
    save_old(tmp_path)
    read = mg.training.checkpoint._read

    def replaced(file, size):
        mg.save(tmp_path / "a", {"w": np.ones(5)})
        return read(file, size)

    with monkeypatch.context() as patch:
        patch.setattr("minigrad.training.checkpoint._read", replaced)
        assert (mg.load(tmp_path / "a")[0]["w"] == np.zeros(1000)).all()
    assert (mg.load(tmp_path / "a")[0]["w"] == np.ones(5)).all()


@posix
def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on the size of files stands for the full disk: write itself fails."""
    before = save_old(tmp_path)
    code = f"""
        import resource, signal, numpy as np, minigrad as mg
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            mg.save({str(tmp_path / "a")!r}, {{"w": np.ones(10**5)}})
        except OSError as error:
            print(type(error).__name__, error.errno)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"OSError {errno.EFBIG}\n", done.stderr
    assert (tmp_path / "a").read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_ctrl_c_while_saving_leaves_the_old_file(tmp_path, monkeypatch):
    before = save_old(tmp_path)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mg.save(tmp_path / "a", {"w": np.ones(1000)})
    assert (tmp_path / "a").read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError):
        mg.save(tmp_path / "missing" / "a", {})
    with pytest.raises(OSError):
        mg.save(tmp_path / "folder", {})
    assert os.listdir(tmp_path) == ["folder"] and not os.listdir(tmp_path / "folder")


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_mode_follows_umask_and_then_the_old_file(tmp_path, mask):
    old = os.umask(mask)
    try:
        mg.save(tmp_path / "a", {})
        assert os.umask(mask) == mask
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o666 & ~mask
    os.chmod(tmp_path / "a", 0o640)
    mg.save(tmp_path / "a", {})
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o640


@posix
def test_the_umask_is_not_touched(tmp_path, monkeypatch):
    """It belongs to the whole process: another thread would create a file for everyone in that
    moment."""

    def touched(_):
        raise AssertionError("umask was called")

    monkeypatch.setattr(os, "umask", touched)
    mg.save(tmp_path / "a", {})
    mg.save(tmp_path / "a", {})
    mg.training.checkpoint.check_place(tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]


@posix
def test_a_closed_file_is_never_open_to_others(tmp_path, monkeypatch):
    """While it is written, too."""
    mg.save(tmp_path / "a", {})
    os.chmod(tmp_path / "a", 0o600)
    modes, fsync = [], os.fsync

    def look(handle):
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", look)
    mg.save(tmp_path / "a", {"w": np.ones(3)})
    assert modes[0] == 0o600 == stat.S_IMODE(os.stat(tmp_path / "a").st_mode)


@posix
def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    os.symlink("folder", tmp_path / "link")
    os.symlink("/dev/null", tmp_path / "null")
    for name, error in (
        ("fifo", OSError),
        ("folder", IsADirectoryError),
        ("link", IsADirectoryError),
        ("null", OSError),
    ):
        for call in (lambda path: mg.save(path, {}), mg.training.checkpoint.check_place):
            with pytest.raises(error) as caught:
                call(tmp_path / name)
            assert caught.value.filename == str(tmp_path / name)
    assert stat.S_ISFIFO(os.stat(tmp_path / "fifo").st_mode)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "folder", "link", "null"]


def test_a_file_object_is_a_type_error(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        for call in (lambda: mg.save(file, {}), lambda: mg.load(file)):
            with pytest.raises(
                TypeError, match="path must be a str, bytes or os.PathLike, got BufferedWriter"
            ):
                call()


def test_threads_that_save_to_one_place(tmp_path):
    errors = []

    def saver(k):
        try:
            for _ in range(30):
                mg.save(tmp_path / "a", {"w": np.full(2000, float(k))}, (k,))
                arrays, extra = mg.load(tmp_path / "a")
                assert (arrays["w"] == extra[0]).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=saver, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and os.listdir(tmp_path) == ["a"]


# What the child of a fork does: it saves without end, arrays full of the step's number.
SAVER = """
    import os, random, signal, sys, time
    import numpy as np, minigrad as mg

    def check(path):
        arrays, step = mg.load(path)
        assert all((a == step).all() and a.shape == (20000,) for a in arrays.values()), step
        return step

    def saver(path, step):
        child = os.fork()
        if child:
            return child
        try:
            while True:
                step += 1
                w, v = np.full((2, 20000), float(step))
                mg.save(path, {"w": w, "v": v}, step)
        finally:
            os._exit(1)         # an error: only a kill ends it
    path = sys.argv[1]
    random.seed(0)
"""


def savers(path, code):
    command = [sys.executable, "-c", textwrap.dedent(SAVER) + textwrap.dedent(code), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@posix
def test_kill_while_saving(tmp_path):
    """After kill -9 at any moment the file is whole: the old one or the new one. 40 times or
    more."""
    mg.save(tmp_path / "a", {"w": np.full(20000, 0.0), "v": np.full(20000, 0.0)}, 0)
    out = savers(
        tmp_path / "a",
        """
        last = kills = 0
        while kills < 40 or last < 40:      # a busy machine may kill a child before its first save
            kills += 1
            child = saver(path, last)
            time.sleep(random.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
            step = check(path)
            assert step >= last
            last = step
        print(last, len(os.listdir(os.path.dirname(path))) - 1)
    """,
    )
    saves, orphans = map(int, out.split())
    assert saves >= 40 and orphans > 0  # some kills did come in the middle of a save


@pytest.mark.slow
@posix
def test_two_savers_and_a_reader(tmp_path):
    """Both savers go on, every read is whole, and no temporary file stays but those of the kill in
    the end."""
    mg.save(tmp_path / "a", {"w": np.full(20000, 0.0), "v": np.full(20000, 0.0)}, 0)
    out = savers(
        tmp_path / "a",
        """
        children, seen, start = [saver(path, 0), saver(path, 10**6)], set(), time.time()
        while time.time() - start < 20 and not (len(seen) > 20 and min(seen) < 10**6 < max(seen)):
            seen.add(check(path))
        for child in children:
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "a saver has failed"
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        check(path)
        print(len(seen), min(seen) < 10**6 < max(seen), len(os.listdir(os.path.dirname(path))))
    """,
    )
    reads, both, files = out.split()
    assert int(reads) > 20 and both == "True" and int(files) <= 3
