"""Checks and logs the metrics of a run: metrics.jsonl, TensorBoard events, a progress line, the table of parameters."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ove.config import RunConfig
from ove.files import append_json_line, naming, reopen_json_lines
from ove.progress import duration
from ove.records import Batch
from ove.train.feed import DeviceBatch
from ove.train.init import TrainState
from ove.train.monitor.guards import Alarms, KeyOf, check_step
from ove.train.monitor.speed import Clock, Workload, memory_gib, peak_flops, rates, workload

_TOTALS = ("skipped", "spike", "positive_overflow")
"""Metrics (without the bank's name) of which the sum over the steps of a line is logged."""
_NEWEST = ("lr", "lr_bank", "ever_positive", "collapse")
"""Metrics of which that of the last step is logged. Of all others it is the mean."""


class Averages:
    """Averages the metrics of the steps since the last logged line."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._others: dict[str, float] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Adds the metrics of one step; NaN (nothing to measure in this step) is left out of the mean."""
        for name, value in values.items():
            what = name.partition("/")[0]
            if what in _TOTALS:
                self._others[name] = self._others.get(name, 0.0) + value
            elif what in _NEWEST:
                self._others[name] = value
            else:
                known = not math.isnan(value)
                self._sums[name] = self._sums.get(name, 0.0) + (value if known else 0.0)
                self._counts[name] = self._counts.get(name, 0) + known

    def take(self) -> dict[str, float]:
        """Returns the averages (NaN if nothing was counted) and resets."""
        means = {name: total / self._counts[name] if self._counts[name] else math.nan for name, total in self._sums.items()}
        values = means | self._others
        self._sums, self._counts, self._others = {}, {}, {}
        return values


class MetricsLog:
    """Writes `metrics.jsonl` and TensorBoard events; on resume, lines after the restored step are cut off."""

    def __init__(self, folder: Path, step: int) -> None:
        """`step`: the last one done, 0 for a new run."""
        self.path = folder / "metrics.jsonl"
        reopen_json_lines(self.path, lambda entry: entry.get("step", math.inf) <= step)
        self._board = folder / "tensorboard"
        self._board.mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: its thread dies of a full disk without a word, and then the next line waits for it for ever.
        self._events = EventsWriter(str(self._board / "events"))
        if step:
            self._events.write_event(
                Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
            )

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Appends one line, with null for numbers that are not finite; the finite ones also go to the events."""
        line = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
        }
        append_json_line(self.path, {"step": step, **line})
        numbers = {name: value for name, value in values.items() if isinstance(value, float) and math.isfinite(value)}
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])
        with naming(self._board):
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._events.flush()

    def close(self) -> None:
        """Closes the events file."""
        with naming(self._board):
            self._events.close()


def progress_line(step: int, steps: int, values: Mapping[str, Any], seconds_left: float | None) -> str:
    """Returns a progress line: step, loss of each bank, speed, share of time spent waiting for data, time left.

    The last is left out if it is None, not known yet.
    Tokens per second, model FLOPs utilisation, the host's share, peak device memory and skipped steps are shown if `values`
    has them.
    """
    losses = "  ".join(f"{k.removeprefix('loss/')} {v:.4f}" for k, v in values.items() if k.startswith("loss/"))
    parts = [
        f"step {step}/{steps}",
        f"loss {values['loss']:.4f} ({losses})",
        f"{values['step_ms']:.0f} ms/step",
        f"{values['samples_per_s']:.1f} samples/s",
    ]
    if "tokens_per_s" in values:
        parts.append(f"{values['tokens_per_s']:,.0f} tokens/s")
    if "mfu" in values:
        parts.append(f"MFU {values['mfu']:.1%}")
    parts.append(f"data wait {values['data_wait']:.0%}")
    if "host_share" in values:
        parts.append(f"host {values['host_share']:.1%}")
    if "device_memory_peak_gib" in values:
        parts.append(f"{values['device_memory_peak_gib']:.1f} GiB")
    if values.get("skipped"):
        parts.append(f"{values['skipped']:.0f} skipped")
    if seconds_left is not None:
        parts.append(f"{duration(seconds_left)} left")
    return "  ".join(parts)


class StepMonitor:
    """Checks the metrics of every finished step of a run; averages, logs and reports them where a line is due."""

    def __init__(
        self,
        config: RunConfig,
        workdir: Path,
        mesh: Mesh,
        n_centers: Mapping[str, int],
        key_of: KeyOf,
        clock: Clock,
        log: MetricsLog | None,
        start: int,
        report: Callable[[str], None],
    ) -> None:
        """`key_of` names the samples of a bad batch; `start`: steps done before; `report` gets alarms and progress."""
        self._config, self._workdir, self._n_centers, self._key_of = config, workdir, n_centers, key_of
        self._clock, self._log, self._start, self._report = clock, log, start, report
        self._n_devices, self._began = mesh.size, 0.0
        self._peak = peak_flops(mesh.devices.flat[0].device_kind, config.encoder.compute, config.train.peak_tflops)
        self._alarms, self._averages = Alarms(config), Averages()
        self._work: Workload | None = None

    def finish(self, step: int, values: dict[str, float], batch: DeviceBatch, is_saved: bool) -> None:
        """Checks the metrics of a finished step (errors as in `check`); writes a line if it is due, or the step is saved."""
        self.check(step, values, batch.batches)
        self._clock.step_done()
        if step == self._start + 1:  # it takes longer than the others, so the pace is theirs
            self._began = time.perf_counter()
        # On resume the log is cut at the saved step, so a line must end there.
        if step % self._config.train.log_every and not is_saved and step > 1:
            return
        values = self._summary()
        if self._log:
            self._log.write(step, values | {"order": batch.progress.order, "bad_records": batch.progress.replaced})
        steps, timed = self._config.train.steps, step - self._start - 1
        seconds_left = (steps - step) * (time.perf_counter() - self._began) / timed if timed else None
        self._report(progress_line(step, steps, values, seconds_left))

    def check(self, step: int, values: dict[str, float], batches: Mapping[str, Batch]) -> None:
        """Checks the metrics of a finished step; TrainingStopped if they end the run (`ove.train.monitor.guards`)."""
        if self._work is None:
            tokens_of = {bank: batch.positions.shape[1] for bank, batch in batches.items()}
            self._work = workload(self._config, self._n_centers, tokens_of)
        for sentence in check_step(self._config.train, step, values, batches, self._workdir, self._key_of):
            self._report(sentence)
        for alarm in self._alarms.check(step, values):
            self._report(alarm)
        self._averages.add(values)

    def _summary(self) -> dict[str, float]:
        """Returns the values to log of the steps since the last summary, at least one."""
        assert self._work is not None, "check() comes first"
        lap = self._clock.lap(self._work.samples)
        speed = rates(self._work, lap["step_ms"], self._n_devices, self._peak)
        return self._averages.take() | lap | speed | memory_gib(jax.local_devices())


_LARGEST_LINES = 400


def parameter_table(state: TrainState) -> str:
    """Returns a table of the encoder's parameters and each bank's rows: shape, dtype, size and sharding.

    The state may be abstract; the column `Sharding` is that of the arrays, axis by axis.
    """
    banks = {name: {"rows": bank.rows} for name, bank in state.banks.items()}
    return parameter_overview.get_parameter_overview(
        {"encoder": state.params, "banks": banks}, include_stats="sharding", max_lines=_LARGEST_LINES
    )
