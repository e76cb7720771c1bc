"""Local copies of remote files: whole or absent, safe among processes, limited in size.

    CACHE/
      .lock                     held while room is made and folders come and go
      .sizes.json               bytes of each folder, with those that are being fetched
      0a1b2c…/                  a copy of a shard folder, as far as it was needed
        .origin.json            its address
        .lease                  locked by every process that reads the folder; its date is that of the last use
        .NAME.lock              locked by the process that fetches NAME; as large as NAME will be until it is there

Before a file is fetched, folders that no process reads are removed, least recently used first, until it fits. Folders in use
are never removed; a file that then does not fit is an error. Sizes are counted along; files are looked at only where the count
is missing or leaves no room (a process that was killed may have left too large a count).
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ove.config import RemoteConfig
from ove.errors import Unavailable
from ove.files import atomic_write, lock, locked, remove_leftovers, short

LEASE = ".lease"
_SIZES = ".sizes.json"
_YOUNG_S = 60.0
"""A folder used within this time is kept, because a process may be about to lock it."""


def lease(folder: Path) -> int:
    """Keeps a folder of the cache until the returned file handle is closed or the process ends."""
    handle = os.open(folder / LEASE, os.O_CREAT | os.O_RDWR, 0o644)
    lock(handle, shared=True, wait=True)
    os.utime(folder / LEASE)
    return handle


def keep(path: Path, size: int, fetch: Callable[[Path], None], config: RemoteConfig, again: bool = False) -> None:
    """Puts a file of `size` bytes into the cache by `fetch(temporary)`, unless it is there; other processes wait.

    `again`: replaces one that is there, which readers find until then. Unavailable if there is no room.
    """
    if not path.parent.resolve().is_relative_to(config.cache.resolve()):
        raise Unavailable(f"{path.parent}: leads out of the cache {config.cache} by a link; delete the link.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{short(path.name)}.lock")) as reservation:
        before = path.stat().st_size if path.exists() else None
        if before is not None and not again:
            return
        remove_leftovers(path.parent, path.name)
        _reserve(reservation, size, path, config)
        try:
            with atomic_write(path) as temporary:
                fetch(temporary)
        finally:
            os.truncate(reservation, 0)
            now = path.stat().st_size if path.exists() else 0
            if now - (before or 0) != size:
                with _sizes(config.cache) as sizes:
                    sizes[_folder(path, config)] += now - (before or 0) - size


def _folder(path: Path, config: RemoteConfig) -> str:
    """Returns the name of the folder of the cache that holds a file."""
    return path.relative_to(config.cache).parts[0]


@contextlib.contextmanager
def _sizes(cache: Path) -> Iterator[dict[str, int]]:
    """Yields the bytes of each folder of the cache, which is locked meanwhile, to be changed; unknown ones are counted."""
    path = cache / _SIZES
    with locked(cache / ".lock"):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            known = {name: size for name, size in found.items() if isinstance(size, int)}
        except (FileNotFoundError, ValueError, AttributeError):  # none yet, or truncated by a crash
            known = {}
        folders = [folder for folder in cache.iterdir() if folder.is_dir()]
        sizes = {folder.name: known[folder.name] if folder.name in known else _bytes_in(folder) for folder in folders}
        yield sizes
        path.write_text(json.dumps(sizes), encoding="utf-8")  # whole or not does not matter: see above


def _reserve(reservation: int, size: int, path: Path, config: RemoteConfig) -> None:
    """Makes room for `size` bytes and reserves them; Unavailable if that fails."""
    mine = _folder(path, config)
    with _sizes(config.cache) as sizes:
        if not _make_room(sizes, size, mine, config):
            sizes |= {name: _bytes_in(config.cache / name) for name in sizes}
            if not _make_room(sizes, size, mine, config):
                taken, free = sum(sizes.values()), shutil.disk_usage(config.cache).free
                raise Unavailable(
                    f"{path.name}: takes {size / 1e9:.2f} GB, and the cache {config.cache} has no room: {taken / 1e9:.2f} of "
                    f"its {config.cache_gb:g} GB are in use, {free / 1e9:.2f} GB of the disk are free. Allow more with "
                    "OVE_CACHE_GB, or name a folder on a larger disk with OVE_CACHE."
                )
        sizes[mine] += size
        os.truncate(reservation, size)


def _make_room(sizes: dict[str, int], size: int, mine: str, config: RemoteConfig) -> bool:
    """Removes other unused folders, least recently used first, until `size` bytes fit; returns whether they do."""
    limit = int(config.cache_gb * 1e9)

    def fits() -> bool:
        return sum(sizes.values()) + size <= limit and shutil.disk_usage(config.cache).free >= size

    if fits():
        return True
    for folder in sorted((config.cache / name for name in sizes if name != mine), key=_last_use):
        if _remove_unused(folder):
            del sizes[folder.name]
            if fits():
                return True
    return False


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
