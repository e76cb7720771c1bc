"""What a run says of itself: a JSON object a logged step, TensorBoard events, and a line for the screen."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from clu import metrics
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ove.train.hosts.workdir import naming

_TOTALS = ("skipped", "spike", "positive_overflow")
"""Metrics (without the bank's name) of which the sum over the steps of a line is logged."""
_NEWEST = ("lr", "lr_bank", "ever_positive", "collapse")
"""Metrics of which that of the last step is logged. Of all others it is the mean."""


class Averages:
    """The metrics of the steps since the last logged line, put together (clu.metrics on the host)."""

    def __init__(self) -> None:
        self._means: dict[str, metrics.Average] = {}
        self._others: dict[str, float] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """Counts one more step; a NaN, which some metrics are where they have nothing to tell, is left out of the mean."""
        for name, value in values.items():
            what = name.partition("/")[0]
            if what in _TOTALS:
                self._others[name] = self._others.get(name, 0.0) + value
            elif what in _NEWEST:
                self._others[name] = value
            else:
                known = not math.isnan(value)
                one = metrics.Average(total=np.float64(value if known else 0.0), count=np.float64(known))
                self._means[name] = self._means[name].merge(one) if name in self._means else one

    def take(self) -> dict[str, float]:
        """What they come to (NaN for the mean of nothing), and begins anew."""
        means = {name: float(mean.compute()) if mean.count else math.nan for name, mean in self._means.items()}
        values = means | self._others
        self._means, self._others = {}, {}
        return values


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events in a folder; on resume, what was logged after the restored step is cut off."""

    def __init__(self, folder: Path, step: int) -> None:
        """`step`: the one that the run continues from, 0 for a new run."""
        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            temporary = self.path.with_suffix(".tmp")
            with naming(temporary):
                temporary.write_text("".join(line + "\n" for line in kept))
            os.replace(temporary, self.path)
        self._board = folder / "tensorboard"
        self._board.mkdir(parents=True, exist_ok=True)
        # Not SummaryWriter: its thread dies of a full disk without a word, and then the next line waits for it for ever.
        self._events = EventsWriter(str(self._board / "events"))
        if step:
            self._events.write_event(
                Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START))
            )

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Appends one line, with null for numbers that are not finite, and the other numbers to the events."""
        line = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
        }
        with naming(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": step, **line}) + "\n")
        numbers = {name: value for name, value in values.items() if isinstance(value, float) and math.isfinite(value)}
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])
        with naming(self._board):
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._events.flush()

    def close(self) -> None:
        """Nothing more is written."""
        with naming(self._board):
            self._events.close()


def progress_line(step: int, steps: int, values: Mapping[str, Any], seconds_left: float | None) -> str:
    """One line for the screen: where the run is, the loss of each bank, its speed, how long it waited for data, time left.

    The last is left out where it is None, not known yet.
    Tokens a second, model FLOPs utilisation, the host's share, the most memory of a device and skipped steps are told where
    `values` has them.
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
        parts.append(f"{_duration(seconds_left)} left")
    return "  ".join(parts)


def _step_of(line: str) -> int | float:
    """The step of a logged line; a line cut off by a crash counts as later than any."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return math.inf


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
