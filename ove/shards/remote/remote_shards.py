"""Shard folders at a URI: gs:// is read in place by ArrayRecord, others are fetched shard by shard when first read.

All readers work on a copy of the folder in the cache, as far as it was needed. docs/remote.md describes addresses,
credentials, the cache and time limits.
"""

import errno
import hashlib
import json
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ove.config import RemoteConfig
from ove.errors import BadShard, Unavailable
from ove.files import locked, sha256_of, write_bytes, write_json
from ove.paths import uri_of
from ove.shards.manifest import MANIFEST, Shard
from ove.shards.remote.cache import keep, lease
from ove.shards.remote.fetch import BrokeOff, NotThere, download, explained, with_timeout

R = TypeVar("R")

_ORIGIN = ".origin.json"
_DIGITS = 24
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
"""Before the second attempt; doubled before each further one, up to the longest."""
_STATUS = re.compile(r"HTTP status code: (\d{3})")
_ERRNO = {"404": errno.ENOENT, "401": errno.EACCES, "403": errno.EACCES}


def join(uri: str, name: str) -> str:
    """Returns the URI of a file in a remote folder; the query of an https address (a token) stays at the end."""
    head, mark, query = uri.partition("?") if uri.startswith("http") else (uri, "", "")
    return f"{head.rstrip('/')}/{name}{mark}{query}"


def local_folder(folder: Path | str) -> Path:
    """Returns a local folder: of a URI its copy, with a fresh manifest, otherwise the folder itself.

    Each version of a remote manifest has its own copy. Unavailable if the address cannot be read.
    """
    uri = uri_of(folder)
    if uri is None:
        return Path(str(folder).removeprefix("file://")) if isinstance(folder, str) else folder
    config = RemoteConfig.from_environment()
    config.cache.mkdir(parents=True, exist_ok=True)
    # Into the cache itself first: the folder depends on the contents.
    arriving = config.cache / f".{_name(uri)}-{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        fetch(join(uri, MANIFEST), arriving, config)
        manifest = arriving.read_bytes()
    except NotThere as error:
        raise Unavailable(
            f"{uri}: holds no {MANIFEST}, so it is no finished shard folder, or the address is wrong ({error})"
        ) from error
    finally:
        arriving.unlink(missing_ok=True)
    copy = config.cache / _name(f"{uri}\n{hashlib.sha256(manifest).hexdigest()}")
    with locked(config.cache / ".lock"):
        copy.mkdir(exist_ok=True)
        os.close(lease(copy))
        write_json(copy / _ORIGIN, {"uri": uri})
        if not (copy / MANIFEST).exists():
            write_bytes(copy / MANIFEST, manifest)
    return copy


def origin(folder: Path) -> str | None:
    """Returns the URI that a folder of the cache is a copy of; None for other folders."""
    path = folder / _ORIGIN
    return json.loads(path.read_text(encoding="utf-8"))["uri"] if path.is_file() else None


def local_file(folder: Path, name: str, whole: Callable[[Path], bool] | None = None) -> Path:
    """Returns the local path of a file in a shard folder, fetched if the folder is a copy of a remote one.

    `whole` checks a fetched file, which is then kept; without it the file is fetched every time, as it may have changed. If the
    remote folder has no such file, nothing is at the path.
    """
    path, uri = folder / name, origin(folder)
    if uri is None or (whole is not None and path.exists()):
        return path
    config = RemoteConfig.from_environment()
    try:
        keep(path, 0, lambda temporary: fetch(join(uri, name), temporary, config, whole), config, again=whole is None)
    except NotThere:
        path.unlink(missing_ok=True)
    return path


class RemoteShards:
    """The shards of a remote folder whose copy is `folder`; keeps the copy in the cache while it exists."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.uri = uri
        self._folder = folder
        self._config = RemoteConfig.from_environment()
        weakref.finalize(self, os.close, lease(folder))
        self._failed: dict[str, tuple[type[BadShard | Unavailable], str]] = {}

    @property
    def native(self) -> bool:
        """Returns whether ArrayRecord reads the shards in place."""
        return self.uri.startswith("gs://")

    def check_room(self, total: int) -> None:
        """Raises Unavailable if `total` bytes of shards do not fit in the cache together, as random access needs."""
        if not self.native and total > self._config.cache_gb * 1e9:
            raise Unavailable(
                f"{self.uri}: its shards take {total / 1e9:.2f} GB, and the cache {self._config.cache} may hold "
                f"{self._config.cache_gb:g} GB. Allow more with OVE_CACHE_GB, or copy a part of the set."
            )

    def read_in_place(self, file: str, read: Callable[[], R]) -> R:
        """Returns read() of a shard that ArrayRecord reads in place; Unavailable after the time limit or if it fails.

        Google's library would retry for a quarter of an hour. RuntimeError of a damaged shard passes through.
        """
        uri = join(self.uri, file)
        try:
            return with_timeout(read, uri, self._config.timeout_s)
        except RuntimeError as error:
            status = _STATUS.search(str(error))
            if status is None:
                raise
            raise explained(uri, OSError(_ERRNO.get(status[1], errno.EIO), str(error))) from error

    def place(self, shard: Shard) -> str:
        """Returns what ArrayRecord opens for a shard: its URI, or its copy as by `copy`."""
        return join(self.uri, shard.file) if self.native else str(self.copy(shard))

    def copy(self, shard: Shard) -> Path:
        """Returns the copy of a shard, fetched first if it is not there.

        Unavailable if it cannot be fetched, BadShard if it is not what was written; the same at once when asked again.
        """
        if shard.file in self._failed:
            kind, message = self._failed[shard.file]
            raise kind(message)  # a new one: an exception keeps alive what every raise of it has passed through
        path, uri = self._folder / shard.file, join(self.uri, shard.file)
        if not path.exists():
            try:
                keep(path, shard.bytes, lambda temporary: fetch(uri, temporary, self._config, _is(uri, shard)), self._config)
            except (BadShard, Unavailable) as error:
                self._failed[shard.file] = type(error), str(error)
                raise
        return path


def fetch(uri: str, target: Path, config: RemoteConfig, whole: Callable[[Path], bool] | None = None) -> None:
    """Downloads a file; tries up to `config.attempts` times if it breaks off or does not arrive `whole`."""
    for attempt in range(1, config.attempts + 1):
        # A name for each attempt: the thread of an abandoned one may still be writing.
        temporary = target.with_name(f"{target.name}.{threading.get_ident()}-{attempt}.tmp")
        try:
            download(uri, temporary, config)
            if whole is not None and not whole(temporary):
                raise BadShard(
                    f"{uri}: is not what was written there (its checksum is another one), in {attempt} attempts; "
                    "copy the folder to that place again, all of it."
                )
            temporary.replace(target)
            return
        except (BrokeOff, BadShard):
            if attempt == config.attempts:
                raise
            time.sleep(pause_s(attempt))
        finally:
            temporary.unlink(missing_ok=True)


def pause_s(attempt: int, draw: Callable[[], float] = random.random) -> float:
    """Returns how long to wait after failed attempt 1, 2, …: between half and all of a time that doubles, drawn by `draw`.

    Drawn without a seed, so that the processes of a job do not ask an overloaded server again all at once.
    """
    return min(_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S) * (0.5 + 0.5 * draw())


def _is(uri: str, shard: Shard) -> Callable[[Path], bool]:
    """Returns a check of a shard that has arrived; one that is too short raises BrokeOff."""

    def check(path: Path) -> bool:
        found = path.stat().st_size
        if found < shard.bytes:
            raise BrokeOff(f"{uri}: broke off after {found} of {shard.bytes} bytes; run the same command again.")
        return sha256_of(path) == shard.sha256

    return check


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
