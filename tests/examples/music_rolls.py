"""examples/music.py, and pieces of music for it, made at random: as rolls, .npz and MIDI files."""

import re

import numpy as np
from running import Script

SCRIPT = Script("music", timeout=240)


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


def results(out):
    """name -> (validation, test), nats per frame."""
    row = r"validation ([\d.]+)  test ([\d.]+) nats per frame  (\S+)"
    return {name: (float(valid), float(test)) for valid, test, name in re.findall(row, out)}


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
