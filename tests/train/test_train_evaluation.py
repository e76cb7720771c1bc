"""A run is evaluated where it was asked to be, after its state is safe; evaluations that fail cost nothing but themselves."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import config_of

from ove.config import EncoderConfig
from ove.distributed import Processes
from ove.encoder.encoder import Params
from ove.errors import BadShard
from ove.records import Batch
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.loop import Hooks, train
from ove.train.monitor.evaluation import GIVE_UP, Evaluations
from ove.train.monitor.profiler import StepRange


def failing(error: BaseException):
    def evaluate(config: EncoderConfig, params: Params) -> dict[str, float]:
        raise error

    return evaluate


@pytest.mark.parametrize(
    "error", [BadShard("a.b: is gone\nand more"), OSError(5, "gone"), ValueError("odd"), RuntimeError("RESOURCE_EXHAUSTED")]
)
def test_a_failure_is_told_and_counted_and_after_three_in_a_row_it_is_enough(error: Exception) -> None:
    said: list[str] = []
    evaluations = Evaluations(failing(error), 5, said.append)
    assert [step for step in range(1, 12) if evaluations.is_due(step)] == [5, 10]
    for _ in range(GIVE_UP):
        assert evaluations.after(5, EncoderConfig(), {}) == {"eval/failed": 1.0}
    assert len(said) == GIVE_UP and all(line.count("\n") == 0 and "EVALUATION FAILED at step 5" in line for line in said)
    assert "the run goes on" in said[0] and "evaluation is disabled until the run is restarted" in said[-1]
    assert evaluations.after(10, EncoderConfig(), {}) == {}
    assert len(said) == GIVE_UP


def test_errors_that_may_be_mistakes_in_the_program_are_logged_with_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    Evaluations(failing(OSError(5, "gone")), 1, print).after(1, EncoderConfig(), {})
    assert not caplog.records
    Evaluations(failing(KeyError("top1")), 1, print).after(7, EncoderConfig(), {})
    assert "the evaluation after step 7 failed" in caplog.text and "Traceback" in caplog.text and "raise error" in caplog.text


def test_a_mistake_in_the_program_is_not_hidden() -> None:
    with pytest.raises(TypeError):
        Evaluations(failing(TypeError("int + str")), 1, print).after(1, EncoderConfig(), {})


def test_without_a_function_or_a_period_nothing_is_due() -> None:
    assert not Evaluations(None, 5, print).is_due(5)
    assert not Evaluations(lambda config, params: {}, 0, print).is_due(5)


class OneOfTwo(Processes):
    """One of two processes; both hear what the first said."""

    def __init__(self, index: int, said: list[str]) -> None:
        self.index, self.count, self.limit_s, self.said = index, 2, 1.0, said

    def all_gather(self, name: str, word: str, limit_s: float | None = None) -> list[str]:
        assert name == "the end of the evaluation after step 5" and limit_s == 30.0
        if self.index == 0:
            self.said.append(word)
        return [self.said[-1], word]


def test_of_several_processes_the_first_evaluates_and_all_count_its_failures() -> None:
    tried: list[int] = []
    said: list[str] = []
    outcomes = [ValueError("odd"), None] + [ValueError("odd")] * GIVE_UP

    def by(index: int) -> Evaluations:
        def evaluate(config: EncoderConfig, params: Params) -> dict[str, float]:
            tried.append(index)
            error = outcomes[len(tried) - 1]
            if error:
                raise error
            return {"top1": 0.5}

        return Evaluations(evaluate, 5, lambda line: None, OneOfTwo(index, said), 30.0)

    first, second = by(0), by(1)
    for n in range(len(outcomes) + 2):
        values = first.after(5, EncoderConfig(), {})
        assert second.after(5, EncoderConfig(), {}) == {}
        assert values.get("eval/top1") == (0.5 if n == 1 else None)
        assert ("eval/failed" in values) == (n < len(outcomes)), "after three in a row nothing is tried"
    assert tried == [0] * len(outcomes)
    # Neither would wait any more for the parameters of the other.
    assert len(said) == len(outcomes)


def test_a_run_is_evaluated_drawn_and_traced(shard_folder: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    shown: list[int] = []

    def evaluate(config: EncoderConfig, params: Params) -> Mapping[str, float]:
        checkpoints = Checkpoints(tmp_path)
        seen.append(checkpoints.steps()[-1])
        checkpoints.close()
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
        if len(seen) == 1:
            raise ValueError("the first one fails")
        return {"top1": 0.5}

    def draw(step: int, batches: Mapping[str, Batch]) -> list[Path]:
        shown.append(step)
        return [tmp_path / "pictures" / "a.png"] if step == 1 else []

    said: list[str] = []
    config = config_of(shard_folder, eval_every=5, log_every=4)
    # One bank, one layer: what compiles in half the time.
    batches = dataclasses.replace(config.batches, heads=config.batches.heads[:1])
    config = dataclasses.replace(config, batches=batches, encoder=dataclasses.replace(config.encoder, layers=1))
    state = train(config, tmp_path, said.append, Hooks(draw, evaluate, StepRange(2, 2)))
    assert int(state.step) == 14
    # The checkpoint of the step is whole before the evaluation begins.
    assert seen == [5, 10]
    assert shown == list(range(1, 15))
    assert any(
        line.startswith("EVALUATION FAILED at step 5 (ValueError: the first one fails); the run goes on") for line in said
    )
    assert sum("pictures of what the encoder sees" in line for line in said) == 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if "eval/failed" in line]
    assert [(line["step"], line["eval/failed"], line.get("eval/top1")) for line in evaluated] == [(5, 1, None), (10, 0, 0.5)]
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [1, 4, 5, 7, 8, 10, 12, 14]
    for name in (
        "tokens_per_s",
        "tflops_per_device",
        "host_memory_gib",
        "data_wait",
        "host_share",
        "lr",
        "lr_bank/vid",
        "skipped",
    ):
        assert name in logged[-1], name
    parts = {name for name in logged[-1] if name.startswith("grad_norm/")}
    assert parts == {f"grad_norm/{part}" for part in ("encoder", "patch", "blocks", "head", "vid")}
    whole = sum(logged[0][f"grad_norm/{part}"] ** 2 for part in ("patch", "blocks", "head")) ** 0.5
    assert logged[0]["grad_norm/encoder"] == pytest.approx(whole, rel=1e-5)
    assert "mfu" not in logged[-1]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    table = (tmp_path / "parameters.txt").read_text()
    assert "encoder/blocks/attention/qkv/kernel" in table and "banks/vid/rows" in table and "Total:" in table
