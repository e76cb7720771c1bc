"""A trace is taken of the steps that were asked for, and nothing else is understood."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ove.errors import ConfigError
from ove.train.monitor.profiler import Profiler, StepRange, parse_step_range


def test_a_span_is_steps_and_how_many() -> None:
    assert parse_step_range("20:3") == StepRange(20, 3)
    assert parse_step_range(" 1:1 ").last == 1


@pytest.mark.parametrize(
    "text", ["", "20", "20:", ":3", "0:3", "20:0", "-1:3", "20:3:1", "a:b", "1.5:2", "20,3", "2 0:3", "٣:٢"]
)
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--profile=.*: expected STEP:N"):
        parse_step_range(text)


@pytest.mark.parametrize("span", [StepRange(11, 1), StepRange(9, 3)])
def test_steps_after_the_last_are_refused_at_the_start(tmp_path: Path, span: StepRange) -> None:
    with pytest.raises(ConfigError, match=r"the run ends with step 10\."):
        Profiler(span, tmp_path, done=0, steps=10, report=print)


@pytest.mark.parametrize("span", [StepRange(3, 2), StepRange(5, 3)])
def test_steps_trained_before_a_restart_are_not_traced_and_do_not_stop_it(tmp_path: Path, span: StepRange) -> None:
    said: list[str] = []
    profiler = Profiler(span, tmp_path, done=5, steps=10, report=said.append)
    assert run_steps(profiler, 10) == [] and traces(tmp_path) == []
    assert said == [f"--profile={span.first}:{span.count}: nothing is traced, for this launch resumes at step 6."]


def run_steps(profiler: Profiler, last: int) -> list[str]:
    product = jax.jit(lambda x: x @ x)
    said = []
    for step in range(1, last + 1):
        profiler.before(step)
        line = profiler.after(step, product(jnp.ones((8, 8))))
        said += [f"{step}: {line}"] if line else []
    return said


def traces(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.xplane.pb"))


def test_steps_are_traced_into_the_folder_of_the_run(tmp_path: Path) -> None:
    (line,) = run_steps(Profiler(StepRange(2, 2), tmp_path, done=0, steps=5, report=print), 5)
    assert line.startswith(f"3: steps 2 to 3 are traced in {tmp_path / 'profile'}")
    assert len(traces(tmp_path / "profile")) == 1
    assert list((tmp_path / "profile").rglob("perfetto_trace.json.gz"))


def test_a_trace_is_written_where_a_run_ends_early_and_by_one_process_only(tmp_path: Path) -> None:
    profiler = Profiler(StepRange(1, 5), tmp_path / "early", done=0, steps=5, report=print)
    assert run_steps(profiler, 2) == []
    profiler.close()
    profiler.close()
    assert traces(tmp_path / "early")
    assert run_steps(Profiler(StepRange(1, 1), tmp_path / "other", done=0, steps=5, report=print, writes=False), 2) == []
    assert run_steps(Profiler(None, tmp_path / "other", done=0, steps=5, report=print), 2) == []
    assert not (tmp_path / "other").exists()
