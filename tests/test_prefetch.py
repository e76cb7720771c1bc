"""What threads make ahead comes in order and not too early; errors and early ends leave no thread and no work behind."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ove.prefetch import prefetch


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize(("threads", "depth"), [(1, 1), (1, 3), (3, 2), (4, 50)])
def test_results_come_in_order_whoever_is_done_first(threads: int, depth: int) -> None:
    def function(item: int) -> int:
        time.sleep(0.002 * (item * 7 % 5))
        return item * item

    assert list(prefetch(function, range(20), threads, depth)) == [item * item for item in range(20)]
    assert list(prefetch(function, [], threads, depth)) == [] and not _threads()


def test_no_more_than_depth_items_are_begun_beyond_the_last_one_taken() -> None:
    begun: list[int] = []
    with closing(prefetch(begun.append, range(100), 2, 3)) as results:
        assert begun == []
        for taken in range(1, 6):
            next(results)
            deadline = time.monotonic() + 60
            while len(begun) < taken + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert sorted(begun) == list(range(taken + 3))


def test_threads_work_while_the_caller_does() -> None:
    other = threading.Event()

    def function(item: int) -> int:
        if item == 1:
            other.set()
        return item

    with closing(prefetch(function, range(3), 1, 1)) as results:
        assert next(results) == 0 and other.wait(60)


def test_an_error_comes_in_its_place_and_cancels_what_has_not_begun() -> None:
    begun: list[int] = []

    def function(item: int) -> int:
        begun.append(item)
        if item == 2:
            raise ValueError("the third one")
        return item

    results = prefetch(function, range(1000), 1, 500)
    assert next(results) == 0 and next(results) == 1
    with pytest.raises(ValueError, match="the third one"):
        next(results)
    assert not _threads() and list(results) == []


def test_an_error_of_the_items_is_raised_too() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise KeyError("items")

    with pytest.raises(KeyError, match="items"):
        list(prefetch(str, items(), 1, 1))
    assert not _threads()


def test_who_stops_early_leaves_no_thread_and_waits_only_for_what_has_begun() -> None:
    begun: list[int] = []
    goes_on = threading.Event()

    def function(item: int) -> int:
        begun.append(item)
        if item:
            goes_on.wait(60)
        return item

    results = prefetch(function, range(1000), 1, 100)
    assert next(results) == 0
    threading.Timer(0.1, goes_on.set).start()
    results.close()
    assert begun in ([0], [0, 1]) and not _threads()
