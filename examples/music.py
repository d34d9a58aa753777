"""Polyphonic music: three recurrent networks of about equal size learn to go on with a piece, and the best one composes.

    python examples/music.py                  on Bach's chorales out of music21 if that is installed, else on a set made here
    python examples/music.py --data DATA      on piano rolls, .npz or .mat (needs scipy), or a folder of MIDI files (needs mido)
    python examples/music.py --data synthetic --epochs 5            a short look

After Chung et al. 2014 (arXiv:1412.3555): tanh, GRU and LSTM see which of 88 keys sound in each frame, a quarter long, and tell
how likely each is in the next. Printed: negative log-likelihoods in nats, summed over keys, as a mean over all predicted frames,
at last by the weights best in validation. The best network's music.mid needs mido, the picture music.png matplotlib. Full run on
Boulanger-Lewandowski's JSB chorales: test 8.48, 8.43, 8.57 in 5, 3, 4 s, one core of an AMD EPYC (Zen 5); 4 seeds: at most 8.57.
"""
import argparse
from importlib.util import find_spec
from math import ceil
from pathlib import Path

import numpy as np

import minigrad as mg

SPLITS, LOW, KEYS = ("train", "valid", "test"), 21, 88          # a piano's lowest key is pitch 21 of MIDI
NETWORKS = {"tanh-100": (mg.nn.RNN, 100), "GRU-46": (mg.nn.GRU, 46), "LSTM-36": (mg.nn.LSTM, 36)}


class Composer(mg.nn.Module):
    """Called with frames (T, B, 88) and the following ones: nats per frame, a sum over keys, a mean over all but the padding."""

    def __init__(self, layer: type, units: int) -> None:
        self.rnn, self.head = layer(KEYS, units, recurrent_dropout=0.3), mg.nn.Linear(units, KEYS)

    def forward(self, x, lengths, y):
        out, _ = self.rnn(x, lengths=lengths)
        real = np.arange(len(x))[:, None] < lengths
        return KEYS * mg.binary_cross_entropy_with_logits(self.head(out[real]), y[real])


def synthetic(rng: np.random.Generator) -> np.ndarray:
    """A piece in a major key: chords that mostly go down a fifth; each voice goes to a near note of the next chord."""
    tonic, degree, voices, roll = rng.integers(-3, 4), 0, np.array([48, 55, 64, 72]), np.zeros((8 * rng.integers(4, 9), KEYS))
    for t, frame in enumerate(roll):
        degree = (degree + rng.choice((3, 3, 3, 4, 1, 5))) % 7 if t % 8 % 7 else 0      # phrases of eight, from tonic to tonic
        chord = [(tonic + (0, 2, 4, 5, 7, 9, 11)[(degree + third) % 7]) % 12 for third in (0, 2, 4)]
        for v, low in enumerate((40, 48, 55, 60)):                                      # v = 0: the bass has the root
            near = [pitch for pitch in range(low, low + 20) if pitch % 12 in chord[:3 if v else 1]]
            voices[v] = min(near, key=lambda pitch: abs(pitch - voices[v]) + 3 * rng.random())
        frame[voices - LOW] = 1
    return roll


def midi_roll(file: Path) -> np.ndarray:
    import mido
    midi, now, roll, sounding = mido.MidiFile(file), 0, [], np.zeros(KEYS, int)
    for message in midi.merged_track:
        now += message.time
        if not 0 <= now <= 10**5 * midi.ticks_per_beat or getattr(message, "note", LOW) - LOW not in range(KEYS):
            raise ValueError(f"{message} at tick {now}: notes must be from 21 to 108, times from 0 to 100,000 quarters")
        roll += [sounding > 0] * (ceil(now / (midi.ticks_per_beat or 1)) - len(roll))   # a frame has what sounds when it begins
        if message.type in ("note_on", "note_off"):
            change = 1 if message.type == "note_on" and message.velocity else -1
            sounding[message.note - LOW] = max(0, sounding[message.note - LOW] + change)
    return np.array(roll)


def pieces(source: str):
    """(split or None, name, its roll, or None for a MIDI file) of each piece."""
    if source == "music21":
        from music21 import corpus
        for k, score in enumerate(corpus.chorales.Iterator()):
            roll = np.zeros((ceil(score.highestTime), KEYS))
            for note in score.flatten().notes:
                roll[ceil(note.offset):ceil(note.offset + note.quarterLength), [pitch.midi - LOW for pitch in note.pitches]] = 1
            yield None, f"music21: chorale {k}", roll
    elif source == "synthetic":
        yield from ((None, f"synthetic piece {k}", synthetic(np.random.default_rng(k))) for k in range(150))
    elif files := sorted(Path(source).rglob("*.[mM][iI][dD]*")):
        for file in files:
            yield file.relative_to(source).parts[0], file, None
    elif source.endswith(".mat"):
        from scipy.io import loadmat
        cells = loadmat(source)
        yield from ((s, f"{source}: {s} piece {k}", roll) for s in SPLITS for k, roll in enumerate(cells[f"{s}data"].flat))
    elif source.endswith(".npz"):               # the rolls of a split end to end, and the offsets where they begin and end
        with np.load(source) as file:
            for split in SPLITS:
                roll, at = file[f"{split}_roll"], file[f"{split}_offset"].tolist()
                if at[:1] != [0] or at[-1:] != [len(roll)]:
                    raise ValueError(f"{split}_offset must go from 0 to {len(roll)}, the frames of {split}_roll")
                yield from ((split, f"{source}: {split} piece {k}", roll[at[k]:at[k + 1]]) for k in range(len(at) - 1))
    else:
        raise ValueError("it is neither a .npz or .mat file nor a folder of MIDI files")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="music21" if find_spec("music21") else "synthetic", help="see above")
    parser.add_argument("--epochs", type=int, default=100, help="at most (default 100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", metavar="NAME", default="music", help="write NAME.mid and NAME.png (default music)")
    o = parser.parse_args()
    if o.epochs < 1 or not 0 <= o.seed < 2**128:
        parser.exit(2, "music: --epochs must be at least 1, --seed from 0 to 2^128 - 1\n")
    print(f"reading {o.data}", flush=True)              # the first time, music21 needs minutes
    data, results, name = {split: [] for split in SPLITS}, [], o.data
    try:
        for k, (split, name, roll) in enumerate(list(pieces(o.data))):
            roll = midi_roll(name) if roll is None else roll
            if roll.shape[1:] != (KEYS,) or len(roll) < 2 or not np.isin(roll, (0, 1)).all():
                raise ValueError(f"its shape is {roll.shape}, it should be 2 frames or more of {KEYS} zeros and ones")
            data.get(split, data[SPLITS[max(k % 5 - 2, 0)]]).append(roll.astype(np.float32))    # no split: 3 of 5 train
        train, (valid,), (test,) = (mg.data.Batches([r[:-1] for r in rolls], [r[1:] for r in rolls], shuffle=split == "train",
                                    batch_size=8 if split == "train" else len(rolls) or 1) for split, rolls in data.items())
    except ImportError as error:
        parser.exit(2, f"music: {o.data} needs {error.name}: pip install {error.name}\n")
    except Exception as error:                  # NumPy, SciPy and mido raise many kinds where a file is malformed
        parser.exit(2, f"music: cannot read {name}: {type(error).__name__}: {' '.join(str(error).split())}\n")
    for name, (layer, units) in NETWORKS.items():
        mg.manual_seed(o.seed)
        model = Composer(layer, units)
        print(f"\n{name}: {model}")
        history = mg.training.fit(model, mg.optim.Adam(model.parameters(), lr=5e-3), model, train, epochs=o.epochs, clip=1.0,
                                  validate=lambda model=model: model(*valid).item(), patience=12)
        if history.interrupted:
            parser.exit(130)
        results.append((min(history.validation), model.eval()(*test).item(), name, sum(p.size for p in model.parameters()),
                        history.epoch, history.step / history.speed, model))
    for row in results:
        print("validation {:.3f}  test {:.3f} nats per frame  {}  {:,} parameters  {} epochs  {:.0f} s".format(*row))
    composer, frames, rng = min(results)[-1], list(test[0][:8, 0]), np.random.default_rng(o.seed)       # begins as a test piece
    with mg.no_grad():
        for _ in range(56):
            out, _ = composer.rnn(np.stack(frames)[:, None])
            frames.append((rng.random(KEYS) < mg.sigmoid(composer.head(out[-1, 0])).numpy()).astype(np.float32))
    try:
        if find_spec("mido"):
            import mido
            track, last = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(80))]), 0
            change = np.diff(frames, axis=0, prepend=0, append=0)
            for t, key in np.argwhere(change).tolist():
                track.append(mido.Message("note_on" if change[t, key] > 0 else "note_off", note=LOW + key, time=480 * (t - last)))
                last = t
            mido.MidiFile(tracks=[track], ticks_per_beat=480).save(f"{o.out}.mid")
        if find_spec("matplotlib"):
            from matplotlib.figure import Figure
            axes = Figure(figsize=(10, 4)).add_subplot(xlabel="quarter", ylabel="MIDI pitch")
            axes.imshow(np.transpose(frames), origin="lower", aspect="auto", cmap="Greys", extent=(0, len(frames), LOW, 109))
            axes.figure.savefig(f"{o.out}.png", dpi=120)
    except OSError as error:
        parser.exit(2, f"music: cannot write {error.filename or o.out}: {error.strerror or error}\n")
    for package, file in (("mido", f"{o.out}.mid"), ("matplotlib", f"{o.out}.png")):
        print(f"wrote {file}" if find_spec(package) else f"no {file}, which needs {package}: pip install {package}")
