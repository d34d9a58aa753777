"""Checkpoints: named arrays and a little JSON in one file, written atomically, read strictly.

The format is safetensors (a length, a JSON header, raw little-endian data), so other tools can read it. The header's metadata
holds a CRC-32 of every array and of the header itself: any flipped bit is found. Nothing in a file is ever executed, and a name
in it is never used as a path.
"""
import contextlib
import errno
import json
import os
import stat
import tempfile
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAX_HEADER = 2 << 20        # bytes; some 14,000 arrays
MAX_PARTS = 1 << 17         # commas and brackets in a header, so that a small file cannot fill the memory with empty lists
DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}
FORMAT = "minigrad 1"
PREFIX, SUFFIX = ".minigrad-", ".tmp"       # of temporary files


class CheckpointError(ValueError):
    """A file that is no checkpoint, or a damaged one.

    >>> import minigrad as mg
    >>> mg.load(mg.__file__)                # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minigrad.checkpoint.CheckpointError: load: ...
    """


def save(path: str | os.PathLike, arrays: Mapping[str, Any], extra: Any = None) -> None:
    """Write arrays by name (float32, float64, int64, int32, uint8, bool), and `extra`, anything JSON can hold, to one file.

    The file is written beside its place, flushed to the disk and then moved there: at any moment, power cuts and kill -9
    included, the place holds the old file or the whole new one. The mode of an old file is kept; a symbolic link is replaced, not
    followed. What a killed save has left behind is removed by the next one, an hour later.

    >>> import minigrad as mg, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.save(f"{folder}/model.safetensors", {"w": np.ones(3, np.float32)}, extra={"step": 7})
    ...     mg.load(f"{folder}/model.safetensors")
    ({'w': array([1., 1., 1.], dtype=float32)}, {'step': 7})
    """
    path = _checked_path(path, "save")
    if not isinstance(arrays, Mapping):
        raise TypeError(f"save: arrays must be a dict of arrays by name, got {type(arrays).__name__}")
    header: dict[str, Any] = {}
    checksums, parts, at = {}, [], 0
    for name, value in arrays.items():
        if not isinstance(name, str) or not name or name == "__metadata__" or len(name) > 1024 or not name.isprintable():
            raise ValueError(f"save: names must be 1 to 1024 printable characters, got {name!r}")
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(f"save: {name} must not be a masked array, the mask would be lost: use {name}.filled(value)")
        array = np.asarray(value)
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        if array.dtype not in NAMES:
            raise TypeError(f"save: {name} must have one of the dtypes {', '.join(str(d) for d in NAMES)}, got {array.dtype}")
        data = array.tobytes()
        header[name] = {"dtype": NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        checksums[name] = zlib.crc32(data)
        parts.append(data)
        at += len(data)
    header["__metadata__"] = {
        "format": FORMAT,
        "crc32": json.dumps(checksums),
        "extra": _extra_text(extra),
        "header_crc32": "00000000",
    }
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(f"save: the header has {len(text)} bytes, more than {MAX_HEADER}: put less of extra in it")
    if _parts(text) > MAX_PARTS:
        raise ValueError(f"save: the header has {_parts(text)} entries, more than {MAX_PARTS}: put long lists in arrays")
    place = text.rindex(b'"header_crc32":"00000000"') + len(b'"header_crc32":"')
    text = text[:place] + b"%08x" % zlib.crc32(text) + text[place + 8:]
    _replace(path, [len(text).to_bytes(8, "little"), text, *parts])


def _checked_path(path: Any, op: str) -> Path:
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{op}: path must be a str, bytes or os.PathLike, got {type(path).__name__}")
    return Path(os.fsdecode(path))


def _extra_text(extra: Any) -> str:
    """`extra` as JSON that `load` reads back."""
    try:
        text = json.dumps(extra, allow_nan=False)
        _check_keys(extra)
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"save: extra must be what JSON can hold: {error}") from None
    return text


def _check_keys(value: Any) -> None:
    """json.dumps would turn other keys into str."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys must be str, got {type(key).__name__}")
            _check_keys(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_keys(inner)


def check_place(path: str | os.PathLike) -> None:
    """Raise now the OSError that a `save` to this place would raise: the folder is missing or closed, or it is a folder."""
    path = _checked_path(path, "save")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=PREFIX, suffix=SUFFIX)
        os.close(handle)
        os.unlink(temporary)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _replace(path: Path, parts: list[bytes]) -> None:
    """Put a new file in place of `path`, whole or not at all. An OSError names `path`."""
    try:
        _write(path, parts)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    _remove_orphans(path.parent)


def _write(path: Path, parts: list[bytes]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=PREFIX, suffix=SUFFIX)
    try:
        with open(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
        else:
            mask = os.umask(0)
            os.umask(mask)
            mode = 0o666 & ~mask
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):        # Ctrl-C just after the move
            os.unlink(temporary)
        raise
    if os.name == "posix":          # the new name, too, must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_orphans(folder: Path) -> None:
    """Remove what a save left behind that was killed: our temporary files of our user, older than an hour, so that none is in
    use."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:       # the save itself is done
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                ours = os.name != "posix" or status.st_uid == os.geteuid()
                if ours and time.time() - status.st_mtime > 3600:
                    os.unlink(entry.path)


def load(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], Any]:
    """Read a file made by `save`; return (arrays, extra). Anything wrong with it is a CheckpointError, and nothing is returned.

    A file that cannot be opened is an OSError as usual.

    >>> import minigrad as mg, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.save(f"{folder}/empty", {})
    ...     mg.load(f"{folder}/empty")
    ({}, None)
    """
    path = _checked_path(path, "load")
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"load: {path} is not a regular file")
        try:
            return _read(file, status.st_size)
        except CheckpointError as error:
            raise CheckpointError(f"load: {path}: {error}") from None


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise CheckpointError(message)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    _need(len(found) == len(pairs), "a key stands twice in the header")
    return found


def _no_constants(name: str) -> None:
    raise CheckpointError(f"the header holds {name}")


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:           # ValueError: also numbers of more digits than int takes
        raise CheckpointError(f"{what} is not JSON: {error}") from None


def _parts(header: bytes) -> int:
    return sum(header.count(mark) for mark in (b",", b"[", b"{"))


def _read(file: Any, size: int) -> tuple[dict[str, np.ndarray], Any]:
    _need(size >= 8, f"the file is cut off: {size} bytes")
    length = int.from_bytes(file.read(8), "little")
    _need(length <= MAX_HEADER, f"the header would have {length} bytes, at most {MAX_HEADER} are allowed")
    _need(length <= size - 8, f"the file is cut off: the header would have {length} bytes, {size - 8} follow")
    raw = file.read(length)
    _need(len(raw) == length, "the file is cut off in its header")
    _need(_parts(raw) <= MAX_PARTS, f"the header has {_parts(raw)} entries, at most {MAX_PARTS} are allowed")
    try:
        header = _json(raw.decode("ascii"), "the header")
    except UnicodeDecodeError:
        raise CheckpointError("the header is not ASCII, which JSON can always be") from None
    _need(isinstance(header, dict), "the header is not an object")
    metadata = header.pop("__metadata__", None)
    _need(isinstance(metadata, dict) and metadata.get("format") == FORMAT and
          set(metadata) == {"format", "crc32", "extra", "header_crc32"} and all(isinstance(v, str) for v in metadata.values()),
          f"the file is not a checkpoint of the format {FORMAT!r}")
    place = raw.rfind(b'"header_crc32":"')
    _need(place >= 0, "the header has no checksum")
    place += len(b'"header_crc32":"')
    _need(
        raw[place : place + 8] == b"%08x" % zlib.crc32(raw[:place] + b"00000000" + raw[place + 8 :]),
        "the header's checksum is wrong: the file is damaged",
    )
    checksums, extra = _json(metadata["crc32"], "the list of checksums"), _json(metadata["extra"], "the extra part")
    _need(isinstance(checksums, dict) and set(checksums) == set(header), "the checksums do not match the arrays")
    at, plan = 0, []
    for name, entry in header.items():
        _need(
            isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"},
            f"the entry of {name!r} is not that of an array",
        )
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        _need(isinstance(dtype, str) and dtype in DTYPES, f"{name!r} has the unknown dtype {dtype!r}")
        _need(
            isinstance(shape, list) and len(shape) <= 64 and all(type(d) is int and 0 <= d < 1 << 48 for d in shape),
            f"{name!r} has a bad shape",
        )
        _need(
            isinstance(offsets, list) and len(offsets) == 2 and all(type(d) is int for d in offsets), f"{name!r} has bad offsets"
        )
        count = np.dtype(DTYPES[dtype]).itemsize
        for d in shape:
            count *= d
        _need(offsets == [at, at + count], f"the data of {name!r} leaves a hole, overlaps, or does not fit its shape")
        at += count
        plan.append((name, np.dtype(DTYPES[dtype]), shape, count))
    _need(
        at == size - 8 - length,
        f"the file is cut off or has something behind its end: {size - 8 - length} bytes of data where {at} belong",
    )
    arrays = {}
    for name, dtype, shape, count in plan:
        data = file.read(count)
        _need(
            len(data) == count and zlib.crc32(data) == checksums[name], f"the data of {name!r} is damaged: its checksum is wrong"
        )
        _need(dtype != np.bool_ or not data.strip(b"\0\1"), f"{name!r} holds a bool that is neither 0 nor 1")
        try:
            array = np.frombuffer(data, dtype).reshape(shape)
        except ValueError as error:                         # empty, but other dimensions larger than any array
            raise CheckpointError(f"{name!r} has a bad shape: {error}") from None
        arrays[name] = array.astype(dtype.newbyteorder("="))
    return arrays, extra
