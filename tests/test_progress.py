"""A line now and then: what is done, how fast, how long the rest takes; no line for what is done at once."""

import time

import pytest

from launch.cli.progress_line import shown
from ove.progress import ProgressReport, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_count_from_what_was_done_at_the_beginning(clock: list[float]) -> None:
    lines: list[tuple[str, bool]] = []
    progress = ProgressReport(lambda line, is_last: lines.append((line, is_last)), "files")
    progress("read", 1000, 5000)  # by an earlier run
    for done, seconds in ((1010, 9), (1020, 1), (1030, 9), (1040, 1), (5000, 20)):
        clock[0] += seconds
        progress("read", done, 5000, "2 set aside")
    assert lines == [
        ("read 1,020/5,000 files, 2 set aside, 2/s, 33m10s left", False),
        ("read 1,040/5,000 files, 2 set aside, 2/s, 33m00s left", False),
    ]


def test_what_comes_before_the_start_says_nothing_of_the_rest(clock: list[float]) -> None:
    """30 s of compiling and 8 files, then 2 s a file."""
    lines: list[str] = []
    progress = ProgressReport(lambda line, is_last: lines.append(line), "files", every_s=1.0)
    progress("", 0, 20)
    progress.wait()
    clock[0] += 30
    for done in range(1, 9):
        progress("", done, 20)
    progress.restart()
    for done in range(9, 21):
        clock[0] += 2
        progress("", done, 20)
    assert (
        lines[0] == "1/20 files"
        and lines[1] == "9/20 files, 0.5/s, 0m22s left"
        and lines[6] == "14/20 files, 0.5/s, 0m12s left"
    )


def test_another_kind_of_work_begins_anew(clock: list[float]) -> None:
    lines: list[str] = []
    progress = ProgressReport(lambda line, is_last: lines.append(line))
    for what in ("read", "written"):
        progress.of(what)(0, 30)
        clock[0] += 10
        progress.of(what)(10, 30)
    progress.of("written")(5, 30)  # the same once more
    clock[0] += 10
    progress.of("written")(15, 30)
    assert lines == ["read 10/30, 1/s, 0m20s left", "written 10/30, 1/s, 0m20s left", "written 15/30, 1/s, 0m15s left"]


def test_commands_print_the_last_line_whatever_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    progress = shown("files")
    for done in range(4):
        progress("", done, 3)
    assert capsys.readouterr().out == "3/3 files\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0m00s"), (59.6, "1m00s"), (61.6, "1m02s"), (3599.0, "59m59s"), (3725.0, "1h02m"), (3.6e5, "100h00m")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
