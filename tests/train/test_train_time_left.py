"""The time that a run says is left is that of the steps to come, from the first line that tells it."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_run import STEPS, config_of

from ove.train import loop
from ove.train.monitor import metrics
from ove.train.monitor.metrics import StepMonitor


def test_neither_compilation_nor_the_slow_first_step_counts(
    shard_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    compile_step, check = loop._compile, StepMonitor.check

    def compile_slowly(*arguments: object) -> object:
        now_s[0] += 500.0
        return compile_step(*arguments)

    def check_later(monitor: StepMonitor, step: int, *arguments: Any) -> None:
        now_s[0] += 30.0 if step == 1 else 2.0
        check(monitor, step, *arguments)

    for module in (loop, metrics):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now_s[0], time=time.time))
    monkeypatch.setattr(loop, "_compile", compile_slowly)
    monkeypatch.setattr(StepMonitor, "check", check_later)
    printed: list[str] = []
    loop.train(config_of(shard_folder), tmp_path, printed.append)
    lines = [line for line in printed if line.startswith("step ")]
    assert len(lines) == STEPS and not lines[0].endswith("left")
    assert [line.split("  ")[-1] for line in lines[1:]] == [f"0m{2 * (STEPS - step):02d}s left" for step in range(2, STEPS + 1)]
