"""Checkpoints: named arrays and a little JSON in one file, written atomically, read strictly.

The format is safetensors (a length, a JSON header, raw little-endian data), so other tools can read
it. The header's metadata holds a CRC-32 of every array and of the header itself, so any flipped bit
is found. Nothing in a file is ever executed, and a name in it is never used as a path.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minigrad.core.array import is_masked

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CheckpointError", "check_place", "contents", "load", "save"]

MAX_HEADER = 2 << 20  # bytes; some 14,000 arrays
# Commas and brackets in a header: a small file cannot fill the memory with empty lists.
MAX_PARTS = 1 << 17
DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items()}
FORMAT = "minigrad 1"
DEEPEST = 64  # lists inside of each other: NumPy's arrays have at most so many dimensions
CHECKSUM = b'"header_crc32":"'  # what stands before the eight digits of the header's own
PREFIX, SUFFIX = ".minigrad-", ".tmp"  # of temporary files
TUPLE = "@tuple"  # the key of the object that stands for a tuple in `extra`


class CheckpointError(ValueError):
    """A file that is no checkpoint, or a damaged one.

    >>> import minigrad as mg
    >>> mg.load(mg.__file__)                # doctest: +ELLIPSIS
    Traceback (most recent call last):
    minigrad.training.checkpoint.CheckpointError: load: ...
    """


def save(path: str | os.PathLike[str], arrays: Mapping[str, Any], extra: Any = None) -> None:
    """Write arrays by name, and some JSON, to one file, atomically.

    A new file is written in the same folder, flushed to the disk and then moved to `path`. So at
    any moment, even after a power cut or kill -9, `path` holds the old file or the whole new one.
    The mode of an old file is kept; a symbolic link to a file is replaced, not followed. Temporary
    files of a save that was killed are removed by a later save, when they are an hour old.

    Args:
        path: The file, a str or a path.
        arrays: Arrays of any shape by name, of dtype float32, float64, int64, int32, uint8 or bool.
        extra: None, bool, int, finite float, str, and lists, tuples and dicts (with keys that are
            str) of these, nested to any depth. `load` returns it as it was, tuples as tuples.
            Default: None.

    Raises:
        TypeError, ValueError: An array or a value would not come back as it was, such as a masked
            array, or a NumPy number or an OrderedDict in extra; nothing is written.
        OSError: The file cannot be written, or `path` is a folder or a device.

    >>> import minigrad as mg, numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.save(f"{folder}/model.safetensors", {"w": np.ones(3, np.float32)}, extra={"step": 7})
    ...     mg.load(f"{folder}/model.safetensors")
    ({'w': array([1., 1., 1.], dtype=float32)}, {'step': 7})
    """
    path = _checked_path(path, "save")
    _replace(path, contents(arrays, extra))


def contents(arrays: Mapping[str, Any], extra: Any = None) -> list[bytes]:
    """What `save` writes, in pieces; raises what cannot be saved."""
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"save: arrays must be a dict of arrays by name, got {type(arrays).__name__}"
        )
    header: dict[str, Any] = {}
    checksums, parts, offset = {}, [], 0
    for name, value in arrays.items():
        array = _savable(name, value)
        data = array.tobytes()
        header[name] = {
            "dtype": NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        checksums[name] = zlib.crc32(data)
        parts.append(data)
        offset += len(data)
    header["__metadata__"] = {
        "format": FORMAT,
        "crc32": json.dumps(checksums),
        "extra": _extra_text(extra),
        "header_crc32": "00000000",
    }
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"save: the header has {len(text)} bytes, more than {MAX_HEADER}: "
            "put less of extra in it"
        )
    if _parts(text) > MAX_PARTS:
        raise ValueError(
            f"save: the header has {_parts(text)} entries, more than {MAX_PARTS}: "
            "put long lists in arrays"
        )
    place = text.rindex(CHECKSUM + b'00000000"') + len(CHECKSUM)
    text = text[:place] + b"%08x" % zlib.crc32(text) + text[place + 8 :]
    return [len(text).to_bytes(8, "little"), text, *parts]


def _savable(name: Any, value: Any) -> np.ndarray:
    """An array as the file holds it: little-endian, in C order."""
    is_name = isinstance(name, str) and 1 <= len(name) <= 1024 and name.isprintable()
    if not is_name or name == "__metadata__":
        raise ValueError(f"save: names must be 1 to 1024 printable characters, got {name!r}")
    if _has_mask(value):
        raise TypeError(
            f"save: {name} must not be a masked array, the mask would be lost: "
            f"use {name}.filled(value)"
        )
    array = np.asarray(value)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
    if array.dtype not in NAMES:
        raise TypeError(
            f"save: {name} must have one of the dtypes {', '.join(str(d) for d in NAMES)}, "
            f"got {array.dtype}"
        )
    return array


def _has_mask(value: Any, depth: int = 0) -> bool:
    """Is it a masked array, or a list with one in it?"""
    if depth > DEEPEST:
        raise ValueError(f"save: lists are nested more than {DEEPEST} deep, beyond NumPy's arrays")
    if isinstance(value, (list, tuple)):
        return any(_has_mask(inner, depth + 1) for inner in value)
    return is_masked(value)


def _checked_path(path: Any, op: str) -> Path:
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(
            f"{op}: path must be a str, bytes or os.PathLike, got {type(path).__name__}"
        )
    from pathlib import Path  # not at the top: it takes a tenth of the time of the whole import

    return Path(os.fsdecode(path))


def _extra_text(extra: Any) -> str:
    """`extra` as JSON that `load` reads back."""
    try:
        return json.dumps(_encoded(extra, "extra"), allow_nan=False)
    except RecursionError:
        raise ValueError(
            "save: extra must be what JSON can hold: it is nested too deeply, or holds itself"
        ) from None
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"save: extra must be what JSON can hold: {error}") from None


def _encoded(value: Any, where: str) -> Any:
    """`value` for json.dumps: a tuple is {"@tuple": [...]}, and a key of a dict that begins with @
    gets another @ in front, so that it is told from that. Anything that would come back as
    something else is an error.

    The types must be these exactly: a subclass of float or dict comes back as a float or a dict."""
    kind = type(value)
    if kind is float and not np.isfinite(value):
        raise ValueError(f"{where} must be finite, got {value}")
    if kind in (bool, int, float, type(None)):
        return value
    if kind is str:
        return _checked_text(value, where)
    if kind in (list, tuple):
        items = []
        for i, inner in enumerate(value):
            items.append(_encoded(inner, f"{where}[{i}]"))
        return items if kind is list else {TUPLE: items}
    if kind is not dict:
        of_numpy = isinstance(value, (np.ndarray, np.generic))
        hint = ": give float(x), int(x) or x.tolist()" if of_numpy else ""
        raise TypeError(
            f"{where} must be None, a bool, int, float, str, list, tuple or dict, got "
            f"{kind.__name__}{hint}"
        )
    found = {}
    for key, inner in value.items():
        if type(key) is not str:
            raise TypeError(f"{where} must have keys that are str, got {type(key).__name__}")
        name = "@" + key if key.startswith("@") else key
        found[_checked_text(name, where)] = _encoded(inner, f"{where}[{key!r}]")
    return found


def _checked_text(text: str, where: str) -> str:
    """Two halves of a surrogate pair, each of which is a character of its own in a str, would come
    back as one character."""
    if not text.isascii() and json.loads(json.dumps(text)) != text:
        raise ValueError(f"{where} holds a surrogate pair as two characters: {text!r}")
    return text


def _decoded(pairs: list[tuple[str, Any]]) -> Any:
    """The inverse of `_encoded` for one object of JSON, whose inner ones are decoded already."""
    found = _no_duplicates(pairs)
    if len(found) == 1 and type(found.get(TUPLE)) is list:
        return tuple(found[TUPLE])
    return {key[1:] if key.startswith("@@") else key: inner for key, inner in found.items()}


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise now the OSError that a `save` to this place would raise: the folder is missing or
    closed, or it is a folder."""
    path = _checked_path(path, "save")
    _old_mode(path)
    try:
        handle, temporary = _temporary(path, None)
        os.close(handle)
        os.unlink(temporary)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _old_mode(path: Path) -> int | None:
    """The mode of the file at `path`, None if there is none. What must not be replaced by a file is
    an OSError."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return stat.S_IMODE(mode)


def _temporary(path: Path, mode: int | None) -> tuple[int, Path]:
    """A new file beside `path`, open for writing, and its name. A new file gets its rights from the
    process's umask, by the system; one that will replace another is closed to all others at first,
    since that one may be."""
    temporary = path.parent / f"{PREFIX}{os.urandom(8).hex()}{SUFFIX}"
    flags = (
        os.O_WRONLY
        | os.O_CREAT
        | os.O_EXCL
        | getattr(os, "O_CLOEXEC", 0)
        | getattr(os, "O_BINARY", 0)
    )
    return os.open(temporary, flags, 0o666 if mode is None else 0o600), temporary


def _replace(path: Path, parts: list[bytes]) -> None:
    """Put a new file in place of `path`, whole or not at all. An OSError names `path`."""
    try:
        _write(path, parts)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    _remove_orphans(path.parent)


def _write(path: Path, parts: list[bytes]) -> None:
    mode = _old_mode(path)
    handle, temporary = _temporary(path, mode)
    try:
        with open(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # Ctrl-C just after the move
            os.unlink(temporary)
        raise
    if os.name == "posix":  # the new name, too, must reach the disk
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _remove_orphans(folder: Path) -> None:
    """Remove what a save left behind that was killed: our temporary files of our user, older than
    an hour, so that none is in use."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # the save itself is done
        for entry in entries:
            if (
                entry.name.startswith(PREFIX)
                and entry.name.endswith(SUFFIX)
                and entry.is_file(follow_symlinks=False)
            ):
                status = entry.stat(follow_symlinks=False)
                ours = os.name != "posix" or status.st_uid == os.geteuid()
                if ours and time.time() - status.st_mtime > 3600:
                    os.unlink(entry.path)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Any]:
    """Read a file made by `save`.

    Args:
        path: The file, a str or a path.

    Returns:
        (arrays, extra): the arrays by name, and what was saved with them.

    Raises:
        CheckpointError: Anything in the file is wrong; nothing of it is returned.
        OSError: The file cannot be opened.

    >>> import minigrad as mg, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mg.save(f"{folder}/empty", {})
    ...     mg.load(f"{folder}/empty")
    ({}, None)
    """
    path = _checked_path(path, "load")
    with open(path, "rb", opener=_opened) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"load: {path} is not a regular file")
        try:
            return _read(file, status.st_size)
        except CheckpointError as error:
            raise CheckpointError(f"load: {path}: {error}") from None


def _opened(name: str, flags: int) -> int:
    """The file, without waiting where it is a pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise CheckpointError(message)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    _need(len(found) == len(pairs), "a key stands twice in the header")
    return found


def _no_constants(name: str) -> None:
    raise CheckpointError(f"the header holds {name}")


def _json(
    text: str, what: str, pairs: Callable[[list[tuple[str, Any]]], Any] = _no_duplicates
) -> Any:
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constants)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:  # also numbers of more digits than int takes
        raise CheckpointError(f"{what} is not JSON: {error}") from None


def _parts(header: bytes) -> int:
    return sum(header.count(mark) for mark in (b",", b"[", b"{"))


def _read(file: Any, size: int) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays and the extra part of an open file of `size` bytes."""
    raw = _read_header(file, size)
    header, extra, checksums = _parsed(raw)
    entries, offset = [], 0
    for name, entry in header.items():
        dtype, shape, count = _checked_entry(name, entry, offset)
        entries.append((name, dtype, shape, count))
        offset += count
    follow = size - 8 - len(raw)
    _need(
        offset == follow,
        f"the file is cut off or has something behind its end: {follow} bytes of data "
        f"where {offset} belong",
    )
    arrays = {}
    for name, dtype, shape, count in entries:
        arrays[name] = _array(name, file.read(count), dtype, shape, count, checksums[name])
    return arrays, extra


def _read_header(file: Any, size: int) -> bytes:
    """The bytes of the header, of a length that is possible."""
    _need(size >= 8, f"the file is cut off: {size} bytes")
    length = int.from_bytes(file.read(8), "little")
    _need(
        length <= MAX_HEADER,
        f"the header would have {length} bytes, at most {MAX_HEADER} are allowed",
    )
    _need(
        length <= size - 8,
        f"the file is cut off: the header would have {length} bytes, {size - 8} follow",
    )
    raw: bytes = file.read(length)
    _need(len(raw) == length, "the file is cut off in its header")
    _need(
        _parts(raw) <= MAX_PARTS,
        f"the header has {_parts(raw)} entries, at most {MAX_PARTS} are allowed",
    )
    return raw


def _parsed(raw: bytes) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """The entries of the arrays, the extra part and the checksums of a header that is whole."""
    try:
        header = _json(raw.decode("ascii"), "the header")
    except UnicodeDecodeError:
        raise CheckpointError("the header is not ASCII, which JSON can always be") from None
    _need(isinstance(header, dict), "the header is not an object")
    metadata = header.pop("__metadata__", None)
    _need(
        isinstance(metadata, dict)
        and metadata.get("format") == FORMAT
        and set(metadata) == {"format", "crc32", "extra", "header_crc32"}
        and all(isinstance(v, str) for v in metadata.values()),
        f"the file is not a checkpoint of the format {FORMAT!r}",
    )
    place = raw.rfind(CHECKSUM)
    _need(place >= 0, "the header has no checksum")
    place += len(CHECKSUM)
    checksum = zlib.crc32(raw[:place] + b"00000000" + raw[place + 8 :])
    _need(
        raw[place : place + 8] == b"%08x" % checksum,
        "the header's checksum is wrong: the file is damaged",
    )
    checksums = _json(metadata["crc32"], "the list of checksums")
    extra = _json(metadata["extra"], "the extra part", _decoded)
    _need(
        isinstance(checksums, dict) and set(checksums) == set(header),
        "the checksums do not match the arrays",
    )
    return header, extra, checksums


def _checked_entry(name: str, entry: Any, offset: int) -> tuple[np.dtype, list[int], int]:
    """dtype, shape and number of bytes of an array whose data must begin at `offset`."""
    _need(
        isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"},
        f"the entry of {name!r} is not that of an array",
    )
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    _need(isinstance(code, str) and code in DTYPES, f"{name!r} has the unknown dtype {code!r}")
    _need(
        isinstance(shape, list)
        and len(shape) <= 64
        and all(type(d) is int and 0 <= d < 1 << 48 for d in shape),
        f"{name!r} has a bad shape",
    )
    _need(
        isinstance(offsets, list) and len(offsets) == 2 and all(type(d) is int for d in offsets),
        f"{name!r} has bad offsets",
    )
    dtype = np.dtype(DTYPES[code])
    count = dtype.itemsize
    for d in shape:
        count *= d
    _need(
        offsets == [offset, offset + count],
        f"the data of {name!r} leaves a hole, overlaps, or does not fit its shape",
    )
    return dtype, shape, count


def _array(
    name: str, data: bytes, dtype: np.dtype, shape: list[int], count: int, checksum: Any
) -> np.ndarray:
    """The array that these bytes are."""
    _need(
        len(data) == count and zlib.crc32(data) == checksum,
        f"the data of {name!r} is damaged: its checksum is wrong",
    )
    _need(
        dtype != np.bool_ or not data.strip(b"\0\1"),
        f"{name!r} holds a bool that is neither 0 nor 1",
    )
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # empty, but other dimensions larger than any array
        raise CheckpointError(f"{name!r} has a bad shape: {error}") from None
    return array.astype(dtype.newbyteorder("="))
