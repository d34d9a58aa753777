"""Checkpoints: the same bits out as in; a damaged or hostile file is a CheckpointError; a save
happens whole or not at all."""

import contextlib
import errno
import json
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg

DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX files here")


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        array = np.asarray(array)
        native = array.astype(array.dtype.newbyteorder("="))
        assert found[name].dtype == native.dtype and found[name].shape == native.shape, name
        assert found[name].tobytes() == native.tobytes(), name


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(tmp_path, dtype):
    raw = np.random.default_rng(0).integers(0, 256, 240, np.uint8)
    array = (
        raw % 2 == 0 if dtype == "bool" else raw.view(dtype)
    )  # random bits: NaNs with payloads, subnormal numbers
    arrays = {
        "vector": array,
        "matrix": array[:12].reshape(3, 4),
        "number": array[3],
        "0-d": np.array(array[4]),
    }
    mg.save(tmp_path / "a", arrays)
    found, extra = mg.load(tmp_path / "a")
    same(found, arrays)
    assert extra is None and all(
        a.flags.writeable and a.flags.c_contiguous and a.flags.owndata for a in found.values()
    )


def test_special_numbers(tmp_path):
    arrays = {
        d: np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 5e-324], d)
        for d in ("float32", "float64")
    }
    arrays |= {
        d: np.array([np.iinfo(d).min, np.iinfo(d).max], d) for d in ("int64", "int32", "uint8")
    }
    mg.save(tmp_path / "a", arrays)
    same(mg.load(tmp_path / "a")[0], arrays)


def test_empty_arrays(tmp_path):
    arrays = {
        "a": np.zeros(0, "f4"),
        "b": np.zeros((3, 0, 2)),
        "c": np.ones(1),
        "d": np.zeros((0, 5), bool),
    }
    mg.save(tmp_path / "a", arrays)
    same(mg.load(tmp_path / "a")[0], arrays)
    mg.save(tmp_path / "a", {})
    assert mg.load(tmp_path / "a") == ({}, None)


def test_any_layout_in_memory(tmp_path):
    a = np.arange(24.0).reshape(2, 3, 4)
    arrays = {
        "turned": a.T,
        "steps": a[:, ::2, ::-1],
        "broadcast": np.broadcast_to(a[0, 0], (3, 4)),
        "fortran": np.asfortranarray(a),
        "big": a.astype(">f8"),
        "big int": np.arange(5, dtype=">i4"),
        "misaligned": np.zeros(17, np.uint8)[1:].view("f8"),
    }
    mg.save(tmp_path / "a", arrays)
    same(mg.load(tmp_path / "a")[0], arrays)


def test_tensors_and_lists(tmp_path):
    mg.save(
        tmp_path / "a",
        {"tensor": mg.Tensor([1.0, 2.0], requires_grad=True), "list": [1.0, 2.0], "number": 3},
    )
    found = mg.load(tmp_path / "a")[0]
    assert [a.dtype for a in found.values()] == [np.float32, np.float64, np.int64] and found[
        "tensor"
    ].tolist() == [1.0, 2.0]


def test_names(tmp_path):
    names = [
        "a",
        "слой.вес",
        "層",
        "\U0001f600",
        "../../etc/passwd",
        "/dev/null",
        "C:\\x",
        'quote"',
        "{}",
        "header_crc32",
        " ",
        "x" * 1024,
    ]
    arrays = {name: np.array(k) for k, name in enumerate(names)}
    mg.save(tmp_path / "a", arrays)
    same(mg.load(tmp_path / "a")[0], arrays)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "extra",
    [
        None,
        0,
        -(2**70),
        1.5,
        0.1,
        "текст",
        "\ud800",
        [],
        {},
        {"a": [1, None, True, {"b": "c"}]},
        '"header_crc32":"00000000"',
    ],
    ids=ascii,
)
def test_extra(tmp_path, extra):
    mg.save(tmp_path / "a", {"w": np.ones(2)}, extra)
    assert mg.load(tmp_path / "a")[1] == extra


EXTRAS = [
    (),
    (1,),
    {"a": ((1, 2), [3, (4, [5])])},
    {"@tuple": [1]},
    {"@@tuple": [1], "@": 2},
    {"@tuple": (1,)},
    {"@array": "x"},
    [(), {}, []],
    -0.0,
    5e-324,
    1.7976931348623157e308,
    10**4000,
    "\ud83d",
    "\0\x7f\u2028",
    {"": 1, " ": {"\ud800": ()}},
    ["\U0001f600", "\udc00\ud800"],
    True,
    [True, 1, 1.0],
]


@pytest.mark.parametrize("extra", EXTRAS, ids=ascii)
def test_extra_comes_back_as_it_was(tmp_path, extra):
    mg.save(tmp_path / "a", {}, extra)
    assert repr(mg.load(tmp_path / "a")[1]) == repr(extra)


class Text(str):
    pass


REFUSED = {
    "set": ({"a": {1}}, TypeError, r"extra\['a'\] must be None, a bool, .* got set"),
    "bytes": (b"a", TypeError, "got bytes"),
    "int keys": ({"a": {1: 2}}, TypeError, r"extra\['a'\] must have keys that are str, got int"),
    "float32": ([np.float32(1)], TypeError, r"extra\[0\] must be .* got float32: give float"),
    "float64": (np.float64(1), TypeError, "got float64: give float"),
    "int64": (np.int64(1), TypeError, "got int64: give float"),
    "bool_": (np.True_, TypeError, "got bool"),
    "array": ({"x": np.ones(2)}, TypeError, r"got ndarray: give .*x.tolist"),
    "Tensor": (mg.ones(2), TypeError, "got Tensor"),
    "str subclass": (Text("a"), TypeError, "got Text"),
    "named tuple": (os.stat_result(range(10)), TypeError, "got stat_result"),
    "path": (Path("a"), TypeError, "Path"),
    "inf": ({"a": [float("-inf")]}, ValueError, r"extra\['a'\]\[0\] must be finite, got -inf"),
    "complex": (1j, TypeError, "complex"),
    "surrogate pair": ("\ud83d\ude00", ValueError, "holds a surrogate pair as two characters"),
    "surrogate pair in a key": ({"\ud83d\ude00": 1}, ValueError, "holds a surrogate pair"),
    "10^5000": (10**5000, ValueError, "digits"),
    "of itself": (
        (lambda a: (a.append(a), a)[1])([]),
        ValueError,
        "nested too deeply, or holds itself",
    ),
    "generator": ((i for i in range(2)), TypeError, "got generator"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_extra_that_would_come_back_as_something_else(tmp_path, case):
    extra, error, message = REFUSED[case]
    with pytest.raises(error, match="^save: extra must be what JSON can hold: .*" + message):
        mg.save(tmp_path / "a", {}, extra)
    assert os.listdir(tmp_path) == []


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("plain", Path("путь"), os.fsencode(tmp_path / "bytes"), "x" * 255):
        mg.save(path, {"w": np.ones(2)})
        same(mg.load(path)[0], {"w": np.ones(2)})


def test_the_same_arrays_are_the_same_file(tmp_path):
    for name in "ab":
        mg.save(tmp_path / name, {"w": np.ones(2), "v": np.zeros(3)}, {"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_safetensors_reads_it(tmp_path):
    safetensors = pytest.importorskip(
        "safetensors.numpy", reason="skipped: safetensors is not installed"
    )
    arrays = {d: np.arange(6).reshape(2, 3).astype(d) for d in DTYPES} | {
        "0-d": np.array(1.5),
        "empty": np.zeros((0, 2), "f4"),
    }
    mg.save(tmp_path / "a", arrays, {"step": 3})
    found = safetensors.load_file(tmp_path / "a")
    same({name: found[name] for name in arrays}, arrays)


# ---------------------------------------------------------------- bad arguments of save

BAD = {
    "no dict": (([1, 2],), TypeError, "save: arrays must be a dict of arrays by name, got list"),
    "name int": (
        ({1: np.ones(2)},),
        ValueError,
        "save: names must be 1 to 1024 printable characters, got 1",
    ),
    "name empty": (
        ({"": np.ones(2)},),
        ValueError,
        "save: names must be 1 to 1024 printable characters, got ''",
    ),
    "name long": (({"x" * 1025: np.ones(2)},), ValueError, "save: names must be"),
    "name newline": (({"a\n": np.ones(2)},), ValueError, "save: names must be"),
    "name surrogate": (({"\ud800": np.ones(2)},), ValueError, "save: names must be"),
    "name metadata": (({"__metadata__": np.ones(2)},), ValueError, "save: names must be"),
    "float16": (
        ({"w": np.ones(2, "f2")},),
        TypeError,
        "save: w must have one of the dtypes .*float32.*, got float16",
    ),
    "complex": (
        ({"w": np.ones(2, complex)},),
        TypeError,
        "save: w must have one of the dtypes .*, got complex128",
    ),
    "object": (
        ({"w": np.array([None])},),
        TypeError,
        "save: w must have one of the dtypes .*, got object",
    ),
    "str": (({"w": "text"},), TypeError, "save: w must have one of the dtypes .*, got <U4"),
    "records": (
        ({"w": np.zeros(2, [("a", "f4")])},),
        TypeError,
        "save: w must have one of the dtypes",
    ),
    "ragged": (({"w": [[1.0], [1.0, 2.0]]},), ValueError, "inhomogeneous"),
    "masked": (
        ({"w": np.ma.array([1.0, 2.0], mask=[0, 1])},),
        TypeError,
        "save: w must not be a masked array",
    ),
    "masked in a list": (
        ({"w": [np.ma.array([1.0, 2.0], mask=[0, 1])]},),
        TypeError,
        "save: w must not be a masked",
    ),
    "extra": (({}, {1, 2}), TypeError, "save: extra must be what JSON can hold: .*set"),
    "extra NaN": (({}, float("nan")), ValueError, "save: extra must be what JSON can hold"),
    "extra keys": (({}, {1: 2}), TypeError, "save: extra must be what JSON can hold: .*keys"),
    "extra keys inside": (
        ({}, {"a": [{None: 2}]}),
        TypeError,
        "save: extra must be what JSON can hold: .*keys",
    ),
    "big header": (
        ({}, "x" * (3 << 20)),
        ValueError,
        "save: the header has .* bytes, more than 2097152",
    ),
    "long list": (
        ({}, [0] * 140_000),
        ValueError,
        "save: the header has 1400.. entries, more than 131072: put long",
    ),
}


@pytest.mark.parametrize("arguments, error, message", BAD.values(), ids=BAD)
def test_save_refuses(tmp_path, arguments, error, message):
    mg.save(tmp_path / "a", {"old": np.ones(2)})
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(error, match=message):
        mg.save(tmp_path / "a", *arguments)
    assert (tmp_path / "a").read_bytes() == before and os.listdir(tmp_path) == ["a"]


def test_extra_that_holds_itself(tmp_path):
    circle = []
    circle.append(circle)
    with pytest.raises(ValueError, match="save: extra must be what JSON can hold"):
        mg.save(tmp_path / "a", {}, circle)


@pytest.mark.parametrize("path", [None, 3, 1.5, ["a"]])
def test_path_of_a_wrong_type(path):
    with pytest.raises(TypeError, match="save: path must be a str, bytes or os.PathLike, got "):
        mg.save(path, {})
    with pytest.raises(TypeError, match="load: path must be a str, bytes or os.PathLike, got "):
        mg.load(path)


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


@contextlib.contextmanager
def a_folder_as_no_root():
    """A folder, and rights that end where its mode says so: root becomes another user."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        try:
            if user == 0:
                os.chown(folder, 65534, -1)
                os.seteuid(65534)
            yield Path(folder)
        finally:
            os.seteuid(user)


@posix
def test_no_permission():
    with a_folder_as_no_root() as folder:
        mg.save(folder / "a", {})
        os.chmod(folder / "a", 0)
        with pytest.raises(PermissionError):
            mg.load(folder / "a")


# ---------------------------------------------------------------- saving is atomic


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
                mg.save(path, {"w": np.full(20000, float(step)), "v": np.full(20000, float(step))}, step)
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
