"""Local copies of remote files: whole or absent, safe among processes, limited in size.

    CACHE/
      .lock                     held while room is made and folders come and go
      0a1b2c…/                  a copy of a shard folder, as far as it was needed
        .origin.json            its address
        .lease                  locked by every process that reads the folder; its date is that of the last use
        .NAME.lock              locked by the process that fetches NAME; as large as NAME will be until it is there

Before a file is fetched, folders that no process reads are removed, least recently used first, until it fits. Folders in use
are never removed; a file that then does not fit is an error.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ove.config import RemoteConfig
from ove.errors import Unavailable
from ove.files import atomic_write, lock, locked, remove_leftovers

LEASE = ".lease"
_YOUNG_S = 60.0
"""A folder used within this time is kept, because a process may be about to lock it."""


def lease(folder: Path) -> int:
    """Keeps a folder of the cache until the returned file handle is closed or the process ends."""
    handle = os.open(folder / LEASE, os.O_CREAT | os.O_RDWR, 0o644)
    lock(handle, shared=True, wait=True)
    os.utime(folder / LEASE)
    return handle


def keep(path: Path, size: int, fetch: Callable[[Path], None], config: RemoteConfig) -> None:
    """Puts a file of `size` bytes into the cache by `fetch(temporary)`, unless it is there; other processes wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")) as reservation:
        if path.exists():
            return
        remove_leftovers(path.parent, path.name)
        _reserve(reservation, size, path, config)
        try:
            with atomic_write(path) as temporary:
                fetch(temporary)
        finally:
            os.truncate(reservation, 0)


def _reserve(reservation: int, size: int, path: Path, config: RemoteConfig) -> None:
    """Makes room for `size` bytes and reserves them; Unavailable if that fails."""
    limit = int(config.cache_gb * 1e9)
    with locked(config.cache / ".lock"):
        sizes = {folder: _bytes_in(folder) for folder in config.cache.iterdir() if folder.is_dir()}
        others = [folder for folder in sizes if folder not in path.parents]
        free = shutil.disk_usage(config.cache).free
        for folder in sorted(others, key=_last_use):
            if sum(sizes.values()) + size <= limit and free >= size:
                break
            if _remove_unused(folder):
                free += sizes.pop(folder)
        taken = sum(sizes.values())
        if taken + size > limit or free < size:
            raise Unavailable(
                f"{path.name}: takes {size / 1e9:.2f} GB, and the cache {config.cache} has no room: {taken / 1e9:.2f} of its "
                f"{config.cache_gb:g} GB are in use, {free / 1e9:.2f} GB of the disk are free. Allow more with OVE_CACHE_GB, "
                "or name a folder on a larger disk with OVE_CACHE."
            )
        os.truncate(reservation, size)


def _bytes_in(folder: Path) -> int:
    """Returns the size of a folder's files, those that are being fetched included."""
    total = 0
    for path in folder.rglob("*"):
        try:
            if path.name.endswith(".lock") and path.stat().st_size:
                _forget_if_abandoned(path)
            total += path.stat().st_size if path.is_file() and not path.name.endswith(".tmp") else 0
        except FileNotFoundError:
            continue  # renamed meanwhile
    return total


def _forget_if_abandoned(reservation: Path) -> None:
    """Frees the reservation of a process that has ended."""
    with reservation.open("ab") as handle:
        if lock(handle.fileno()):
            handle.truncate(0)


def _last_use(folder: Path) -> float:
    try:
        return (folder / LEASE).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove_unused(folder: Path) -> bool:
    """Removes a folder of the cache unless a process reads it or may be about to; returns whether it did."""
    if time.time() - _last_use(folder) < _YOUNG_S:
        return False
    with (folder / LEASE).open("ab") as handle:
        if not lock(handle.fileno()):
            return False
        shutil.rmtree(folder)
    return True
