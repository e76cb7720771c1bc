"""Whatever a user names as a file → a local file for the readers, and what messages call it."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from ove.api.arguments import expanded, path_given
from ove.config import RemoteConfig
from ove.errors import BadClip, BadInput
from ove.paths import uri_of
from ove.shards.remote.remote_shards import fetch

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""A path, the bytes of a file, a binary file object, or a URL."""

_CHUNK = 1 << 20
"""Bytes that are read at a time."""


@contextlib.contextmanager
def as_local_file(source: Source, called: str = "source") -> Iterator[tuple[Path, str]]:
    """Yields a local file with the contents of `source`, and its name; a copy, if one is needed, is deleted afterwards.

    URLs may be https://, s3://, gs:// or another scheme of fsspec; `~` is expanded. BadClip, with the name that the user gave,
    for what the body finds wrong in the file; BadInput for another type, under the name of the argument, `called`; Unavailable
    if a URL cannot be read.
    """
    given = path_given(source, called) if isinstance(source, (str, os.PathLike)) else None
    uri = None if given is None else uri_of(given)
    if given is not None and uri is None:
        path = expanded(given, called)
        yield path, str(path)
        return
    name, suffix = uri or "<bytes>", PurePosixPath(urlsplit(uri).path).suffix if uri else ""
    if not uri and not isinstance(source, (bytes, bytearray, memoryview)):
        name = f"<{getattr(source, 'name', type(source).__name__)}>"
    with tempfile.TemporaryDirectory(prefix="ove_") as folder:
        path = Path(folder) / f"input{suffix}"
        if uri:
            fetch(uri, path, RemoteConfig.from_environment())
        else:
            _copy(source, path, name, called)
        try:
            yield path, name
        except BadClip as error:
            raise BadClip(str(error).replace(str(path), name), error.position) from error


def _copy(source: Any, path: Path, name: str, called: str) -> None:
    if isinstance(source, (bytes, bytearray, memoryview)):
        path.write_bytes(source.tobytes() if isinstance(source, memoryview) else source)
        return
    if not callable(getattr(source, "read", None)):
        raise BadInput(
            f"{called}: an object of type {type(source).__name__} cannot be read as a file; give a path, bytes, a binary file "
            "object, a URL, or an array of uint8 pixels."
        )
    if isinstance(source, io.TextIOBase):
        raise BadInput(f"{called} = {name}: is opened as text; open it with mode 'rb'.")
    if getattr(source, "closed", False):
        raise BadInput(f"{called} = {name}: is a closed file; read it before it is closed, or give its path.")
    if isinstance(source, io.IOBase) and not source.readable():
        raise BadInput(f"{called} = {name}: is open for writing alone; open it with mode 'rb', or give its path.")
    with path.open("wb") as file:
        while data := source.read(_CHUNK):
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise BadInput(
                    f"{called} = {name}: its read() returns {type(data).__name__}, not bytes; give a binary file object."
                )
            file.write(data)
