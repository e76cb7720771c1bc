"""What a run says of itself: lines after the place of resumption are cut, times are those of the device."""

import errno
import json
import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ove.train.monitor.metrics import Averages, MetricsLog, progress_line
from ove.train.monitor.speed import Clock


def steps_in(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_log_is_cut_where_the_run_goes_on(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": 1.0 / step, "order": 7})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # cut off by a crash
    log = MetricsLog(tmp_path, 2)
    assert steps_in(tmp_path) == [1, 2]
    log.write(3, {"loss": 0.3})
    log.close()
    assert steps_in(tmp_path) == [1, 2, 3]
    MetricsLog(tmp_path, 0).close()
    assert steps_in(tmp_path) == []
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_the_progress_line_says_where_how_well_how_fast_and_how_long() -> None:
    values = {"loss": 3.0, "loss/vid": 1.0, "loss/obj": 2.0, "step_ms": 120.4, "samples_per_s": 66.6, "data_wait": 0.125}
    assert progress_line(20, 300, values, 3725.0) == (
        "step 20/300  loss 3.0000 (vid 1.0000  obj 2.0000)  120 ms/step  66.6 samples/s  data wait 12%  1h02m left"
    )
    assert progress_line(299, 300, values, 61.6).endswith("1m02s left")
    assert "left" not in progress_line(1, 300, values, None)


def test_what_is_known_of_speed_work_and_memory_stands_in_the_line() -> None:
    values = {"loss": 3.0, "loss/vid": 1.0, "step_ms": 120.0, "samples_per_s": 66.6, "data_wait": 0.0, "skipped": 2.0}
    values |= {"tokens_per_s": 136396.8, "mfu": 0.4123, "host_share": 0.0123, "device_memory_peak_gib": 61.04}
    assert progress_line(20, 300, values, 60.0) == (
        "step 20/300  loss 3.0000 (vid 1.0000)  120 ms/step  66.6 samples/s  136,397 tokens/s  MFU 41.2%  data wait 0%  "
        "host 1.2%  61.0 GiB  2 skipped  1m00s left"
    )


def test_steps_between_two_lines_are_averaged_counted_or_the_last_of_them() -> None:
    averages = Averages()
    nan = float("nan")
    for loss, logit, rate, skipped, ever in ((1.0, nan, 0.1, 0.0, 3.0), (3.0, 2.0, 0.2, 1.0, 5.0), (5.0, 4.0, 0.3, 1.0, 6.0)):
        names = ("loss/vid", "positive_logit/vid", "lr", "skipped", "ever_positive/vid")
        averages.add(dict(zip(names, (loss, logit, rate, skipped, ever), strict=True)))
    taken = averages.take()
    assert taken == {"loss/vid": 3.0, "positive_logit/vid": 3.0, "lr": 0.3, "skipped": 2.0, "ever_positive/vid": 6.0}
    averages.add({"positive_logit/vid": nan, "lr_bank/vid": 0.5, "positive_overflow/vid": 4.0, "collapse/vid": 1.0})
    taken = averages.take()
    assert math.isnan(taken.pop("positive_logit/vid"))
    assert taken == {"lr_bank/vid": 0.5, "positive_overflow/vid": 4.0, "collapse/vid": 1.0}
    assert averages.take() == {}


def test_a_line_is_json_whatever_the_numbers(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": float("nan"), "norm": float("inf"), "order": 7, "lr": 0.5})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "loss": None, "norm": None, "order": 7, "lr": 0.5}


class Pretended:
    """A host and a device in a time that passes only as told, so that a busy machine changes nothing.

    The device finishes one thing after the other; a result holds when it will be finished, in seconds since the beginning.
    """

    def __init__(self) -> None:
        self.now_s = self.worked_s = self.busy_until_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def dispatch(self, seconds: float) -> jax.Array:
        result = jnp.float32(max(self.busy_until_s, self.now_s) + seconds)
        self.busy_until_s = float(result)
        return result

    def finish(self, result: jax.Array) -> None:
        self.now_s = max(self.now_s, float(result))

    # What the clock sees of the module time, and of the thread that waits for results.
    def perf_counter(self) -> float:
        return self.now_s

    def thread_time(self) -> float:
        return self.worked_s

    def submit(self, finished_at: object, result: jax.Array) -> SimpleNamespace:
        return SimpleNamespace(done=lambda: self.now_s >= float(result), result=lambda: float(result))

    def shutdown(self, wait: bool) -> None:
        assert not wait


def run_steps(monkeypatch: pytest.MonkeyPatch, device_s: float, data_s: float, n: int, host_s: float = 0.0) -> dict[str, float]:
    """n steps, dispatched one ahead as the loop does it; the host is at work for `host_s` after each."""
    time = Pretended()
    monkeypatch.setattr("ove.train.monitor.speed.time", time)
    monkeypatch.setattr("ove.train.monitor.speed.ThreadPoolExecutor", lambda *_, **__: time)
    clock = Clock()
    results: list[jax.Array] = []
    clock.restart()
    for _ in range(n):
        clock.batch_asked()
        time.sleep(data_s)
        clock.batch_there()
        with clock.dispatching():
            results.append(time.dispatch(device_s))
        clock.dispatched(results[-1])
        for result in results[-2:-1]:
            with clock.waiting():
                time.finish(result)
            clock.step_done()
        time.sleep(host_s)
    with clock.waiting():
        time.finish(results[-1])
    clock.step_done()
    values = clock.lap(10)
    clock.close()
    return values


def test_reading_while_the_device_works_is_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    values = run_steps(monkeypatch, device_s=0.1, data_s=0.02, n=4)
    assert values["data_wait"] < 0.1 and values["host_wait"] < 0.1
    assert values["host_share"] < 0.15
    assert values["step_ms"] == pytest.approx(105, rel=0.3)
    assert values["samples_per_s"] == pytest.approx(1e4 / values["step_ms"])


def test_waiting_counts_from_when_the_device_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    values = run_steps(monkeypatch, device_s=0.03, data_s=0.1, n=6)
    # Of the 100 ms that each batch takes the device works 30; the first wait is before any work, the last work after any wait.
    assert values["data_wait"] == pytest.approx(5 * 70 / (6 * 100 + 30), abs=0.1)
    assert values["host_wait"] < 0.1


def test_what_the_host_does_while_the_device_works_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = run_steps(monkeypatch, device_s=0.1, data_s=0.0, n=4, host_s=0.08)
    assert values["host_wait"] < 0.1
    assert values["host_share"] == pytest.approx(4 * 80 / (4 * 100), abs=0.15)


def test_what_the_host_does_while_the_device_waits_delays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values = run_steps(monkeypatch, device_s=0.03, data_s=0.02, n=6, host_s=0.1)
    # Each step is done 30 ms after it was given, and the host is busy for another 70; then a batch is waited for, but for one.
    assert values["host_wait"] == pytest.approx(6 * 70 / (6 * 120), abs=0.1)
    assert values["data_wait"] == pytest.approx(5 * 20 / (6 * 120), abs=0.05)
    assert values["host_share"] == pytest.approx(6 * 100 / (6 * 120), abs=0.1)


def test_a_disk_that_is_full_is_named_by_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(self: EventsWriter) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = MetricsLog(tmp_path, 0)
    log.write(1, {"loss": 0.5})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space") as caught:
        patch.setattr(EventsWriter, "flush", full)
        log.write(2, {"loss": 0.5})
    assert caught.value.filename == str(tmp_path / "tensorboard")
    log.path = Path("/dev/full")
    with pytest.raises(OSError, match="No space") as caught:
        log.write(3, {"loss": 0.5})
    assert caught.value.filename == "/dev/full"
    log.close()


def test_the_numbers_are_events_and_a_new_start_hides_those_after_it(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 4)
    log.write(5, {"loss/vid": 0.5, "norm": float("nan"), "order": 7})
    log.close()
    (file,) = (tmp_path / "tensorboard").glob("events.*")
    found = [Event.FromString(record) for record in records(file.read_bytes())]
    assert [event.step for event in found] == [0, 5, 5]
    assert found[1].session_log.status == SessionLog.START
    assert [(value.tag, value.simple_value) for value in found[2].summary.value] == [("loss/vid", 0.5)]


def records(framed: bytes) -> list[bytes]:
    """Of a TFRecord file: length (8 bytes), checksum (4), record, checksum (4)."""
    found = []
    while framed:
        end = 12 + int.from_bytes(framed[:8], "little")
        found.append(framed[12:end])
        framed = framed[end + 4 :]
    return found
