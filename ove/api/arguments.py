"""What the front door is given: types checked by the signature, errors that name arguments instead of configuration keys."""

import difflib
import functools
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import numpy as np

from ove.config import EncoderConfig, ProbeConfig, SelectionConfig, ShardsConfig, VideoConfig
from ove.config.section import Bounds
from ove.errors import BadInput, ConfigError, OveError
from ove.paths import LONGEST_NAME, output_folder, uri_of

P = ParamSpec("P")
R = TypeVar("R")

_SECTIONS = {"video": VideoConfig, "shards": ShardsConfig, "selection": SelectionConfig, "probe": ProbeConfig,
             "encoder": EncoderConfig}  # fmt: skip
_UNKNOWN = re.compile(r"unknown configuration key ([\w.]+); did you mean ([\w.]+)\?|unknown configuration key ([\w.]+)")
_KEYS = re.compile(r"unexpected argument (\w+); known keys: (.*)", re.DOTALL)
_BREAK = re.compile(r"\s*\n\s*")
_WORDS: Mapping[Any, str] = {int: "an int", float: "a float", bool: "a bool", str: "a str", type(None): "None", Path: "a path",
                             os.PathLike: "a path"}  # fmt: skip


def arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function of the front door; checks its arguments by their hints, and words errors in their names.

    `names` say what the function calls a configuration key: `video__size_px="size"`. Keys of sections are arguments of the same
    name, those of `selection`, unless it is among `names`, items of the argument `selection`. Parameters of data, which have
    no default and may be many things, are checked by the function itself.
    """
    called = {key.replace("__", "."): name for key, name in names.items()}

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        signature, hints = inspect.signature(function), typing.get_type_hints(function, include_extras=True)
        options = {field.name: "=" for cls in _SECTIONS.values() for field in fields(cls)}
        options |= {name: "=True" if hints.get(name) is bool else "=" for name in signature.parameters}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__qualname__}: {error}") from None
            for name, parameter in signature.parameters.items():
                if name in bound.arguments and parameter.kind is parameter.KEYWORD_ONLY:
                    _check(hints[name], bound.arguments[name], name)
            try:
                return function(*bound.args, **bound.kwargs)
            except OveError as error:
                own = [name for name, parameter in signature.parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
                error.args = (_with_own(_in_arguments(str(error), called, options), own), *error.args[1:])
                raise

        return call

    return decorated


def path_given(value: Any, name: str, wanted: str = "a path") -> str:
    """Returns a path or URI as text; BadInput, naming the argument, for other types and names that no file can have."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise BadInput(f"{name} = {_short(value)} is of type {type(value).__name__}; give {wanted}.")
    text = os.fspath(value)
    if not text or "\0" in text:
        raise BadInput(f"{name} = {text!r:.60} {'holds a NUL character' if text else 'is empty'}; give {wanted}.")
    try:
        longest = max(map(len, os.fsencode(text).split(b"/")))
    except UnicodeEncodeError as error:
        raise BadInput(f"{name} = {text!r:.60} cannot be the name of a file ({error.reason}); give {wanted}.") from error
    if longest > LONGEST_NAME and uri_of(text) is None:
        raise BadInput(f"{name} = {_short(text)}: the name of a file has at most {LONGEST_NAME} bytes; give {wanted}.")
    return text


def local_path(value: Any, name: str, what: str) -> Path:
    """Returns a path on this machine with `~` expanded, which may be looked at.

    ConfigError for a URI, which says `what` is done here only, BadInput for a path that the system refuses.
    """
    text = path_given(value, name)
    if uri := uri_of(text):
        raise ConfigError(f"{name} = {uri}: {what} on this machine only; give a local path, and copy the folder.")
    path = expanded(text, name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise BadInput(f"{name} = {text:.200}: cannot be used ({error.strerror}); give another path.") from error
    return path


def expanded(text: str | Path, name: str) -> Path:
    """Returns a path with `~` expanded; BadInput, naming the argument, for a user who has no home."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise BadInput(f"{name} = {text}: there is no such home directory; write the whole path.") from error


def folder_to_write(value: Any, name: str, sources: Sequence[Path] = ()) -> Path:
    """Returns a folder that exists and can be written to, made if need be; BadInput for no path, else as `output_folder`."""
    path = output_folder(path_given(value, name), f"{name} =", sources)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{name} = {path}: the folder cannot be made ({error.strerror}); give another.") from error
    return path


def refuse(given: Mapping[str, Any], takes: str, found: str) -> None:
    """Raises ConfigError for the first option that is given (not None), which only `takes` needs, where `found` is the case."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} = {_short(value)} is for {takes}, but {found}; leave {name} out.")


def _check(hint: Any, value: Any, name: str) -> None:
    """Raises ConfigError, naming the argument, for a value that the hint does not allow."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    choices = parts if origin in (typing.Union, types.UnionType) else (hint,)
    fitting = next((one for one in choices if _fits(one, value)), None)
    if fitting is None:
        words = [word for one in choices for word in _words(one)]
        if isinstance(value, str) and any(_plain(one) is Literal for one in choices):
            raise ConfigError(f"{name} = {_short(value)} is none of {', '.join(word for word in words if word != 'None')}.")
        raise ConfigError(
            f"{name} = {_short(value)} is of type {type(value).__name__}; give {' or '.join(dict.fromkeys(words))}."
        )
    for bounds in typing.get_args(fitting)[1:] if typing.get_origin(fitting) is Annotated else ():
        if isinstance(bounds, Bounds) and not bounds.hold(value):
            raise ConfigError(f"{name} = {value!r} must be {bounds}.")
    if value != "" and os.PathLike in map(_plain, choices) and isinstance(value, (str, os.PathLike)):
        path_given(value, name)


def _fits(hint: Any, value: Any) -> bool:
    plain, parts = _plain(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if typing.get_origin(hint) is Annotated:
        return _fits(parts[0], value)
    if plain is Literal:
        return any(type(value) is type(one) and value == one for one in parts)
    if plain in (int, float):
        return isinstance(value, Integral if plain is int else Real) and not isinstance(value, (bool, np.bool_))
    if isinstance(value, (str, bytes, bytearray)) and plain is not str:
        return False
    return callable(value) if plain is Callable else isinstance(value, plain)


def _plain(hint: Any) -> Any:
    return typing.get_origin(hint) or hint


def _words(hint: Any) -> list[str]:
    plain, parts = _plain(hint), typing.get_args(hint)
    if plain is Literal:
        return [str(one) for one in parts]
    if plain is Annotated:
        return _words(parts[0])
    return [_WORDS.get(plain, f"a {getattr(plain, '__name__', plain)}".lower())]


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def _in_arguments(message: str, called: Mapping[str, str], options: Mapping[str, str]) -> str:
    """Rewords a message outside of its backticks: keys of sections and options of commands become arguments."""
    parts = message.split("`")
    parts[::2] = [_reworded(part, called, options) for part in parts[::2]]
    return _BREAK.sub(" ", "`".join(parts))


def _with_own(message: str, own: Sequence[str]) -> str:
    """Adds a function's own arguments to a message about a key that no section has: the nearest one, else all."""
    match = _KEYS.match(message)
    if match is None:
        return message
    near = difflib.get_close_matches(match[1], own, 1)
    return f"unexpected argument {match[1]}; " + (
        f"did you mean {near[0]}?" if near else f"known: {', '.join(own)}, {match[2]}"
    )


def _reworded(text: str, called: Mapping[str, str], options: Mapping[str, str]) -> str:
    def argument(match: re.Match[str]) -> str:
        return _argument(match[0], called)

    known = [*called, *(f"{section}.{field.name}" for section, cls in _SECTIONS.items() for field in fields(cls))]
    known += [f"{outer}.selection.{field.name}" for outer in ("video", "probe") for field in fields(SelectionConfig)]
    keys = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    text = _UNKNOWN.sub(lambda match: _unexpected(match, called), text)
    text = re.sub(rf"(?<![\w./…])(?:{keys})(?![\w/]|\.\w)", argument, text)
    flag = "|".join(name.replace("_", "-") for name in options)
    return re.sub(rf"(?<![\w-])--({flag})(?![\w-])", lambda match: _given_as(match[1].replace("-", "_"), options), text)


def _unexpected(match: re.Match[str], called: Mapping[str, str]) -> str:
    if match[2]:
        return f"unexpected argument {_argument(match[1], called)}; did you mean {_argument(match[2], called)}?"
    return f"unexpected argument {_argument(match[3], called)}"


def _argument(key: str, called: Mapping[str, str]) -> str:
    if key in called:
        return called[key]
    item = key.rpartition("selection.")[2]
    if item != key and "selection" not in called:
        return f'selection["{item}"]'
    return key.split(".")[-1]


def _given_as(name: str, options: Mapping[str, str]) -> str:
    return name + options[name]
