"""Compiles the readers of HEVC slice data when they are first needed; once on a machine, for all processes."""

import fcntl
import functools
import hashlib
import importlib
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from ove.video.bitstream.coded import NoVectors, SliceReader

_PACKAGE = "ove.video.bitstream.hevc_slices"


def open_pictures(extradata: bytes) -> SliceReader:
    """Opens a reader of the pictures of an HEVC stream, given its header (`hvcC` or Annex B).

    The first call on a machine compiles it, which takes some 15 s and says so on the screen. NoVectors where numba cannot be
    imported, or the stream is of a kind that is not read.
    """
    return _pictures().PictureReader(extradata)


@functools.cache
def _pictures() -> ModuleType:
    try:
        numba = importlib.import_module("numba")
    except (ImportError, OSError) as error:
        raise NoVectors(f"numba, which compiles what reads them, cannot be imported ({error})") from error
    folder = _cache_folder(numba.__version__)
    before = numba.config.CACHE_DIR
    with _one_at_a_time(folder):
        done = folder / "done"
        if not done.exists():
            print("compiling the reader of HEVC slice data (once on this machine; some 15 s) …", file=sys.stderr, flush=True)
        numba.config.CACHE_DIR = str(folder)
        try:
            pictures = importlib.import_module(f"{_PACKAGE}.pictures")
        finally:
            numba.config.CACHE_DIR = before
        done.touch()
    return pictures


def _cache_folder(version: str) -> Path:
    """Returns a folder for what is compiled from these very sources by this numba; only this user can write to it."""
    here = Path(__file__).parent
    digest = hashlib.sha256(f"{version} {sys.version} {platform.machine()}".encode())
    for source in sorted(here.glob("*.py")):
        digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for place in filter(None, (os.environ.get("NUMBA_CACHE_DIR"), home)):
        folder = Path(place) / "ove" / f"hevc-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        # Compiled code is loaded from there: it must be nobody else's.
        found = folder.stat()
        if found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="ove-hevc-"))


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Lets the other processes wait while the first compiles; where files cannot be locked, each compiles."""
    with (folder / "lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
