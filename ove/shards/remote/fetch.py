"""A remote file → a local one, within a time limit, with errors that say what is wrong with the address."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs

from ove.config import RemoteConfig
from ove.errors import Unavailable

R = TypeVar("R")

_SLOWEST = 1000
"""Bytes a second, below which a transfer counts as stalled."""
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "hf": "huggingface_hub",
    "hdfs": "pyarrow",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "oss": "ossfs",
}
"""The package to install for a protocol."""


class NotThere(Unavailable):
    """The server answered, and has no such file."""


class BrokeOff(Unavailable):
    """The transfer ended early or stalled; another attempt may succeed."""


def download(uri: str, target: Path, config: RemoteConfig) -> None:
    """Copies a remote file to `target` in one attempt.

    NotThere if it does not exist, BrokeOff if another attempt may succeed, Unavailable otherwise (protocol, package,
    permission).
    """
    callback = Callback()

    def get() -> None:
        system, path = url_to_fs(uri, **_options(uri, config))
        system.get_file(path, str(target), callback=callback)

    try:
        with_timeout(get, uri, config.timeout_s, lambda: callback.value)
    except Unavailable:
        raise
    except Exception as error:  # each file system raises its own; none is swallowed
        raise explained(uri, error) from error
    if not target.is_file():
        raise NotThere(f"{uri}: is a folder, and a file is needed; check the address.")


def with_timeout(function: Callable[[], R], uri: str, limit_s: float, progress: Callable[[], int] = lambda: 0) -> R:
    """Returns function(); BrokeOff once it has made less than 1 kB/s of `progress` (bytes) over `limit_s` seconds.

    It runs in its own thread, which is abandoned then: the limits of libraries are not relied on.
    """
    future: Future[R] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, Exception):
                raise

    threading.Thread(target=work, name=f"fetch {uri}", daemon=True).start()
    before = progress()
    while True:
        try:
            return future.result(limit_s)
        except TimeoutError:
            if future.done():
                raise  # the function's own
            now = progress()
            if now - before < _SLOWEST * limit_s:
                raise BrokeOff(
                    f"{uri}: timed out: {now - before} bytes came in {limit_s:g} s; check the network and the server, or allow "
                    "more time with OVE_TIMEOUT_S."
                ) from None
            before = now


def explained(uri: str, error: Exception) -> Unavailable:
    """Returns an exception of a file system in terms of the address."""
    protocol = uri.partition("://")[0]
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return NotThere(f"{uri}: is not there; check the address.")
    if isinstance(error, PermissionError) or status in (401, 403):
        return Unavailable(f"{uri}: may not be read ({_brief(error)}); give credentials for {protocol}:// (docs/remote.md).")
    if isinstance(error, ImportError):
        package = _PACKAGES.get(protocol)
        remedy = f"run `pip install {package}`" if package else "install it"
        return Unavailable(f"{uri}: the package for {protocol}:// is missing ({_brief(error)}); {remedy} and try again.")
    if isinstance(error, ValueError) and "rotocol" in str(error):
        return Unavailable(f"{uri}: no package knows {protocol}://; give s3://, gs://, https://, hf:// or another of fsspec's.")
    if isinstance(error, IsADirectoryError):
        return NotThere(f"{uri}: is a folder, and a file is needed; check the address.")
    return BrokeOff(f"{uri}: could not be fetched ({_brief(error)}); check the network and run the same command again.")


def _brief(error: Exception) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}"[:300] if said else type(error).__name__


def _options(uri: str, config: RemoteConfig) -> dict[str, Any]:
    """Returns the options that keep a file system's own limits from coming before ours."""
    if uri.startswith(("http://", "https://")):
        # aiohttp's default ends any transfer after five minutes; twice our limit still ends an abandoned thread.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=2 * config.timeout_s, sock_read=2 * config.timeout_s)
        return {"client_kwargs": {"timeout": limits}}
    return {}
