"""Atomic writes, JSON and its digests, and locks."""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from ove.errors import ConfigError, OveError, Unavailable

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Error numbers of file systems without locks."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a write that found no room: on the disk, within the quota, within the largest size of a file."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST_NAME = 200
"""Bytes of a name to which temporary names can add some: file systems allow 255."""


@contextlib.contextmanager
def atomic_write(path: Path, writer: str = "") -> Iterator[Path]:
    """Yields a hidden path in the folder of `path`; at the end of the block the file written there is renamed to `path`.

    First its bytes, then the new name are synced to disk, so that readers see the old file or the whole new one, even after a
    crash. An error in the block removes the file; that of a killed process is left to `remove_leftovers`. Several processes, on
    any machines, may write one file at once: the last wins. A `writer`, a name unique among them, overwrites its own leftovers.
    """
    temporary = path.with_name(f".{short(path.name)}.{writer or secrets.token_hex(6)}.tmp")
    try:
        with naming(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def short(name: str) -> str:
    """Returns a name that can be lengthened by a few dozen bytes: a long one as its digest."""
    data = os.fsencode(name)
    return name if len(data) <= _LONGEST_NAME else hashlib.sha256(data).hexdigest()


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Deletes what killed processes have left of files `name` (a pattern); only while holding the folder's lock."""
    for leftover in folder.glob(f".{short(name)}.*tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 whole or not at all, with line ends as given."""
    write_bytes(path, encoded(text))


def write_array(path: Path, array: Shaped[np.ndarray, "..."], writer: str = "") -> None:
    """Writes an array as .npy, whole or not at all; `writer` as in `atomic_write`."""
    with atomic_write(path, writer) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def map_array(path: Path) -> Shaped[np.ndarray, "..."]:
    """Maps the array of an .npy; ValueError if the file is damaged, whatever NumPy's reader of headers raises."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, TypeError, OverflowError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def write_json(path: Path, value: Mapping[str, Any], indent: int = 1) -> None:
    """Writes a JSON file whole or not at all, unless it has this content already."""
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    if not path.exists() or path.read_bytes() != encoded(text):
        write_text(path, text)


def write_json_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    write_text(path, "".join(_line(entry) for entry in entries))


def append_json_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Appends a line to a file; this process must have called `reopen_json_lines` on it before."""
    with naming(path), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(_line(entry))


def reopen_json_lines(path: Path, keep: Callable[[dict[str, Any]], bool] = lambda entry: True) -> list[dict[str, Any]]:
    """Removes all entries that `keep` rejects from a file of JSON lines, and truncated lines; returns the others.

    An absent file has no entries.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    entries = [entry for entry in map(_entry, lines) if entry is not None and keep(entry)]
    if path.exists():
        write_json_lines(path, entries)
    return entries


def digest(value: Any) -> str:
    """Returns the SHA-256 of a JSON value, hexadecimal; the order of keys does not matter."""
    return hashlib.sha256(encoded(json.dumps(value, sort_keys=True, ensure_ascii=False))).hexdigest()


def encoded(text: str) -> bytes:
    r"""Returns UTF-8, in which bytes of file names that are not stand as `\udcXX`, which JSON reads back as the same name."""
    return text.encode("utf-8", "backslashreplace")


def printable(name: str) -> str:
    r"""Returns a file name as text that can be printed and stored anywhere, with `\udcXX` for bytes that are not UTF-8."""
    return name if name.isascii() else encoded(name).decode()


def on_screen(text: str) -> str:
    r"""Returns text without control characters, which terminals obey and names may hold: as `\x1b`; ends of lines stay."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def kind_of_text(head: bytes) -> str:
    """Returns what stands in the place of a picture or video, by its first 16 bytes, and what to do; else nothing."""
    if head.startswith(b"version https://"):
        return "is a pointer of Git LFS, not the file itself; run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is a page in HTML, as failed downloads leave one; download the file again"
    if head.startswith((b"#EXTM3U", b"[playlist]")):
        return "is a playlist, which names other files; give those, or what `ffmpeg -i PLAYLIST -c copy OUT.mp4` makes of it"
    return ""


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds `path` to OS errors that name no file, and makes OS errors of those of libraries that report a full disk."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OveError) or (isinstance(error, OSError) and error.filename is not None):
            raise
        code = error.errno if isinstance(error, OSError) else None
        code = code or _full_in(str(error))
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _full_in(message: str) -> int | None:
    """Returns the error number of a full disk, if a library's message means one."""
    if "requested and" in message and message.endswith("written"):  # NumPy
        return errno.ENOSPC
    return next((code for code in DISK_FULL if os.strerror(code) in message), None)


@contextlib.contextmanager
def locked(path: Path, busy: OveError | None = None, shared: bool = False) -> Iterator[int]:
    """Locks a file, creating it if necessary, and yields its descriptor; the lock ends with the block or the process.

    A `shared` lock may be held by several. If it is taken, raises `busy`, or waits without it. Unavailable on a file system
    without locks.
    """
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            if not lock(handle, shared, wait=busy is None):
                assert busy is not None
                raise busy
        except OSError as error:
            raise Unavailable(
                f"{path}: cannot be locked ({error.strerror}); use a file system with locks (Lustre: mount it with -o flock)."
            ) from error
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Locks a file to be written, as `.NAME.lock` beside it, against other commands; ConfigError if one is at it.

    The lock's file goes at the end; that of a killed process is taken over, and what it left half-written is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    guard = path.with_name(f".{short(path.name)}.lock")
    busy = ConfigError(f"{path}: another command is writing it; wait until that ends, or give another place.")
    with locked(guard, busy):
        remove_leftovers(path.parent, glob.escape(short(path.name)))
        try:
            yield
        finally:
            guard.unlink(missing_ok=True)


def lock(handle: int, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file until it is closed; returns False if others hold the lock and `wait` is False."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
