"""Jobs over shards: each is done once, whole or not at all; what fails is tried again, what always fails is set aside."""

import json
import os
from pathlib import Path

import pytest
from shard_jobs import jobs_of, process

from ove.config import EnginesConfig
from ove.errors import BadShard, ConfigError
from ove.labels.engines.jobs import Job, done_path, finish, read_done
from ove.labels.engines.run import DEAD_LETTERS, Finished, StepProgress, run

HERE = EnginesConfig(workers=0, retries=2, max_dead_share=1.0)


def run_here(jobs: list[Job], folder: Path, config: EnginesConfig = HERE) -> tuple[Finished, list[StepProgress]]:
    seen: list[StepProgress] = []
    return run(process, jobs, folder, config, seen.append), seen


def test_each_output_appears_with_its_marker_and_is_made_once(tmp_path: Path) -> None:
    found, seen = run_here(jobs_of(5), tmp_path)
    assert list(found.done) == [f"{n:05d}.txt" for n in range(5)] and not found.dead
    assert (tmp_path / "00003.txt").read_text() == "0\n1\n4\n9\n"
    assert [done.about for done in found.done.values()] == [{"n": n} for n in range(5)]
    assert vars(seen[-1]) == {"done": 5, "total": 5, "earlier": 0, "failed": 0}
    dates = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    finish(process, tmp_path, jobs_of(1)[0])  # a worker that was taken for dead, and is late
    again, seen = run_here(jobs_of(6), tmp_path)
    assert vars(seen[0]) == {"done": 5, "total": 6, "earlier": 5, "failed": 0}
    assert all(path.stat().st_mtime_ns == date for path, date in dates.items() if path.name != ".lock")
    assert len(again.done) == 6
    assert not list(tmp_path.glob(".*.tmp"))


def test_other_inputs_a_lost_or_a_cut_output_are_made_anew(tmp_path: Path) -> None:
    jobs = jobs_of(4)
    run_here(jobs, tmp_path)
    (tmp_path / "00000.txt").unlink()
    (tmp_path / "00001.txt").write_text("cut")
    done_path(tmp_path, "00002.txt").write_text('{"half": ')
    other = Job(jobs[3].name, (7, "", "", 0.0), "other inputs")
    _, seen = run_here([*jobs[:3], other], tmp_path)
    assert seen[0].earlier == 0
    assert (tmp_path / "00001.txt").read_text() == "0\n1\n"
    assert (tmp_path / "00003.txt").read_text().endswith("49\n")
    assert read_done(tmp_path, jobs[3]) is None and read_done(tmp_path, other) is not None


def test_a_job_that_fails_leaves_nothing_and_its_old_output_does_not_count(tmp_path: Path) -> None:
    run_here(jobs_of(1), tmp_path)
    (changed,) = jobs_of(1, {0: "raise"})
    changed = Job(changed.name, changed.argument, "changed")
    with pytest.raises(BadShard, match="shard 0 is damaged"):
        finish(process, tmp_path, changed)
    assert not list(tmp_path.glob(".*.tmp"))
    assert read_done(tmp_path, changed) is None
    assert not done_path(tmp_path, changed.name).exists()


def test_what_always_fails_is_set_aside_with_its_reason_and_tried_anew_next_time(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    jobs = jobs_of(6, {1: "raise", 4: f"flaky:{tries}"})
    found, seen = run_here(jobs, tmp_path / "out")
    assert tries.stat().st_size == 3  # failed twice, then worked
    assert len(found.done) == 5
    (letter,) = found.dead
    assert (letter.name, letter.reason, letter.attempts) == ("00001.txt", "shard 1 is damaged; write it again.", 3)
    assert [json.loads(line) for line in (tmp_path / "out" / DEAD_LETTERS).read_text().splitlines()] == [vars(letter)]
    assert max(progress.failed for progress in seen) == 2 and seen[-1].failed == 1
    found, _ = run_here(jobs_of(6), tmp_path / "out")  # whatever it was has been mended
    assert len(found.done) == 6 and not (tmp_path / "out" / DEAD_LETTERS).exists()


def test_too_many_dead_ones_and_wrong_settings_end_the_step(tmp_path: Path) -> None:
    jobs = jobs_of(10, {3: "raise"})
    with pytest.raises(BadShard, match=r"1 of 10 shards failed 3 times.*max_dead_share = 0\.05.*shard 3 is damaged"):
        run_here(jobs, tmp_path, EnginesConfig(workers=0, max_dead_share=0.05))
    assert len(list(tmp_path.glob("*.done.json"))) == 9
    with pytest.raises(ConfigError, match="no such thing"):
        run_here(jobs_of(3, {1: "refuse"}), tmp_path / "other")


def test_processes_that_crash_or_hang_cost_their_shard_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVE_STALL_FACTOR", "1")  # the one that hangs sleeps
    config = EnginesConfig(workers=2, retries=1, time_limit_s=1.5, max_dead_share=1.0)
    found, _ = run_here(jobs_of(8, {2: "crash", 5: "hang"}), tmp_path / "two", config)
    assert [letter.name for letter in found.dead] == ["00002.txt", "00005.txt"]
    assert "SIGSEGV" in found.dead[0].reason and "hung" in found.dead[1].reason
    assert not list((tmp_path / "two").glob(".*.tmp"))
    alone, _ = run_here([job for n, job in enumerate(jobs_of(8)) if n not in (2, 5)], tmp_path / "none")
    assert {name: done.sha256 for name, done in alone.done.items()} == {name: d.sha256 for name, d in found.done.items()}


def test_an_output_that_another_machine_wrote_elsewhere_is_missed(tmp_path: Path) -> None:
    def elsewhere(attempt, jobs):  # an engine that says that all is done
        yield from ((index, None) for index in range(len(jobs)))

    with pytest.raises(BadShard, match="storage that all machines share"):
        run(process, jobs_of(2), tmp_path, HERE, lambda progress: None, elsewhere)


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    def second(attempt, jobs):
        with pytest.raises(BadShard, match=r"another `ove labels` works on it; wait for it to end"):
            run_here(jobs_of(1), tmp_path)
        yield from ((index, attempt(job)) for index, job in enumerate(jobs))

    assert len(run(process, jobs_of(1), tmp_path, HERE, lambda progress: None, second).done) == 1
    assert os.path.exists(tmp_path / ".lock")


@pytest.mark.parametrize(
    "wrong", [{"workers": -1}, {"retries": -1}, {"max_dead_share": 2.0}, {"time_limit_s": 0.0}, {"ray_gpus": 1.0}]
)
def test_settings_are_checked(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="engines"):
        EnginesConfig(**wrong)
