"""mg.load of files that are cut off, damaged or made to do harm: each is a CheckpointError."""

import errno
import json
import os
import pickle
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from checkpoints import a_folder_as_no_root, same

import minigrad as mg

posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX files here")

# ---------------------------------------------------------------- damaged files


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A small file of all kinds, about 600 bytes."""
    path = tmp_path_factory.mktemp("good") / "a"
    arrays = {
        "w": np.arange(4, dtype="f4"),
        "m": np.ones((2, 3)),
        "flag": np.array(True),
        "none": np.zeros(0, "i4"),
    }
    mg.save(path, arrays, {"step": 7})
    return path.read_bytes()


def refused(path, data, message=""):
    path.write_bytes(data)
    with pytest.raises(mg.CheckpointError, match=f"^load: {path}: .*{message}"):
        mg.load(path)


def all_refused(path, variants):
    for k, data in enumerate(variants):
        path.write_bytes(data)
        try:
            found = mg.load(path)
        except mg.CheckpointError as error:
            assert str(error).startswith(f"load: {path}: ")
        else:
            pytest.fail(f"variant {k} is read as {found}")


@pytest.mark.slow
def test_every_truncation_is_found(good, tmp_path):
    assert 400 < len(good) < 800
    all_refused(tmp_path / "a", (good[:length] for length in range(len(good))))


@pytest.mark.slow
def test_every_flipped_bit_is_found(good, tmp_path):
    places = ((at, 1 << bit) for at in range(len(good)) for bit in range(8))
    all_refused(
        tmp_path / "a", (good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :] for at, bit in places)
    )


@pytest.mark.slow
def test_every_byte_more_or_less_is_found(good, tmp_path):
    all_refused(tmp_path / "a", (good[:at] + good[at + 1 :] for at in range(len(good))))
    all_refused(tmp_path / "a", (good[:at] + b"0" + good[at:] for at in range(len(good))))


def test_damage_is_told_apart(good, tmp_path):
    refused(tmp_path / "a", good + b"\0", "something behind its end")
    refused(
        tmp_path / "a", good[:-1] + b"\xff", "the data of 'flag' is damaged: its checksum is wrong"
    )
    refused(tmp_path / "a", good.replace(b'"step', b'"stop'), "the header's checksum is wrong")


# ---------------------------------------------------------------- hostile files


def file_of(header, data=b"", length=None):
    """A file with this header (bytes, or what JSON makes of an object), checksums right."""
    text = (
        header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    )
    place = text.rfind(b'"header_crc32":"00000000"')
    if place >= 0:
        place += len(b'"header_crc32":"')
        text = text[:place] + b"%08x" % zlib.crc32(text) + text[place + 8 :]
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {
        "dtype": dtype,
        "shape": shape if not isinstance(shape, tuple) else list(shape),
        "data_offsets": offsets if not isinstance(offsets, tuple) else list(offsets),
    } | more


def header_of(arrays, **changes):
    """A header with these entries, for data of zeros."""
    checksums = {}
    for name, e in arrays.items():
        try:
            checksums[name] = zlib.crc32(bytes(e["data_offsets"][1] - e["data_offsets"][0]))
        except (TypeError, KeyError, IndexError, ValueError, OverflowError, MemoryError):
            checksums[name] = 0
    metadata = {
        "format": "minigrad 1",
        "crc32": json.dumps(checksums),
        "extra": "null",
        "header_crc32": "00000000",
    } | changes
    return arrays | {"__metadata__": {k: v for k, v in metadata.items() if v is not None}}


DEEP = b"[" * 10**5  # deeper than Python's stack, and few enough to be parsed
HUGE = 2**63
HOSTILE = {
    "empty": b"",
    **{f"{n} bytes": b"\x02\0\0\0\0\0\0\0"[:n] for n in range(1, 8)},
    "length alone": (0).to_bytes(8, "little"),
    "header longer than the file": file_of(b"{}", length=3),
    "header 2^64 - 1": b"\xff" * 64,
    "header 2^63": (2**63).to_bytes(8, "little") + b"{}",
    "header 100 MB": (10**8).to_bytes(8, "little") + b"{}",
    "not UTF-8": file_of(b"{\xff\xfe}"),
    "not ASCII": file_of('{"слой":{}}'.encode()),
    "not JSON": file_of(b"{not json}"),
    "NULs": file_of(b"\0" * 64),
    "list": file_of(b"[]"),
    "string": file_of(b'"a"'),
    "number": file_of(b"1"),
    "null": file_of(b"null"),
    "NaN": file_of(b"NaN"),
    "no metadata": file_of(b"{}"),
    "deep": file_of(DEEP),
    "deep in a name": file_of(b'{"w":' + DEEP + b"]" * 10**4 + b"}"),
    "deep extra": file_of(header_of({}, extra=DEEP.decode())),
    "deep crc32": file_of(header_of({}, crc32=DEEP.decode())),
    "10^6 brackets": file_of(b"[" * 10**6),
    "10^6 empty dicts": file_of(b"[" + b"{}," * (6 * 10**5) + b"{}]"),
    "10^6 zeros": file_of(b"[" + b"0," * (10**6 - 10) + b"0]"),
    "10^6 names of one place": file_of(
        b"{" + b",".join(b'"%x":[]' % k for k in range(150_000)) + b"}"
    ),
    "10^6 zeros in extra": file_of(header_of({}, extra="[" + "0," * (9 * 10**5) + "0]")),
    "long number": file_of(b'{"w":' + b"9" * 10**5 + b"}"),
    "long number in extra": file_of(header_of({}, extra="9" * 10**5)),
    "metadata list": file_of({"__metadata__": []}),
    "metadata null": file_of({"__metadata__": None}),
    "other format": file_of(header_of({}, format="minigrad 2")),
    "no format": file_of(header_of({}, format=None)),
    "format number": file_of(header_of({}, format=1)),
    "no checksum": file_of(header_of({}, header_crc32=None)),
    "no crc32": file_of(header_of({}, crc32=None)),
    "more metadata": file_of(header_of({}, more="x")),
    "extra not JSON": file_of(header_of({}, extra="{")),
    "extra NaN": file_of(header_of({}, extra="NaN")),
    "extra Infinity": file_of(header_of({}, extra="[-Infinity]")),
    "extra twice": file_of(header_of({}, extra='{"a":1,"a":2}')),
    "crc32 list": file_of(header_of({"w": entry()}, crc32="[]"), bytes(8)),
    "crc32 of others": file_of(header_of({"w": entry()}, crc32='{"v":0}'), bytes(8)),
    "crc32 str": file_of(header_of({"w": entry()}, crc32='{"w":"0"}'), bytes(8)),
    "crc32 wrong": file_of(header_of({"w": entry()}, crc32='{"w":1}'), bytes(8)),
    "same name twice": file_of(
        json.dumps(header_of({"w": entry(), "v": entry(offsets=(8, 16))}), separators=(",", ":"))
        .replace('"v"', '"w"')
        .encode(),
        bytes(16),
    ),
    "hole": file_of(header_of({"w": entry(offsets=(8, 16))}), bytes(16)),
    "hole between": file_of(header_of({"w": entry(), "v": entry(offsets=(12, 20))}), bytes(20)),
    "overlap": file_of(header_of({"w": entry(), "v": entry(offsets=(4, 12))}), bytes(12)),
    "same place": file_of(header_of({"w": entry(), "v": entry()}), bytes(8)),
    "order": file_of(header_of({"v": entry(offsets=(8, 16)), "w": entry()}), bytes(16)),
    "negative offset": file_of(header_of({"w": entry(offsets=(-8, 0))}), bytes(8)),
    "reversed offsets": file_of(header_of({"w": entry(offsets=(8, 0))}), bytes(8)),
    "float offsets": file_of(header_of({"w": entry(offsets=(0.0, 8.0))}), bytes(8)),
    "str offsets": file_of(header_of({"w": entry(offsets=("0", "8"))}), bytes(8)),
    "bool offsets": file_of(header_of({"w": entry("U8", (1,), (False, True))}), bytes(1)),
    "three offsets": file_of(header_of({"w": entry(offsets=(0, 8, 8))}), bytes(8)),
    "offsets null": file_of(header_of({"w": entry(offsets=None)}), bytes(8)),
    "huge offsets": file_of(header_of({"w": entry(offsets=(0, HUGE))}), bytes(8)),
    "huge both": file_of(header_of({"w": entry(offsets=(HUGE, HUGE + 8))}), bytes(8)),
    "offsets behind the end": file_of(
        header_of({"w": entry(shape=(100,), offsets=(0, 400))}), bytes(8)
    ),
    "shape and offsets differ": file_of(header_of({"w": entry(shape=(3,))}), bytes(8)),
    "shape negative": file_of(header_of({"w": entry(shape=(-1, -2))}), bytes(8)),
    "shape float": file_of(header_of({"w": entry(shape=(2.0,))}), bytes(8)),
    "shape bool": file_of(header_of({"w": entry(shape=(True, 2))}), bytes(8)),
    "shape str": file_of(header_of({"w": entry(shape=("2",))}), bytes(8)),
    "shape number": file_of(header_of({"w": entry(shape=2)}), bytes(8)),
    "shape null": file_of(header_of({"w": entry(shape=None)}), bytes(8)),
    "shape overflows": file_of(header_of({"w": entry(shape=(2**32, 2**32))}), bytes(8)),
    "shape overflows to 8": file_of(header_of({"w": entry(shape=(2**61 + 1, 2))}), bytes(8)),
    "shape overflows to 0": file_of(header_of({"w": entry(shape=(2**40, 2**40), offsets=(0, 0))})),
    "shape empty but huge": file_of(
        header_of({"w": entry(shape=(0, 2**47, 2**47), offsets=(0, 0))})
    ),
    "65 dimensions": file_of(header_of({"w": entry(shape=(1,) * 64 + (2,))}), bytes(8)),
    "10^5 dimensions": file_of(header_of({"w": entry(shape=(1,) * 10**5 + (2,))}), bytes(8)),
    "huge product": file_of(header_of({"w": entry(shape=(2**47,) * 64)}), bytes(8)),
    "dtype unknown": file_of(header_of({"w": entry("F16", (4,))}), bytes(8)),
    "dtype object": file_of(header_of({"w": entry("O")}), bytes(8)),
    "dtype list": file_of(header_of({"w": entry(["F32"])}), bytes(8)),
    "dtype null": file_of(header_of({"w": entry(None)}), bytes(8)),
    "entry null": file_of(header_of({"w": None})),
    "entry list": file_of(header_of({"w": []})),
    "entry empty": file_of(header_of({"w": {}})),
    "entry has more": file_of(header_of({"w": entry(more=1)}), bytes(8)),
    "garbage behind": file_of(header_of({"w": entry()}), bytes(9)),
    "data missing": file_of(header_of({"w": entry()}), bytes(7)),
    "bool of 2": file_of(
        header_of({"w": entry("BOOL", (1,), (0, 1))}, crc32=json.dumps({"w": zlib.crc32(b"\2")})),
        b"\2",
    ),
    "pickle": pickle.dumps({"w": np.ones(3)}),
    "zip": b"PK\3\4" + bytes(200),
    "text": b"just a text, nothing else\n" * 10,
    "npy": b"\x93NUMPY\1\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }" + bytes(80),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(data, tmp_path):
    """Refused within 0.1 s of computing and 16 MB of memory."""
    refused(tmp_path / "a", data)
    times = []
    for _ in range(3):
        start = time.process_time()
        refused(tmp_path / "a", data)
        times.append(time.process_time() - start)
    assert min(times) < 0.1
    tracemalloc.start()
    try:
        refused(tmp_path / "a", data)
        assert tracemalloc.get_traced_memory()[1] < len(data) + (16 << 20)
    finally:
        tracemalloc.stop()


def test_the_maker_of_hostile_files_makes_good_ones_too(tmp_path):
    """So that what test_hostile_files refuses is refused for what is wrong with it."""
    (tmp_path / "a").write_bytes(
        file_of(header_of({"w": entry(), "v": entry("BOOL", (1,), (8, 9))}), bytes(9))
    )
    same(mg.load(tmp_path / "a")[0], {"w": np.zeros(2, "f4"), "v": np.zeros(1, bool)})


def test_npz_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", w=np.ones(3))
    refused(tmp_path / "a.npz", (tmp_path / "a.npz").read_bytes())


def test_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    refused(tmp_path / "a", pickle.dumps(Trap()))
    assert not (tmp_path / "trap").exists()


def test_a_huge_sparse_file_costs_nothing(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.write(file_of(header_of({"w": entry(shape=(2,))}), bytes(8)))
        file.truncate(1 << 40)
    start = time.perf_counter()
    with pytest.raises(mg.CheckpointError, match="something behind its end"):
        mg.load(tmp_path / "a")
    assert time.perf_counter() - start < 1


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        mg.load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError if os.name == "posix" else OSError):
        mg.load(tmp_path)
    with pytest.raises(ValueError):
        mg.load("a\0b")


@posix
def test_special_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(mg.CheckpointError, match="is not a regular file"):
            mg.load(path)
    with pytest.raises(OSError) as caught:
        mg.load(tmp_path / "loop")
    assert caught.value.errno == errno.ELOOP


@posix
def test_no_permission():
    with a_folder_as_no_root() as folder:
        mg.save(folder / "a", {})
        os.chmod(folder / "a", 0)
        with pytest.raises(PermissionError):
            mg.load(folder / "a")
