"""examples/music.py as a user runs it: it learns, reads every kind of file alike, refuses bad ones
in one line."""

import importlib.util
import io
import os
import re
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from running import Script

import minigrad as mg

ROOT = Path(__file__).parents[2]
SCRIPT = Script("music", timeout=240)
FILES = Path(__file__).parents[1] / "files"
SHARED = (
    Path(os.environ.get("MINIGRAD_SHARED", ROOT.parent / "shared")) / "data" / "JSB_Chorales.npz"
)
SPLITS = "train", "valid", "test"


def works(*arguments, folder, without=()):
    if without:
        done = SCRIPT.run_alone(*arguments, folder=folder, without=without)
    else:
        done = SCRIPT.run(*arguments, folder=folder)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


def refused(status, errors, message):
    assert status == 2 and "Traceback" not in errors, errors
    assert errors.startswith("music: ") and errors.count("\n") == 1 and message in errors, errors


@pytest.fixture
def fails(tmp_path):
    """Runs the script and expects one line with the message."""

    def check(message, *arguments):
        done = SCRIPT.run(*arguments, folder=tmp_path)
        refused(done.returncode, done.stderr, message)

    return check


def results(out):
    """name -> (validation, test), nats per frame."""
    row = r"validation ([\d.]+)  test ([\d.]+) nats per frame  (\S+)"
    return {name: (float(valid), float(test)) for valid, test, name in re.findall(row, out)}


@pytest.fixture(scope="module")
def music():
    return SCRIPT.load()


def rolls(seed=0):
    """Per split a few pieces of 3 to 12 frames, random but for a key that always sounds, so that no
    frame is silent."""
    rng = np.random.default_rng(seed)
    made = {
        split: [
            (rng.random((rng.integers(3, 13), 88)) < 0.05).astype(np.uint8) for _ in range(count)
        ]
        for split, count in (("train", 9), ("valid", 3), ("test", 4))
    }
    for pieces in made.values():
        for roll in pieces:
            roll[:, 40] = 1
    return made


def npz(path, data, **changes):
    arrays = {
        f"{s}_roll": np.concatenate(pieces) if pieces else np.zeros((0, 88), np.uint8)
        for s, pieces in data.items()
    }
    arrays |= {f"{s}_offset": np.cumsum([0, *map(len, pieces)]) for s, pieces in data.items()}
    arrays = {name: array for name, array in (arrays | changes).items() if array is not None}
    np.savez(path, **arrays)
    return path


# ---------------------------------------------------------------- learning


@pytest.mark.slow
def test_it_learns_the_set_that_it_makes(tmp_path, music):
    """Better than the best guess that ignores the past, the frequency of each key, and that by a
    margin; with the published sizes."""
    out = works("--data", "synthetic", "--epochs", "40", folder=tmp_path)
    pieces = [music.synthetic(np.random.default_rng(k)) for k in range(150)]
    train, test = (
        np.concatenate([p for k, p in enumerate(pieces) if k % 5 in part])
        for part in ((0, 1, 2), (4,))
    )
    p = np.clip(train.mean(0), 1e-3, 1)
    guess = -(test * np.log(p) + (1 - test) * np.log1p(-p)).sum(1).mean()
    found = results(out)
    assert list(found) == ["tanh-100", "GRU-46", "LSTM-36"]
    assert all(value < guess - 2 for pair in found.values() for value in pair), (found, guess)
    for parameters in ("27,788", "22,766", "21,256"):
        assert f"{parameters} parameters" in out


@pytest.mark.slow
def test_a_seed_is_a_run(tmp_path):
    path = npz(tmp_path / "small.npz", rolls())
    a, b, c = (
        results(works("--data", path, "--epochs", "3", "--seed", seed, folder=tmp_path))
        for seed in (1, 1, 2)
    )
    assert a == b != c


def test_the_loss_is_the_metric(music):
    """Nats per frame as metrics.frame_nll has it piece by piece, whatever stands in the padding."""
    data = rolls()["train"]
    model = music.Composer(mg.nn.GRU, 5).eval()
    x, lengths = mg.data.pad([roll[:-1].astype(np.float32) for roll in data])
    y, _ = mg.data.pad([roll[1:].astype(np.float32) for roll in data])
    parts = []
    for b, n in enumerate(lengths):
        out, _ = model.rnn(x[:n, b : b + 1])
        parts.append(mg.metrics.frame_nll(model.head(out), y[:n, b : b + 1]))
        x[n:, b], y[n:, b] = np.nan, 7
    assert model(x, lengths, y).item() == pytest.approx(
        np.average(parts, weights=lengths), rel=1e-5
    )


@pytest.mark.slow
def test_the_chorales_of_boulanger_lewandowski(tmp_path):
    if not SHARED.exists():
        pytest.skip(f"skipped: {SHARED} is not there")
    found = results(works("--data", SHARED, "--epochs", "8", folder=tmp_path))
    assert len(found) == 3 and all(test < 10.5 for _, test in found.values()), found


@pytest.mark.slow
def test_ctrl_c_ends_it(tmp_path):
    if os.name != "posix":
        pytest.skip("skipped: no POSIX signals here")
    child = SCRIPT.start("--data", "synthetic", "--epochs", "100000", folder=tmp_path)
    try:
        next(line for line in child.stdout if line.startswith("step "))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert (child.returncode, errors) == (130, "")


# ---------------------------------------------------------------- what it reads


def midi_file(mido, path, roll):
    """Each frame a quarter, each sounding key struck anew in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    track = mido.MidiTrack()
    for frame in roll:
        keys = [int(key) + 21 for key in np.flatnonzero(frame)]
        track += [mido.Message("note_on", note=note, time=0) for note in keys]
        track += [
            mido.Message("note_off", note=note, time=0 if k else 96) for k, note in enumerate(keys)
        ]
    mido.MidiFile(tracks=[track], ticks_per_beat=96).save(path)


@pytest.mark.slow
def test_npz(tmp_path):
    """The numbers are those of the pieces: another test piece gives another test result and nothing
    else."""
    data = rolls()
    a = results(works("--data", npz(tmp_path / "a.npz", data), "--epochs", "2", folder=tmp_path))
    data["test"][0] = 1 - data["test"][0]
    b = results(works("--data", npz(tmp_path / "b.npz", data), "--epochs", "2", folder=tmp_path))
    assert len(a) == len(b) == 3
    for name in a:
        assert a[name][0] == b[name][0] and a[name][1] < b[name][1]


@pytest.mark.slow
def test_mat_is_read_like_npz(tmp_path):
    matlab = pytest.importorskip("scipy.io", reason="skipped: SciPy is not installed")
    data, cells = rolls(), {}
    for split, pieces in data.items():
        cells[f"{split}data"] = np.empty((1, len(pieces)), object)
        for k, roll in enumerate(pieces):
            cells[f"{split}data"][0, k] = roll.astype(float)
    matlab.savemat(tmp_path / "a.mat", cells)
    npz(tmp_path / "a.npz", data)
    a, b = (works("--data", path, "--epochs", "2", folder=tmp_path) for path in ("a.npz", "a.mat"))
    assert results(a) == results(b) and len(results(a)) == 3


@pytest.mark.slow
def test_midi_is_read_like_npz(tmp_path):
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    data = rolls()
    for split, pieces in data.items():
        for k, roll in enumerate(pieces):
            midi_file(mido, tmp_path / "all" / split / f"{k}.mid", roll)
    (tmp_path / "all" / "README").write_text("no music")
    a, b = (
        works("--data", path, "--epochs", "2", folder=tmp_path)
        for path in (npz(tmp_path / "a.npz", data), tmp_path / "all")
    )
    assert results(a) == results(b) and len(results(a)) == 3


@pytest.mark.slow
def test_midi_without_splits_is_split_up(tmp_path):
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    pieces = rolls()["train"] + rolls()["valid"]
    for k, roll in enumerate(pieces):
        midi_file(mido, tmp_path / "all" / f"{k:02}.MID", roll)
    parts = {"train": (0, 1, 2), "valid": (3,), "test": (4,)}
    data = {
        split: [roll for k, roll in enumerate(pieces) if k % 5 in part]
        for split, part in parts.items()
    }
    a, b = (
        works("--data", path, "--epochs", "2", folder=tmp_path)
        for path in (npz(tmp_path / "a.npz", data), tmp_path / "all")
    )
    assert results(a) == results(b) and len(results(a)) == 3


def keys(music, file):
    """The pitches of each frame of a MIDI file."""
    notes, length, _ = music.midi_notes(file)
    return [(np.flatnonzero(frame) + 21).tolist() for frame in music.roll_of(notes, length)[0]]


@pytest.mark.parametrize(
    ("name", "drums", "outside", "expected"),
    [
        ("late.mid", 0, 0, [[60], [62], [64], [65]]),
        ("band.mid", 2, 3, [[40, 60], [40, 62], [40, 64], [65]]),
        ("keys.mid", 0, 0, [[60]] * 5 + [[70]]),
    ],
)
def test_midi_files(music, name, drums, outside, expected):
    """late: format 0, running status, velocity 0, each quarter 5 ticks late. band: format 1,
    tempos, eighths off the beat, a note that the pedal holds for three quarters, drums, pitches 20,
    109 and 127, an empty track. keys: one key struck twice before it goes up, in two voices, a key
    that never goes up, and one that goes up without having gone down."""
    pytest.importorskip("mido", reason="skipped: mido is not installed")
    notes, length, found = music.midi_notes(FILES / name)
    assert (
        keys(music, FILES / name) == expected
        and found == drums
        and music.roll_of(notes, length)[1] == outside
    )


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


def test_no_note_is_lost(tmp_path, music):
    """Each of 88 notes has its cells, wherever within a quarter it begins."""
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    rng = np.random.default_rng(3)
    events, expected = [], np.zeros((200, 88), bool)
    for k, pitch in enumerate(rng.permutation(np.arange(21, 109))):
        start, length = 2 * k + rng.uniform(0, 1), rng.uniform(0.01, 1.4)
        begin, end = round(start * 96), round((start + length) * 96)
        events += [(begin, "note_on", int(pitch)), (end, "note_off", int(pitch))]
        first = -((96 - 2 * begin) // 192)  # halves go down: ceil(begin / 96 - 1 / 2)
        expected[first : max(first + 1, -((96 - 2 * end) // 192)), pitch - 21] = True
    track, now = mido.MidiTrack(), 0
    for tick, kind, pitch in sorted(events):
        track.append(mido.Message(kind, note=pitch, time=tick - now))
        now = tick
    mido.MidiFile(tracks=[track], ticks_per_beat=96).save(tmp_path / "a.mid")
    notes, length, _ = music.midi_notes(tmp_path / "a.mid")
    roll, outside = music.roll_of(notes, length)
    assert outside == 0 and (roll.any(0)).all() and not expected[len(roll) :].any()
    assert np.array_equal(roll, expected[: len(roll)])


def test_the_pedal(tmp_path, music):
    """A key struck again ends the note that only the pedal holds; a pedal that stays down holds to
    the end; channels differ."""
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")

    def message(kind, time, channel=0, **values):
        return mido.Message(kind, channel=channel, time=time * 96, **values)

    def pedal(value, time):
        return message("control_change", time, control=64, value=value)

    track = mido.MidiTrack(
        [
            pedal(127, 0),
            message("note_on", 0, note=60),
            message("note_on", 0, 1, note=70),
            message("note_off", 1, note=60),
            message("note_off", 0, 1, note=70),
            pedal(63, 2),
            message("note_on", 1, note=62),
            message("note_off", 1, note=62),
            pedal(64, 0),
            message("note_on", 1, note=64),
            message("note_off", 1, note=64),
            message("note_on", 1, note=64),
            message("note_off", 1, note=64),
            message("control_change", 1, control=7, value=0),
        ]
    )
    mido.MidiFile(tracks=[track], ticks_per_beat=96).save(tmp_path / "a.mid")
    assert keys(music, tmp_path / "a.mid") == [
        [60, 70],
        [60],
        [60],
        [],
        [62],
        [],
        [64],
        [64],
        [64],
        [64],
    ]


@pytest.mark.slow
def test_folders_are_the_split_and_what_is_left_out_is_told(tmp_path):
    """Names of the three folders as people write them; ._x.mid and x.mid.txt are no MIDI; drums
    alone are no piece."""
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    data, folder = rolls(), tmp_path / "all"
    for split, name in (("train", "Training"), ("valid", "validation"), ("test", "TEST")):
        for k, roll in enumerate(data[split]):
            midi_file(mido, folder / "set" / name / f"{k}.{'midi' if k else 'mid'}", roll)
    for name in ("._0.mid", "0.mid.txt", "0.mid~"):
        (folder / "set" / "Training" / name).write_bytes(b"no MIDI")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "0.mid").write_bytes(b"no MIDI")
    drums = mido.MidiTrack(
        [
            mido.Message("note_on", channel=9, note=36),
            mido.Message("note_off", channel=9, note=36, time=960),
            mido.Message("note_on", note=20),
            mido.Message("note_off", note=20, time=960),
        ]
    )
    mido.MidiFile(tracks=[drums], ticks_per_beat=96).save(folder / "set" / "TEST" / "drums.mid")
    arguments = "--epochs", "1"
    a = works("--data", npz(tmp_path / "a.npz", data), *arguments, folder=tmp_path)
    b = works("--data", folder, *arguments, folder=tmp_path)
    assert results(a) == results(b) and len(results(a)) == 3
    for line in (
        "MIDI files by their folders: 9 train, 3 valid, 5 test\n",
        "left out: 1 notes of drums\n",
        "left out: 1 notes outside of the 88 keys\n",
        "left out: 1 files without two frames of notes\n",
    ):
        assert line in b


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


def test_what_sounds_when_a_quarter_begins(tmp_path, music):
    """Two voices on one key, note_on of velocity 0, a note between two beats, a note_off too
    many."""
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")

    def on(note, time):
        return mido.Message("note_on", note=note, time=time)

    def off(note, time):
        return mido.Message("note_off", note=note, time=time)

    one = mido.MidiTrack(
        [off(60, 0), on(60, 0), off(60, 480), on(62, 100), off(62, 200), on(64, 180), off(64, 960)]
    )
    two = mido.MidiTrack(
        [
            on(60, 0),
            mido.Message("note_on", note=60, velocity=0, time=960),
            on(21, 10),
            off(21, 480),
        ]
    )
    mido.MidiFile(tracks=[one, two], ticks_per_beat=480).save(tmp_path / "a.mid")
    assert keys(music, tmp_path / "a.mid") == [[60], [60, 62], [21, 64], [64]]
    thirds = mido.MidiTrack(
        [
            on(60, 0),
            *(mido.Message("control_change", time=160) for _ in range(3 * 50 - 1)),
            off(60, 160),
        ]
    )
    mido.MidiFile(tracks=[thirds], ticks_per_beat=480).save(tmp_path / "b.mid")
    assert keys(music, tmp_path / "b.mid") == [[60]] * 50  # steps of a third sum up exactly


@pytest.mark.slow
def test_music21(tmp_path):
    pytest.importorskip("music21", reason="skipped: music21 is not installed")
    if os.environ.get("MINIGRAD_SLOW") is None:
        pytest.skip("skipped: reading music21's chorales takes minutes, set MINIGRAD_SLOW=1")
    assert all(
        test < 12
        for _, test in results(
            works("--data", "music21", "--epochs", "2", folder=tmp_path)
        ).values()
    )


# ---------------------------------------------------------------- what it writes


def test_midi_and_picture(tmp_path, music):
    """The piece begins with 8 frames of the first test piece and has 64."""
    mido = pytest.importorskip("mido", reason="skipped: mido is not installed")
    pytest.importorskip("matplotlib", reason="skipped: matplotlib is not installed")
    data = rolls()
    data["test"][0] = np.eye(88, dtype=np.uint8)[40:43].repeat(4, axis=0)
    out = works(
        "--data",
        npz(tmp_path / "a.npz", data),
        "--epochs",
        "2",
        "--out",
        tmp_path / "new",
        folder=tmp_path,
    )
    assert f"wrote {tmp_path / 'new.mid'}" in out and f"wrote {tmp_path / 'new.png'}" in out
    notes, length, _ = music.midi_notes(tmp_path / "new.mid")
    roll, _ = music.roll_of(notes, length)
    assert 8 < len(roll) <= 64 and np.array_equal(roll[:8], data["test"][0][:8]) and roll[8:].any()
    assert len(mido.MidiFile(tmp_path / "new.mid").tracks) == 1
    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_without_mido_and_matplotlib_it_says_so(tmp_path):
    out = works(
        "--data",
        npz(tmp_path / "a.npz", rolls()),
        "--epochs",
        "1",
        folder=tmp_path,
        without=("mido", "matplotlib"),
    )
    assert (
        "no music.mid, which needs mido: pip install mido" in out
        and "pip install matplotlib" in out
    )
    assert (
        not (tmp_path / "music.mid").exists()
        and not (tmp_path / "music.png").exists()
        and len(results(out)) == 3
    )


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
