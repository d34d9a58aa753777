"""examples/music.py as a user runs it: it learns, reads every kind of file alike, writes MIDI and a
picture."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from music_rolls import SCRIPT, midi_file, npz, results, rolls, works

import minigrad as mg

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parents[1] / "files"
SHARED = (
    Path(os.environ.get("MINIGRAD_SHARED", ROOT.parent / "shared")) / "data" / "JSB_Chorales.npz"
)
SPLITS = "train", "valid", "test"


@pytest.fixture(scope="module")
def music():
    return SCRIPT.load()


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
@pytest.mark.long
def test_music21(tmp_path):
    """Reading its chorales takes minutes."""
    pytest.importorskip("music21", reason="skipped: music21 is not installed")
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
