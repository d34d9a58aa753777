"""Checkpoints: the same bits out as in, and what mg.save refuses."""

import os
from pathlib import Path

import numpy as np
import pytest
from checkpoints import same

import minigrad as mg

DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")
posix = pytest.mark.skipif(os.name != "posix", reason="skipped: no POSIX files here")

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
