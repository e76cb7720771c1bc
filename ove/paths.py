"""The border for paths: names that come from outside, addresses of other machines, and what commands write."""

import json
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from ove.errors import BadClip, ConfigError, OveError

_URI = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/(/?)([^/].*|/.*)", re.DOTALL)
LONGEST_NAME = 255
"""Bytes of a file's name, on all usual file systems."""
_LONGEST_PATH = 1024
_NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, bytes that are not UTF-8, ends of lines and paragraphs."""


def uri_of(folder: Path | str) -> str | None:
    """Returns the URI given as a folder, None for a local one; `Path("s3://a/b")`, which merges slashes, counts as s3://a/b."""
    match = _URI.fullmatch(str(folder))
    if match is None or match[1] == "file" or (not match[2] and os.path.exists(folder)):
        return None
    return f"{match[1]}://{match[3].lstrip('/')}"


def not_found(path: Path | str, remedy: str = "no such file; check the path") -> str:
    """Returns the sentence for an input that does not exist: of an address, that inputs are read from this machine only."""
    if uri := uri_of(path):
        return f"{uri}: is an address, and inputs are read from this machine only; copy it here and give the copy."
    return f"{path}: {remedy}."


def check_input(path: Path, noun: str) -> None:
    """Raises BadClip unless a path is a regular, non-empty file; `noun`: what it should be. To open a pipe could block."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise BadClip(not_found(path)) from error
    except (OSError, ValueError) as error:
        raise BadClip(f"{path}: cannot be opened ({getattr(error, 'strerror', None) or error}); check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        if not os.access(path, os.R_OK | os.X_OK):
            raise BadClip(f"{path}: is a folder that cannot be read; check its permissions.")
        raise BadClip(f"{path}: is a folder, not {noun}; name the files in it.")
    if not stat.S_ISREG(status.st_mode):
        raise BadClip(f"{path}: is not a regular file but a pipe or a device; copy it to a file first.")
    if status.st_size == 0:
        raise BadClip(f"{path}: is empty (0 bytes); get a whole copy.")


def inside(folder: Path, name: object, source: Path | str, error: type[OveError], nested: bool = False) -> Path:
    """Returns `folder / name` for a name read from a file or the network; raises `error`, naming `source`, if it is harmful.

    Allowed is the visible name of a file in the folder itself or, with `nested`, in a folder below it. Links in the folder are
    followed: whoever owns the folder has made them.
    """
    if problem := _problem_of(name, nested):
        shown = ascii(name)
        raise error(
            f"{source}: names the file {shown[:80]}{'…' if len(shown) > 80 else ''}, which {problem}; it is not used. Get the "
            "data from a place that you trust, or correct the name."
        )
    return folder / str(name)


def _problem_of(name: object, nested: bool) -> str:
    """Returns why a name from outside may not be used; empty if it may."""
    if not isinstance(name, str) or not name:
        return "is no name"
    if harmless(name) != name:
        return "has characters that are not allowed in it"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "leads out of its folder"
    if len(parts) > 1 and not nested:
        return "lies in another folder"
    if any(part.startswith(".") for part in parts):
        return "is hidden"
    if any(len(part.encode()) > LONGEST_NAME for part in parts) or len(name) > _LONGEST_PATH:
        return "is too long"
    return ""


def harmless(name: str) -> str:
    """Returns a name with `_` for control characters, ends of lines, bytes that are not UTF-8, and backslashes."""
    return "".join("_" if letter == "\\" or unicodedata.category(letter) in _NOT_IN_NAMES else letter for letter in name)


def output_folder(given: Path | str, option: str, sources: Iterable[Path | str] = ()) -> Path:
    """Returns a folder to write to, `~` expanded; it need not exist.

    `option` is what the user calls it ("--out"), `sources` what is read. ConfigError for a URI, a file, a place that cannot be
    written, and for one of the sources or a folder below one, whose files would be read by the next run.
    """
    path = _output(given, option, sources)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise ConfigError(f"{option} {path}: is a file, and a folder is needed; give another name.")
    return path


def output_file(
    given: Path | str,
    option: str,
    sources: Iterable[Path | str] = (),
    is_ours: Callable[[Path], bool] = lambda path: False,
    replace: bool | None = False,
) -> Path:
    """Returns a file to write, `~` expanded; its folder need not exist.

    ConfigError as in `output_folder`, for a folder, and, unless `replace`, for a file that exists and is not what the same
    command has written (`is_ours`). `replace` is None where overwriting cannot be asked for.
    """
    path = _output(given, option, sources)
    if os.path.isdir(path):
        raise ConfigError(f"{option} {path}: is a folder, and a file is needed; give a name in it.")
    if os.path.lexists(path) and not replace and not is_ours(path):
        raise exists_already(path, option, replaceable=replace is not None)
    return path


def check_names(folder: Path, names: Iterable[str], option: str, ours: bool, replace: bool | None = None) -> None:
    """Raises ConfigError for the first of the files to be written into `folder` that exists, unless they are `ours`.

    `replace`: whether overwriting was asked for; None where that is not offered.
    """
    for name in () if ours or replace else names:
        if os.path.lexists(folder / name):
            raise exists_already(folder / name, option, replaceable=replace is not None)


def exists_already(path: Path, option: str, replaceable: bool = True) -> ConfigError:
    """Returns the error for a file that is there and that this command did not write."""
    return ConfigError(
        f"{option} {path}: exists, and is not known to have been written by this command; give another place"
        + (", or --replace to overwrite it." if replaceable else ".")
    )


def holds_keys(path: Path, *keys: str) -> bool:
    """Returns whether a file is a JSON object with these keys, by which a command knows what it has written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and set(keys) <= found.keys()


def begins_with(path: Path, text: str) -> bool:
    """Returns whether a file begins with this text, such as the names of its columns."""
    try:
        with path.open("rb") as file:
            return file.read(len(text.encode())) == text.encode()
    except OSError:
        return False


def _output(given: Path | str, option: str, sources: Iterable[Path | str]) -> Path:
    text = re.sub(r"^file:/+", "/", os.fspath(given))
    if uri := uri_of(text):
        raise ConfigError(f"{option} {uri}: results are written on this machine only; give a local path, and copy them there.")
    if "\0" in text or any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(text).parts):
        raise ConfigError(f"{option} {ascii(text)[:80]}: cannot be the name of a file; names have up to {LONGEST_NAME} bytes.")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{option} {text}: has no such home directory ({error}); write the whole path.") from error
    _check_writable(path, option)
    for source in sources:
        _check_outside(path, option, source)
    return path


def _check_writable(path: Path, option: str) -> None:
    """Raises ConfigError unless `path`, or the nearest folder above it that exists, may be written."""
    nearest = path if os.path.lexists(path) else path.parent
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if nearest != path and not os.path.isdir(nearest):
        raise ConfigError(f"{option} {path}: {nearest} is not a folder; give a path below a folder.")
    if not os.access(nearest, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise ConfigError(f"{option} {path}: {nearest} may not be written to; give another place, or get the permission.")


def _check_outside(path: Path, option: str, source: Path | str) -> None:
    if uri_of(source) or not os.path.exists(source):
        return
    to, of = Path(os.path.realpath(path)), Path(os.path.realpath(source))
    if to == of or (os.path.exists(to) and os.path.samefile(to, of)):
        raise ConfigError(f"{option} {path}: is the source itself, which is never written to; give another place.")
    if os.path.isdir(of) and to.is_relative_to(of):
        raise ConfigError(
            f"{option} {path}: lies within the source {source}, so the next run would read what this one writes; give a place "
            "outside of it."
        )
