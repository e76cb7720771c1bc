"""Work done ahead by threads, in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetch(function: Callable[[T], R], items: Iterable[T], threads: int, depth: int) -> Generator[R, None, None]:
    """Yields function(item) of each item in order, made by `threads` threads up to `depth` items ahead.

    An error of `function` or `items` is raised in its place. Then, or when the generator is closed early, pending calls are
    cancelled and running ones waited for: no thread is left.
    """
    rest, pending = iter(items), deque[Future[R]]()
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as pool:
        try:
            pending.extend(pool.submit(function, item) for item in islice(rest, depth))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
