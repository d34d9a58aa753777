"""Polyphonic music: three recurrent networks of about the same size learn to continue a piece, and
the best one composes.

    python examples/music.py                    Bach's chorales, from music21
    python examples/music.py --data DATA        your own pieces
    python examples/music.py --data synthetic --epochs 5            a short look

Without music21 the script makes pieces of its own. DATA is a file of piano rolls, .npz or .mat
(needs scipy), or a folder of MIDI files (needs mido).

It prints negative log-likelihoods in nats, summed over the keys and averaged over all predicted
frames; at the end, those of the weights that did best in validation. The best network writes
music.mid (needs mido) and the picture music.png (needs matplotlib).

The comparison is that of Chung et al. 2014 (arXiv:1412.3555). A tanh RNN, a GRU and an LSTM see
which of 88 keys sound in each frame, which is a quarter note long, and say how likely each key is
in the next. A full run on Boulanger-Lewandowski's JSB chorales gives 8.48, 8.43 and 8.57 on the
test pieces, in 5, 3 and 4 s on one core of an AMD EPYC (Zen 5); over 4 seeds, at most 8.57.

Each note of a MIDI file begins and ends at the nearest quarter (halfway between two, at the earlier
one) and lasts at least one frame; the tempo does not matter. The sustain pedal is honoured. Drums
(channel 10), notes that a piano does not have, and files with fewer than two frames of notes are
left out; the script prints how many. Folders named train, valid (or validation, val, dev) and test
within DATA are the split. Without them, of each five pieces in the order of their names the first
three are learnt, the fourth is for validation, and the fifth for the test. Pickled rolls are not
read, since reading a pickle can run code.
"""

import argparse
import zipfile
import zlib
from collections import Counter, defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _script import Script, count, place, seed_number

import minigrad as mg

script = Script("music", __doc__)


# ---------------------------------------------------------------- settings

SPLITS = ("train", "valid", "test")
LOW = 21  # a piano's lowest key is pitch 21 of MIDI
KEYS = 88
# Names of folders, and the part of the data they hold.
FOLDERS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
NETWORKS = {"tanh-100": (mg.nn.RNN, 100), "GRU-46": (mg.nn.GRU, 46), "LSTM-36": (mg.nn.LSTM, 36)}
SCALE = (0, 2, 4, 5, 7, 9, 11)  # semitones of a major key
DRUMS = 9  # MIDI's channel 10, counted from 0
PEDAL = 64  # the pedal's controller
LONGEST = 10**5  # frames of a MIDI file
LARGEST = 2**26  # numbers of all rolls of a file: 760,000 frames


def settings(arguments: list[str] | None) -> argparse.Namespace:
    parser = script.parser()
    add = parser.add_argument
    add(
        "--data",
        default="music21" if find_spec("music21") else "synthetic",
        help="music21, synthetic, a .npz or .mat file, or a folder of MIDI files; see above",
    )
    add("--epochs", type=count, default=100, help="at most (default 100)")
    add("--seed", type=seed_number, default=0, help="of weights and batches (default 0)")
    add(
        "--out",
        metavar="NAME",
        type=place,
        default="music",
        help="write NAME.mid and NAME.png (default music)",
    )
    return parser.parse_args(arguments)


# ---------------------------------------------------------------- data: pieces made here


def synthetic(rng: np.random.Generator) -> np.ndarray:
    """A piece in a major key. The chords mostly go down a fifth, and each voice goes to a nearby
    note of the next chord."""
    tonic = rng.integers(-3, 4)
    degree = 0
    voices = np.array([48, 55, 64, 72])
    roll = np.zeros((8 * rng.integers(4, 9), KEYS))
    for t, frame in enumerate(roll):
        if t % 8 in (0, 7):  # phrases of eight, from tonic to tonic
            degree = 0
        else:
            degree = (degree + rng.choice((3, 3, 3, 4, 1, 5))) % 7
        chord = [(tonic + SCALE[(degree + third) % 7]) % 12 for third in (0, 2, 4)]
        for voice, low in enumerate((40, 48, 55, 60)):
            allowed = chord if voice else chord[:1]  # the bass has the root
            near = [pitch for pitch in range(low, low + 20) if pitch % 12 in allowed]
            distances = [abs(pitch - voices[voice]) + 3 * rng.random() for pitch in near]
            voices[voice] = near[np.argmin(distances)]
        frame[voices - LOW] = 1
    return roll


# ---------------------------------------------------------------- data: MIDI files


def nearest(time: float) -> int:
    """The frame nearest to a time in quarters; halfway between two it is the earlier one."""
    return int(np.ceil(time - 0.5))


def roll_of(notes: list[tuple[float, float, int]], length: float) -> tuple[np.ndarray, int]:
    """The piano roll of notes (start, end, pitch), with times in quarters, at least `length` long,
    and how many of the notes have no key."""
    frames = [
        (nearest(start), max(nearest(end), nearest(start) + 1), pitch - LOW)
        for start, end, pitch in notes
    ]
    on_keys = [note for note in frames if 0 <= note[2] < KEYS]
    roll = np.zeros((max([nearest(length), *(end for _, end, _ in on_keys)]), KEYS), bool)
    for start, end, key in on_keys:
        roll[start:end, key] = True
    return roll, len(frames) - len(on_keys)


class Piano:
    """Turns the keys and pedals of a MIDI file into notes (start, end, pitch), times in ticks."""

    def __init__(self) -> None:
        self.notes = []
        self.down = defaultdict(list)  # (channel, track, pitch) -> when its open notes began
        self.held = defaultdict(list)  # channel -> (start, pitch) of notes that the pedal holds
        self.pedals = set()  # channels whose pedal is down
        self.last_up = {}  # (channel, track, pitch) -> when the key last went up

    def press(self, tick: int, channel: int, track: int, pitch: int) -> None:
        # A key that is struck again ends the note that only the pedal holds.
        for start, held_pitch in self.held[channel]:
            if held_pitch == pitch:
                self.notes.append((start, tick, pitch))
        self.held[channel] = [note for note in self.held[channel] if note[1] != pitch]
        self.down[channel, track, pitch].append(tick)

    def release(self, tick: int, channel: int, track: int, pitch: int) -> None:
        key = channel, track, pitch
        if not self.down[key]:
            return
        start = self.down[key].pop(0)
        self.last_up[key] = tick
        if channel in self.pedals:
            self.held[channel].append((start, pitch))
        else:
            self.notes.append((start, tick, pitch))

    def move_pedal(self, tick: int, channel: int, is_down: bool) -> None:
        if is_down:
            self.pedals.add(channel)
            return
        self.pedals.discard(channel)
        for start, pitch in self.held.pop(channel, []):
            self.notes.append((start, tick, pitch))

    def close(self, end: int) -> None:
        """End the notes that are still open when the file ends."""
        for channel_notes in self.held.values():
            for start, pitch in channel_notes:
                self.notes.append((start, end, pitch))
        for key, starts in self.down.items():
            # A key that was struck twice and released once: the release ends both notes.
            last_up = self.last_up.get(key, -1)
            for start in starts:
                self.notes.append((start, last_up if last_up > start else end, key[2]))


def midi_events(midi) -> list[tuple[int, int, Any]]:
    """(tick, track, message) of all tracks in the order of time. A track keeps its order."""
    if midi.type == 2:
        raise ValueError(
            "its format is 2, pieces that are independent of each other: "
            "save each as a file of its own"
        )
    if midi.ticks_per_beat <= 0:
        raise ValueError(
            "its times are not counted in parts of a quarter (SMPTE division, or none)"
        )
    events = []
    for track_number, track in enumerate(midi.tracks):
        tick = 0
        for message in track:
            tick += message.time
            if not 0 <= tick <= LONGEST * midi.ticks_per_beat:
                raise ValueError(
                    f"{message} at tick {tick}: times must be from 0 to {LONGEST:,} quarters"
                )
            events.append((tick, track_number, message))
    return sorted(events, key=lambda event: event[0])


def midi_notes(file: Path) -> tuple[list[tuple[float, float, int]], float, int]:
    """The notes (start, end, pitch) of a MIDI file, when it ends, both in quarters, and how many
    notes of drums it has."""
    import mido

    midi = mido.MidiFile(file)
    piano = Piano()
    drums = 0
    tick = 0
    for tick, track, message in midi_events(midi):
        if message.type == "note_on" and message.velocity:
            if message.channel == DRUMS:
                drums += 1
            else:
                piano.press(tick, message.channel, track, message.note)
        elif message.type in ("note_on", "note_off"):  # a velocity of 0 releases the key
            piano.release(tick, message.channel, track, message.note)
        elif message.type == "control_change" and message.control == PEDAL:
            piano.move_pedal(tick, message.channel, message.value >= 64)
    piano.close(tick)

    quarter = midi.ticks_per_beat
    notes = [(start / quarter, end / quarter, pitch) for start, end, pitch in piano.notes]
    return notes, tick / quarter, drums


def midi_files(folder: Path) -> list[Path]:
    """The MIDI files in a folder and its folders, without the hidden ones (macOS writes ._x.mid
    beside x.mid)."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in (".mid", ".midi")
        and file.is_file()
        and not any(part.startswith((".", "__MACOSX")) for part in file.relative_to(folder).parts)
    )


def midi_pieces(folder: Path, files: list[Path]):
    """(split or None, name, roll) of each file. At the end, print what was left out."""
    splits = []
    for file in files:
        named = [
            FOLDERS[part.lower()]
            for part in file.relative_to(folder).parts[:-1]
            if part.lower() in FOLDERS
        ]
        splits.append(named[0] if named else None)
    if any(splits) and None in splits:
        script.fail(
            f"{files[splits.index(None)]} is in none of the folders train, valid and test, "
            "others are"
        )
    if any(splits):
        counts = ", ".join(f"{splits.count(split)} {split}" for split in SPLITS)
        print(f"MIDI files by their folders: {counts}")
    left_out = Counter()
    for split, file in zip(splits, files, strict=True):
        try:
            notes, length, drums = midi_notes(file)
        except ImportError:
            raise
        except Exception as error:  # mido raises many kinds where a file is malformed
            script.fail(f"cannot read {file}: {type(error).__name__}: {error}")
        roll, outside = roll_of(notes, length)
        left_out.update({"notes of drums": drums, "notes outside of the 88 keys": outside})
        if len(roll) >= 2 and roll.any():
            yield split, file, roll
        else:
            left_out["files without two frames of notes"] += 1
    for what, number in left_out.items():
        if number:
            print(f"left out: {number} {what}")


# ---------------------------------------------------------------- data: files of piano rolls


def npz_pieces(source: str):
    """The pieces of a .npz file. It holds the rolls of each split end to end, and the offsets where
    they begin and end.

    A small file may unpack to gigabytes, so the sizes that it declares are checked before anything
    is read.
    """
    with zipfile.ZipFile(source) as archive:
        names = [f"{split}_{part}" for split in SPLITS for part in ("roll", "offset")]
        total = 0
        for name in names:
            info = archive.getinfo(f"{name}.npy")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is compressed in another way than NumPy does")
            with archive.open(info) as member:
                if np.lib.format.read_magic(member) != (1, 0):  # 2.0 may have a header of gigabytes
                    raise ValueError(
                        f"{name} must be of version 1.0 of the .npy format, "
                        "as NumPy writes arrays of numbers"
                    )
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            if dtype.kind not in "biuf":
                what = (
                    "Object arrays cannot be loaded" if dtype.hasobject else "numbers are expected"
                )
                raise ValueError(f"{name} has the dtype {dtype}: {what}")
            numbers = 1
            for length in shape:  # Python's integers: a product that does not overflow
                numbers *= length
            total += numbers
            if (
                min(shape, default=0) < 0
                or total > LARGEST
                or info.file_size > numbers * dtype.itemsize + 2**16
            ):
                raise ValueError(
                    f"{name} has the shape {shape}: a file may hold {LARGEST:,} numbers, "
                    "and no other data"
                )
        arrays = {}
        for name in names:
            with archive.open(f"{name}.npy") as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    for split in SPLITS:
        roll, offset = arrays[f"{split}_roll"], arrays[f"{split}_offset"]
        if offset.dtype.kind not in "iu" or offset.ndim != 1 or not roll.ndim or (offset < 0).any():
            raise ValueError(f"{split}_offset must be a row of whole numbers, {split}_roll frames")
        ends = offset.tolist()
        if ends[:1] != [0] or ends[-1:] != [len(roll)]:
            raise ValueError(
                f"{split}_offset must go from 0 to {len(roll)}, the frames of {split}_roll"
            )
        for k in range(len(ends) - 1):
            yield split, f"{source}: {split} piece {k}", roll[ends[k] : ends[k + 1]]


def mat_pieces(source: str):
    """The pieces of a .mat file, in its cells traindata, validdata and testdata."""
    from scipy.io import loadmat, whosmat

    check_mat_size(source)
    for name, shape, _ in whosmat(source):
        if np.prod(shape, dtype=float) > LARGEST:
            raise ValueError(f"{name} has the shape {shape}: a file may hold {LARGEST:,} numbers")
    cells = loadmat(source, variable_names=[f"{split}data" for split in SPLITS])
    for split in SPLITS:
        data = cells[f"{split}data"]
        if data.dtype != object:
            raise ValueError(f"{split}data must be cells, one a piece")
        for k, roll in enumerate(data.flat):
            yield split, f"{source}: {split} piece {k}", roll


def check_mat_size(source: str) -> None:
    """Refuse a file whose compressed variables unpack to more than LARGEST bytes, without keeping
    what is unpacked."""
    with open(source, "rb") as file:
        order = {b"IM": "little", b"MI": "big"}.get(file.read(128)[126:])
        if order is None:
            return  # not a MATLAB 5 file, so nothing is compressed: loadmat reads or refuses it
        total = 0
        while len(tag := file.read(8)) == 8:
            kind, stored = int.from_bytes(tag[:4], order), int.from_bytes(tag[4:], order)
            total += stored
            if kind == 15 and total <= LARGEST:  # miCOMPRESSED
                unpacker, data = zlib.decompressobj(), file.read(stored)
                while data and total <= LARGEST:
                    total += len(unpacker.decompress(data, 2**20))
                    data = unpacker.unconsumed_tail
            else:
                file.seek(stored, 1)
            if total > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")


# ---------------------------------------------------------------- data: any source


def chorales():
    """The pieces of music21's corpus of Bach's chorales."""
    from music21 import corpus

    for k, score in enumerate(corpus.chorales.Iterator()):
        notes = [
            (float(note.offset), float(note.offset + note.quarterLength), pitch.midi)
            for note in score.flatten().notes
            for pitch in note.pitches
        ]
        yield None, f"music21: chorale {k}", roll_of(notes, float(score.highestTime))[0]


def pieces(source: str):
    """(split or None, name, roll) of each piece."""
    if source == "music21":
        return chorales()
    if source == "synthetic":
        return (
            (None, f"synthetic piece {k}", synthetic(np.random.default_rng(k))) for k in range(150)
        )
    if files := midi_files(Path(source)):
        return midi_pieces(Path(source), files)
    if source.endswith(".mat"):
        return mat_pieces(source)
    if source.endswith(".npz"):
        return npz_pieces(source)
    raise ValueError("it is neither a .npz or .mat file nor a folder of MIDI files")


def batches(data: dict[str, list[np.ndarray]]) -> list[mg.data.Batches]:
    """For each split, frames and the frames that follow them. The training pieces are shuffled and
    come 8 at a time; the others come all at once."""
    return [
        mg.data.Batches(
            [roll[:-1] for roll in data[split]],
            [roll[1:] for roll in data[split]],
            shuffle=split == "train",
            batch_size=8 if split == "train" else len(data[split]) or 1,
        )
        for split in SPLITS
    ]


def read(source: str) -> list[mg.data.Batches]:
    """The batches of a source. What cannot be read ends the script with a message."""
    data = {split: [] for split in SPLITS}
    name = source  # what an error message names
    try:
        for k, (split, piece, roll) in enumerate(list(pieces(source))):
            name = piece
            if roll.shape[1:] != (KEYS,) or len(roll) < 2 or not np.isin(roll, (0, 1)).all():
                raise ValueError(
                    f"its shape is {roll.shape}, it should be 2 frames or more "
                    f"of {KEYS} zeros and ones"
                )
            if split is None:  # of five pieces three are learnt
                split = ("train", "train", "train", "valid", "test")[k % 5]
            data[split].append(roll.astype(np.float32))
        name = source
        empty = [split for split in SPLITS if not data[split]]
        if empty:
            raise ValueError(
                f"no piece for {' and '.join(empty)}: "
                f"each of {', '.join(SPLITS)} needs at least one sequence"
            )
        return batches(data)
    except ImportError as error:
        script.fail(f"{source} needs {error.name}: pip install {error.name}")
    except (MemoryError, BrokenPipeError):
        raise
    except Exception as error:  # NumPy and SciPy raise many kinds where a file is malformed
        script.fail(f"cannot read {name}: {type(error).__name__}: {error}")


# ---------------------------------------------------------------- model


class Composer(mg.nn.Module):
    """Frames (T, B, 88) and the ones that follow them -> nats per frame, summed over the keys and
    averaged over all frames but the padding."""

    def __init__(self, layer: type, units: int) -> None:
        self.rnn = layer(KEYS, units, recurrent_dropout=0.3)
        self.head = mg.nn.Linear(units, KEYS)

    def forward(self, x, lengths, y):
        out, _ = self.rnn(x, lengths=lengths)
        real = np.arange(len(x))[:, None] < lengths
        return KEYS * mg.binary_cross_entropy_with_logits(self.head(out[real]), y[real])


# ---------------------------------------------------------------- result


def compose(model: Composer, begin: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The frames of `begin` (T, 88), and 56 more that are drawn from the network one by one."""
    frames = list(begin)
    with mg.no_grad():
        for _ in range(56):
            out, _ = model.rnn(np.stack(frames)[:, None])
            likely = mg.sigmoid(model.head(out[-1, 0])).numpy()
            frames.append((rng.random(KEYS) < likely).astype(np.float32))
    return frames


def write_midi(frames: list[np.ndarray], path: str) -> bool:
    """Save the frames as MIDI; return whether that was done."""
    try:
        import mido
    except ImportError:
        print(f"no {path}, which needs mido: pip install mido")
        return False
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(80))])
    last = 0
    change = np.diff(frames, axis=0, prepend=0, append=0)
    for t, key in np.argwhere(change).tolist():
        kind = "note_on" if change[t, key] > 0 else "note_off"
        track.append(mido.Message(kind, note=LOW + key, time=480 * (t - last)))
        last = t
    try:
        mido.MidiFile(tracks=[track], ticks_per_beat=480).save(path)
    except OSError as error:
        script.fail(f"cannot write {path}: {error.strerror or error}")
    return True


def draw(figure, frames: list[np.ndarray]) -> None:
    axes = figure.add_subplot(xlabel="quarter", ylabel="MIDI pitch", title="what it plays")
    axes.imshow(
        np.transpose(frames),
        origin="lower",
        aspect="auto",
        cmap="Greys",
        extent=(0, len(frames), LOW, LOW + KEYS),
    )


# ---------------------------------------------------------------- training


class Result(NamedTuple):
    """The outcome of training a network, and the network itself."""

    validation: float
    test: float
    name: str
    parameters: int
    epochs: int
    seconds: float
    model: Composer


def train(
    name: str,
    batches: mg.data.Batches,
    valid: tuple,
    test: tuple,
    args: argparse.Namespace,
) -> Result:
    """Train a network until it no longer improves in validation, and keep its best weights."""
    layer, units = NETWORKS[name]
    mg.manual_seed(args.seed)
    model = Composer(layer, units)
    print(f"\n{name}: {model}")
    history = mg.training.fit(
        model,
        mg.optim.Adam(model.parameters(), lr=5e-3),
        model,
        batches,
        epochs=args.epochs,
        clip=1.0,
        validate=lambda: model(*valid).item(),
        patience=12,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return Result(
        validation=min(history.validation),
        test=model.eval()(*test).item(),
        name=name,
        parameters=sum(p.size for p in model.parameters()),
        epochs=history.epoch,
        seconds=history.step / history.speed,
        model=model,
    )


def main(arguments: list[str] | None = None) -> None:
    args = settings(arguments)
    print(f"reading {args.data}", flush=True)  # the first time, music21 needs minutes
    batches, (valid,), (test,) = read(args.data)
    results = [train(name, batches, valid, test, args) for name in NETWORKS]
    for result in results:
        print(
            f"validation {result.validation:.3f}  test {result.test:.3f} nats per frame  "
            f"{result.name}  {result.parameters:,} parameters  {result.epochs} epochs  "
            f"{result.seconds:.0f} s"
        )

    best = min(results, key=lambda result: result.validation).model
    begin = test[0][:8, 0]  # the beginning of a test piece
    frames = compose(best, begin, np.random.default_rng(args.seed))
    if write_midi(frames, f"{args.out}.mid"):
        print(f"wrote {args.out}.mid")
    if script.draw(f"{args.out}.png", lambda figure: draw(figure, frames), 9, 3.4):
        print(f"wrote {args.out}.png")


if __name__ == "__main__":
    script.run(main)
