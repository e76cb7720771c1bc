"""What a run says of itself: a JSON object a logged step, TensorBoard events, and a line for the screen."""

import json
import math
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class MetricsLog:
    """`metrics.jsonl` and TensorBoard events in a folder; on resume, what was logged after the restored step is cut off."""

    def __init__(self, folder: Path, step: int) -> None:
        """`step`: the one that the run continues from, 0 for a new run."""
        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in kept))
            os.replace(temporary, self.path)
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Appends one line, and the numbers in it to the events."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, float) and math.isfinite(value):
                self._events.add_scalar(name, value, step)

    def flush(self) -> None:
        """Writes out the events that are buffered."""
        self._events.flush()

    def close(self) -> None:
        """Writes out the rest."""
        self._events.close()


def progress_line(step: int, steps: int, values: dict[str, Any], seconds_left: float) -> str:
    """One line for the screen: where the run is, the loss of each bank, its speed, how long it waited for data, time left."""
    losses = "  ".join(f"{k.removeprefix('loss/')} {v:.4f}" for k, v in values.items() if k.startswith("loss/"))
    return (
        f"step {step}/{steps}  loss {values['loss']:.4f} ({losses})  {values['step_ms']:.0f} ms/step  "
        f"{values['samples_per_s']:.1f} samples/s  data wait {values['data_wait']:.0%}  {_duration(seconds_left)} left"
    )


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
