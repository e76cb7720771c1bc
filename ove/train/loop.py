"""The training run: open, resume, then next → step → check and log the step before → save, until the last step."""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh, NamedSharding

from ove.batches.pipeline import OnBad, Pipeline, Progress
from ove.centers.check import check_labels
from ove.config import RunConfig
from ove.config.mapping import to_mapping
from ove.errors import ConfigError, TrainingStopped
from ove.records import Batch
from ove.train.alarms import Alarms
from ove.train.centroids import take_centroids
from ove.train.checkpoint import Checkpoints
from ove.train.clock import Clock
from ove.train.metrics import MetricsLog, progress_line
from ove.train.resume import place_in_data, resume
from ove.train.sharding import batch_sharding, make_mesh, placement, state_shardings
from ove.train.state import TrainState, init_state
from ove.train.step import DeviceBatch, make_step

Report = Callable[[str], None]
QUARANTINE = "quarantine.jsonl"


def train(config: RunConfig, workdir: Path, report: Report) -> TrainState:
    """Trains as configured, from the newest checkpoint in `workdir` if there is one; returns the last state.

    `report` gets a line of text now and then. Writes config.json, metrics.jsonl, tensorboard/ and checkpoints/ to `workdir`,
    and quarantine.jsonl if there are bad records. ConfigError, BadShard or BadCheckpoint if the run cannot start,
    TrainingStopped if it stops itself.
    """
    mesh = make_mesh()
    _check(config, workdir, mesh)
    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(contextlib.closing(Pipeline(config.batches, on_bad=_quarantine(workdir, report))))
        workdir.mkdir(parents=True, exist_ok=True)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config.train.keep)))
        make = jax.jit(partial(init_state, config, pipeline.n_centers, placement(mesh).n_shards))
        abstract = jax.eval_shape(make)
        shardings = state_shardings(abstract, mesh)
        state = resume(checkpoints, config, pipeline, abstract, shardings)
        if state is None:
            state = take_centroids(jax.jit(make, out_shardings=shardings)(), config, pipeline.n_centers, mesh)
        else:
            report(f"resumed from step {int(state.step)} of {checkpoints.folder}")
        _save_config(config, workdir)
        report(_described(state, mesh))
        run = _Run(
            config,
            workdir,
            pipeline,
            checkpoints,
            stack.enter_context(contextlib.closing(MetricsLog(workdir, int(state.step)))),
            stack.enter_context(contextlib.closing(Clock())),
            report,
            Alarms(config),
        )
        step_fn = make_step(config, mesh, shardings, pipeline.n_centers)
        return run.until_the_last_step(state, step_fn, batch_sharding(mesh))


@dataclass(frozen=True)
class _Taken:
    """A step that is under way on the device, and what is to be said of it once it is finished."""

    step: int
    metrics: dict[str, jax.Array]
    batches: dict[str, Batch]
    progress: Progress


@dataclass
class _Run:
    config: RunConfig
    workdir: Path
    pipeline: Pipeline
    checkpoints: Checkpoints
    log: MetricsLog
    clock: Clock
    report: Report
    alarms: Alarms
    first_step: int = 0
    began: float = 0.0

    def until_the_last_step(self, state: TrainState, step_fn: jax.stages.Wrapped, sharding: NamedSharding) -> TrainState:
        """The device works on one step while the host looks at the one before; a state is saved only if its loss is finite."""
        start, steps = int(state.step), self.config.train.steps
        if start >= steps:
            self.report(f"nothing to do: train.steps = {steps}, and {start} are done.")
        compiled: jax.stages.Compiled | None = None
        under_way: _Taken | None = None
        for step in range(start + 1, steps + 1):
            self.clock.batch_asked()
            batches = next(self.pipeline)
            on_device = _to_device(batches, sharding, self.pipeline.n_centers)
            self.clock.batch_there()
            if compiled is None:
                compiled = _compile(step_fn, state, on_device, self.report)
                self.first_step, self.began = start, time.perf_counter()
                self.clock.restart()
            state, metrics = compiled(state, on_device)
            self.clock.dispatched(metrics["loss"])
            if under_way:
                self._finish(under_way)
            under_way = _Taken(step, metrics, batches, self.pipeline.progress)
            if self._saves(step):
                self._finish(under_way)
                under_way = None
                self.checkpoints.save(state, self.config, place_in_data(self.pipeline))
                self.log.flush()
                self.clock.restart()
        return state

    def _saves(self, step: int) -> bool:
        return step % self.config.train.save_every == 0 or step == self.config.train.steps

    def _finish(self, taken: _Taken) -> None:
        """Waits for a step; stops the run if it is not finite, and logs it if it is one of those that are logged."""
        values = {name: float(value) for name, value in jax.device_get(taken.metrics).items()}
        _check_finite(taken, values, self.workdir)
        self.clock.step_done()
        for alarm in self.alarms.of_step(taken.step, values):
            self.report(alarm)
        # Where a run may be taken up again the log is cut, so a line must end there.
        if taken.step % self.config.train.log_every and not self._saves(taken.step) and taken.step > 1:
            return
        values |= self.clock.lap(sum(head.batch_size for head in self.config.batches.heads))
        self.log.write(taken.step, values | {"order": taken.progress.order, "bad_records": taken.progress.replaced})
        steps = self.config.train.steps
        seconds_a_step = (time.perf_counter() - self.began) / (taken.step - self.first_step)
        self.report(progress_line(taken.step, steps, values, (steps - taken.step) * seconds_a_step))


def _check(config: RunConfig, workdir: Path, mesh: Mesh) -> None:
    if not config.batches.heads:
        raise ConfigError("batches.heads is empty; name at least one bank to train, for example {bank: 'vid', batch_size: 16}.")
    if not config.encoder.head:
        raise ConfigError("encoder.head is False; training needs the pooling head, which makes the embedding.")
    for head in config.batches.heads:
        if head.batch_size % mesh.size:
            raise ConfigError(f"batch_size {head.batch_size} of head {head.bank} cannot be split over {mesh.size} devices.")
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"{workdir}: is a file; give a folder as --workdir.")


def _quarantine(workdir: Path, report: Report) -> OnBad:
    """Notes each bad record once in `workdir/quarantine.jsonl`, over restarts too, and on the screen."""
    path = workdir / QUARANTINE
    lines = path.read_text().splitlines() if path.exists() else []
    noted = {json.loads(line)["record"] for line in lines if line.endswith("}")}  # a crash may have cut the last one off

    def note(record: int, reason: str) -> None:
        if record not in noted:
            noted.add(record)
            report(f"record {record} is set aside: {reason}")
            with path.open("a") as file:
                file.write(json.dumps({"record": record, "reason": reason}, ensure_ascii=False) + "\n")

    return note


def _described(state: TrainState, mesh: Mesh) -> str:
    encoder = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    banks = ", ".join(f"{name} {len(bank.rows):,}" for name, bank in state.banks.items())
    device = mesh.devices.flat[0].device_kind
    return f"encoder of {encoder:,} parameters; centers: {banks}; {mesh.size} device{'s' * (mesh.size > 1)} ({device})"


def _compile(step_fn: jax.stages.Wrapped, state: TrainState, batch: DeviceBatch, report: Report) -> jax.stages.Compiled:
    report("compiling the training step, once …")
    before = time.perf_counter()
    compiled = step_fn.lower(state, batch).compile()
    report(f"compiled in {time.perf_counter() - before:.0f} s")
    return compiled


def _to_device(batches: dict[str, Batch], sharding: NamedSharding, n_centers: dict[str, int]) -> DeviceBatch:
    names = ("patches", "positions", "labels")
    for bank, batch in batches.items():
        check_labels(batch.labels, n_centers[bank], bank)
    return {bank: {name: jax.device_put(getattr(batch, name), sharding) for name in names} for bank, batch in batches.items()}


def _check_finite(taken: _Taken, values: dict[str, float], workdir: Path) -> None:
    """A loss or gradient that is not finite stops the run, and leaves the batch's record numbers behind."""
    for prefix, called in (("loss/", "loss of bank"), ("grad_norm/", "gradient of")):
        wrong = [name for name in values if name.startswith(prefix) and not math.isfinite(values[name])]
        if wrong:
            path = workdir / f"not_finite_step_{taken.step}.json"
            path.write_text(json.dumps({bank: batch.record.tolist() for bank, batch in taken.batches.items()}) + "\n")
            raise TrainingStopped(
                f"the {called} {wrong[0].removeprefix(prefix)} is {values[wrong[0]]} at step {taken.step}; the record numbers "
                f"of its batch are in {path}. Lower train.lr or train.lr_bank, or look at these records; the checkpoints "
                "before this step are sound."
            )


def _save_config(config: RunConfig, workdir: Path) -> None:
    temporary = workdir / ".config.json.tmp"
    temporary.write_text(json.dumps(to_mapping(config), indent=2) + "\n")
    os.replace(temporary, workdir / "config.json")
