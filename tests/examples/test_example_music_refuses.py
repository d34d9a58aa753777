"""What examples/music.py refuses in one line: bad files, files that unpack to gigabytes, missing
packages."""

import importlib.util
import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from music_rolls import SCRIPT, midi_file, npz, refused, rolls, works

FILES = Path(__file__).parents[1] / "files"


@pytest.fixture
def fails(tmp_path):
    """Runs the script and expects one line with the message."""

    def check(message, *arguments):
        done = SCRIPT.run(*arguments, folder=tmp_path)
        refused(done.returncode, done.stderr, message)

    return check


# ---------------------------------------------------------------- what it reads


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("format2.mid", "its format is 2, pieces that are independent of each other"),
        ("smpte.mid", "its times are not counted in parts of a quarter (SMPTE division, or none)"),
        ("truncated.mid", "EOFError"),
    ],
)
def test_midi_files_that_are_refused(tmp_path, fails, name, message):
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    for k, roll in enumerate(rolls()["train"]):
        midi_file(mido, tmp_path / "all" / f"{k}.mid", roll)
    bad = tmp_path / "all" / name
    bad.write_bytes((FILES / name).read_bytes())
    fails(message, "--data", tmp_path / "all")
    fails(f"cannot read {bad}: ", "--data", tmp_path / "all")


def test_folders_that_are_half_a_split(tmp_path, fails):
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    folder = tmp_path / "all"
    for name in ("train/0.mid", "test/0.mid"):
        midi_file(mido, folder / name, rolls()["train"][0])
    fails(
        "no piece for valid: each of train, valid, test needs at least one sequence",
        "--data",
        folder,
    )
    midi_file(mido, folder / "else" / "0.mid", rolls()["train"][0])
    fails("0.mid is in none of the folders train, valid and test, others are", "--data", folder)


# ---------------------------------------------------------------- what it writes


def test_a_place_that_cannot_be_written(tmp_path, fails):
    if importlib.util.find_spec("mido") is None and importlib.util.find_spec("matplotlib") is None:
        pytest.skip("skipped: neither mido nor matplotlib is installed")
    path = npz(tmp_path / "a.npz", rolls())
    fails(
        "No such file or directory",
        "--data",
        path,
        "--epochs",
        "1",
        "--out",
        tmp_path / "missing" / "x",
    )


# ---------------------------------------------------------------- what it refuses


def test_files_that_cannot_be_used(tmp_path, fails):
    data, path = rolls(), tmp_path / "a.npz"

    def refuses(message, *more):
        fails(message, "--data", path, "--epochs", "1", *more)

    refuses("No such file")
    for content in (b"", b"no archive", npz(path, data).read_bytes()[:-200]):
        path.write_bytes(content)
        refuses(f"cannot read {path}: ")
    first, wide = data["train"][0], np.zeros((sum(map(len, data["train"])), 128), np.uint8)
    for message, changes in {
        "valid_offset": {"valid_offset": None},
        "test_roll": {"test_roll": None},
        "train piece 0: ValueError: its shape is (0, 88)": {
            "train_offset": np.array([0, 0, len(wide)])
        },
        "train piece 1: ValueError: its shape is (1, 88)": {
            "train_offset": np.array([0, 2, 3, len(wide)])
        },
        "(0, 88), it should be 2 frames or more": {"train_offset": np.array([0, 9, 4, len(wide)])},
        "train_offset must go from 0": {"train_offset": np.array([0, 2, 10**6])},
        "must go from 0 to": {"train_offset": np.array([3, 9, len(wide)])},
        "piece 0: ValueError: its shape is (": {"train_roll": wide},
        "zeros and ones": {"train_roll": wide[:, :88] + 0.5},
        "at least one sequence": {"test_roll": first[:0], "test_offset": np.array([0])},
        "test_offset must go from 0": {"test_offset": np.array([], int)},
        "Object arrays cannot be loaded": {"train_roll": np.array([None])},
        "valid_offset must be a row of whole numbers": {"valid_offset": np.array([0.5, 2])},
        "test_offset must be a row of whole numbers": {"test_offset": np.array([0, -1, 2])},
        "test_roll frames": {"test_roll": np.array(1)},
        "train_roll has the dtype <U1": {"train_roll": np.array(["1"])},
    }.items():
        npz(path, data, **changes)
        refuses(message)
        refuses(str(path))
    nan = wide[:, :88].astype(float)
    nan[0, 0] = np.nan
    npz(path, data, train_roll=nan)
    refuses("zeros and ones")


LIMITED = """import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
sys.argv = ["music.py", "--data", {data!r}, "--epochs", "1"]
runpy.run_path({script!r}, run_name="__main__")
"""


def with_little_memory(data, folder):
    """The script in a process that can have 3 GB, of which its packages take a part."""
    if sys.platform != "linux":
        pytest.skip("skipped: the memory of a process cannot be limited here")
    code = LIMITED.format(limit=3 * 2**30, data=str(data), script=str(SCRIPT.path))
    path = os.pathsep.join([str(SCRIPT.path.parent), os.environ["PYTHONPATH"]])
    environment = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )


def npz_bomb(path, shape, declared=None):
    """A .npz file of a few KB whose train_roll unpacks to zeros of this shape, or whose header
    declares another one."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": declared or shape}
    )
    left = int(np.prod(shape))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("train_roll.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            while left:
                member.write(bytes(min(left, 2**24)))
                left -= min(left, 2**24)
        for name in ("train_offset", "valid_roll", "valid_offset", "test_roll", "test_offset"):
            data = io.BytesIO()
            np.save(
                data, np.zeros((2, 88), np.uint8) if name.endswith("roll") else np.array([0, 2])
            )
            archive.writestr(f"{name}.npy", data.getvalue())
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "declared"),
    [
        ((2_000_000, 88), None),  # 176 MB of zeros in a file of 172 KB
        ((1000, 88), (10**13, 88)),  # a header that claims petabytes
        ((1000, 88), (2**62, 2**62)),  # and one whose size overflows 64 bits
        ((2_000_000, 88), (2, 88)),  # and one that claims little, before much
    ],
)
def test_a_small_file_that_unpacks_to_gigabytes(tmp_path, shape, declared):
    path = npz_bomb(tmp_path / "bomb.npz", shape, declared)
    assert path.stat().st_size < 200_000
    done = with_little_memory(path, tmp_path)
    refused(
        done.returncode,
        done.stderr,
        f"cannot read {path}: ValueError: train_roll has the shape {declared or shape}",
    )


@pytest.mark.slow
def test_mat_files_that_unpack_to_gigabytes(tmp_path):
    pytest.importorskip("scipy.io", reason="skipped: SciPy is not installed")
    path = tmp_path / "bomb.mat"
    data = zlib.compress(bytes(2**28), 9)
    path.write_bytes(
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(data)) + data
    )
    assert path.stat().st_size < 300_000
    done = with_little_memory(path, tmp_path)
    refused(
        done.returncode, done.stderr, f"cannot read {path}: ValueError: it unpacks to more than"
    )


def test_pickled_rolls_are_not_read(tmp_path, fails):
    (tmp_path / "a.pickle").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    fails(
        "it is neither a .npz or .mat file nor a folder of MIDI files",
        "--data",
        tmp_path / "a.pickle",
    )
    assert not (tmp_path / "ran").exists()


def test_other_sources_that_cannot_be_used(tmp_path, fails):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("no music")
    for message, source in (
        ("it is neither", "missing"),
        ("No such file", "missing.npz"),
        ("it is neither", "empty"),
        ("it is neither", "a.txt"),
    ):
        fails(message, "--data", source)
    for option, value in (("--epochs", 0), ("--epochs", -1), ("--seed", -1), ("--seed", 2**128)):
        fails(option, "--data", "synthetic", option, value)
    assert "invalid int value" in SCRIPT.run("--epochs", "many", folder=tmp_path).stderr


def test_mat_files_that_cannot_be_used(tmp_path, fails):
    matlab = pytest.importorskip("scipy.io", reason="skipped: SciPy is not installed")
    path = tmp_path / "a.mat"
    fails("a.mat", "--data", path)
    path.write_bytes(b"no MATLAB file at all" * 20)
    fails(f"cannot read {path}", "--data", path)
    matlab.savemat(path, {"traindata": np.ones(3)})
    fails(f"{path}", "--data", path)


def test_midi_files_that_cannot_be_used(tmp_path, fails):
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    folder, bad = tmp_path / "all", tmp_path / "all" / "3.mid"
    for k, roll in enumerate(rolls()["train"]):
        midi_file(mido, folder / f"{k}.mid", roll)
    good = bad.read_bytes()
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.mid").write_bytes(good)
    fails("at least one sequence", "--data", "few")

    def note(pitch, start, end):
        messages = [
            mido.Message("note_on", note=pitch, time=start),
            mido.Message("note_off", note=pitch, time=end - start),
        ]
        mido.MidiFile(tracks=[mido.MidiTrack(messages)], ticks_per_beat=480).save(bad)
        return bad.read_bytes()

    for message, content in {
        "": b"",
        "MThd not found": b"no MIDI file",
        "EOFError": good[:-3],
        "times must be from 0 to 100,000 quarters": note(60, 0, 480 * 100_001),
        "its times are not counted in parts of a quarter": note(60, 0, 960)[:12]
        + b"\0\0"
        + note(60, 0, 960)[14:],
        "(SMPTE division, or none)": note(60, 0, 960)[:12] + b"\xe7\x28" + note(60, 0, 960)[14:],
    }.items():
        bad.write_bytes(content)
        fails(message, "--data", folder)
        fails(f"cannot read {bad}: ", "--data", folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "package, source", [("scipy", "a.mat"), ("mido", "folder"), ("music21", "music21")]
)
def test_a_package_that_is_missing(tmp_path, package, source):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.mid").touch()
    done = SCRIPT.run_alone("--data", source, folder=tmp_path, without=(package,))
    refused(done.returncode, done.stderr, f"{source} needs {package}: pip install {package}")


def test_help(tmp_path):
    out = works("--help", folder=tmp_path)
    assert "python examples/music.py" in out and "--epochs" in out
