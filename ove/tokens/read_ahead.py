"""Files read ahead of whoever takes them, in order; unusable ones are set aside."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from ove.errors import BadClip, OveError
from ove.prefetch import prefetch
from ove.workers import Crew, Died

_log = logging.getLogger(__name__)
_File = TypeVar("_File")
_T = TypeVar("_T")


def read_ahead(
    files: Sequence[_File],
    read: Callable[[_File], _T],
    workers: int,
    set_aside: Callable[[_File, str], None],
    name_of: Callable[[_File], str] = str,
    limit_s: float | None = None,
) -> Iterator[tuple[_File, _T]]:
    """Yields each file with what `read` returns, in order; `workers` of them are read at a time, a few ahead.

    Calls `set_aside(file, reason)` for unreadable files and skips them. `name_of`: what a file is called in the log. With
    `limit_s` each is read in a process of its own (`ove.workers.Crew`), which ends there; `read` and `name_of` must then be
    picklable. Without, in threads of this process, which nothing ends.
    """
    tried = partial(_tried, read, name_of)
    call: Callable[[_File], _T | str | Died] = tried
    with contextlib.ExitStack() as stack:
        ahead = prefetch(lambda file: (file, call(file)), files, workers, 2 * workers)
        results = stack.enter_context(contextlib.closing(ahead))
        if limit_s is not None:  # closed before the threads that wait for it
            call = stack.enter_context(Crew(tried, workers, limit_s))
        for file, result in results:
            if isinstance(result, Died):
                set_aside(file, f"{name_of(file)}: {result}; leave it out, or convert it.")
            elif isinstance(result, str):
                set_aside(file, result)
            else:
                yield file, result


def _tried(read: Callable[[_File], _T], name_of: Callable[[_File], str], file: _File) -> _T | str:
    """Reads a file, or returns why it cannot be used."""
    try:
        return read(file)
    except BadClip as error:
        return str(error)
    except OveError:
        raise  # of the settings, not of the file
    except Exception as error:  # the border where a bad file is set aside, whatever the decoder raises
        _log.info("%s: unexpected error", name_of(file), exc_info=True)
        return f"{name_of(file)}: cannot be used ({type(error).__name__}: {error})."
