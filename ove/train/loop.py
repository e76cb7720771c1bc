"""The training run: open, resume, then next → step → check and log the step before → save, until the last step."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from ove.config import RunConfig
from ove.config.mapping import to_mapping
from ove.distributed import Processes
from ove.errors import ConfigError
from ove.records import Batch
from ove.stream.pipeline import Pipeline
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.checkpoints.resume import place_in_data, resume
from ove.train.feed import Fed, Feed
from ove.train.hosts.watchdog import Preemption, Watchdog
from ove.train.hosts.workdir import QUARANTINE, Report, claimed, quarantine, save_config, save_table
from ove.train.init import TrainState, init_state
from ove.train.init_from import take_centroids, take_encoder
from ove.train.monitor.evaluation import Evaluate, Evaluations
from ove.train.monitor.metrics import MetricsLog, Watch, parameter_table, progress_line
from ove.train.monitor.profiler import Profiler, Span
from ove.train.monitor.speed import Clock
from ove.train.sharding import batch_sharding, check_division, make_mesh, placement, state_shardings
from ove.train.step import DeviceBatch, make_step

Draw = Callable[[int, Mapping[str, Batch]], list[Path]]
"""A step and its batches → the pictures made of them."""


@dataclass(frozen=True)
class Hooks:
    """Each may be missing."""

    draw: Draw | None = None
    """Is shown the batches of every step by the first process, before the step."""
    evaluate: Evaluate | None = None
    """Is called every `train.eval_every` steps by every process."""
    profile: Span | None = None
    """Steps that are traced."""


NO_HOOKS = Hooks()
"""A run by itself."""


def check(config: RunConfig, workdir: Path, mesh: Mesh) -> None:
    """ConfigError if the run cannot be trained as configured on these devices, or `workdir` is no folder."""
    if not config.batches.heads:
        raise ConfigError("batches.heads is empty; name at least one bank to train, for example {bank: 'vid', batch_size: 16}.")
    if not config.encoder.pooling_head:
        raise ConfigError("encoder.pooling_head is False; training needs the pooling head, which makes the embedding.")
    check_division(config, mesh.size)
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"{workdir}: is a file; give a folder as --workdir.")


def agree(processes: Processes, config: RunConfig, workdir: Path, data_fingerprint: str) -> None:
    """ConfigError, in all processes, if they were not started with one configuration, one workdir and the same data."""
    configuration = json.dumps(to_mapping(config), sort_keys=True).encode()
    processes.assert_equal("configuration", hashlib.sha256(configuration).hexdigest())
    processes.assert_equal("--workdir", str(workdir.resolve()))
    processes.assert_equal("data (records or labels)", data_fingerprint)


def described(state: TrainState, mesh: Mesh) -> str:
    """One line for the screen: what is trained, and on what."""
    encoder = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    banks = ", ".join(f"{name} {len(bank.rows):,}" for name, bank in state.banks.items())
    device, hosts = mesh.devices.flat[0].device_kind, jax.process_count()
    where = f"{mesh.size} device{'s' * (mesh.size > 1)} ({device})" + (f" of {hosts} processes" if hosts > 1 else "")
    return f"encoder of {encoder:,} parameters; centers: {banks}; {where}"


def train(config: RunConfig, workdir: Path, report: Report, hooks: Hooks = NO_HOOKS) -> TrainState:
    """Trains as configured, from the newest checkpoint in `workdir` if there is one; returns the last state.

    `report` gets a line of text now and then. Writes config.json, parameters.txt, metrics.jsonl, tensorboard/ and checkpoints/
    to `workdir`, and quarantine.jsonl if there are bad records. On SIGTERM it saves and returns before the last step.
    With several processes all call it alike, and the first of them writes and reports. ConfigError, BadShard or
    BadCheckpoint if the run cannot start, TrainingStopped if it stops itself.
    """
    processes, limits = Processes(config.train.barrier_timeout_s), config.train
    speaks = processes.index == 0
    report = report if speaks else _in_silence
    mesh = make_mesh(config.mesh)
    check(config, workdir, mesh)
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.as_process_lost())
        watchdog = stack.enter_context(contextlib.closing(Watchdog()))
        watchdog.expect("the beginning of the run, up to the end of its first step", limits.first_step_limit_s)
        preemption = stack.enter_context(Preemption())
        bad = quarantine(workdir / (QUARANTINE if speaks else f"process_{processes.index}_{QUARANTINE}"), report)
        pipeline = Pipeline(config.batches, processes.index, processes.count, on_bad=bad)
        stack.enter_context(contextlib.closing(pipeline))
        agree(processes, config, workdir, pipeline.fingerprint)
        workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(claimed(workdir, processes, report))
        checkpoints = stack.enter_context(Checkpoints(workdir, limits.max_to_keep, limits.keep_period, processes))
        make = jax.jit(partial(init_state, config, pipeline.n_centers, placement(mesh).n_shards))
        abstract = jax.eval_shape(make)
        shardings = state_shardings(abstract, mesh)
        state = resume(checkpoints, config, pipeline, abstract, shardings, report)
        if state is None:
            state = take_encoder(jax.jit(make, out_shardings=shardings)(), config, shardings)
            state = take_centroids(state, config, pipeline.n_centers, mesh)
        else:
            report(f"resumed from step {int(state.step)} of {checkpoints.folder}")
        profiler = Profiler(hooks.profile, workdir, int(state.step), limits.steps, writes=speaks)
        stack.callback(profiler.close)
        log = None
        if speaks:
            save_config(config, workdir)
            save_table(parameter_table(state), workdir, report)
            log = stack.enter_context(contextlib.closing(MetricsLog(workdir, int(state.step))))
        report(described(state, mesh))
        clock = stack.enter_context(contextlib.closing(Clock()))
        watch = Watch(config, workdir, mesh, pipeline.n_centers, pipeline.key_of, report)
        # Were the others to give up before the watchdog of the first does, nobody would see where that one stands.
        eval_limit_s = limits.eval_limit_s and limits.eval_limit_s + limits.barrier_timeout_s
        evaluations = Evaluations(hooks.evaluate, limits.eval_every, report, processes, eval_limit_s)
        draw = hooks.draw if speaks else None
        run = _Run(
            config,
            processes,
            pipeline,
            checkpoints,
            log,
            clock,
            report,
            watch,
            watchdog,
            preemption,
            profiler,
            evaluations,
            draw,
        )
        step_fn = make_step(config, mesh, shardings, pipeline.n_centers)
        feed = stack.enter_context(contextlib.closing(Feed(pipeline, batch_sharding(mesh), pipeline.n_centers)))
        return run.until_the_last_step(state, step_fn, feed)


@dataclass(frozen=True)
class _Taken:
    """A step that is under way on the device, and what is to be said of it once it is finished."""

    step: int
    metrics: dict[str, jax.Array]
    fed: Fed


@dataclass
class _Run:
    config: RunConfig
    processes: Processes
    pipeline: Pipeline
    checkpoints: Checkpoints
    log: MetricsLog | None
    clock: Clock
    report: Report
    watch: Watch
    watchdog: Watchdog
    preemption: Preemption
    profiler: Profiler
    evaluations: Evaluations
    draw: Draw | None
    first_step: int = 0
    began: float = 0.0

    def until_the_last_step(self, state: TrainState, step_fn: jax.stages.Wrapped, feed: Feed) -> TrainState:
        """The device works on one step while the host looks at the one before; a state is saved only if its loss is finite."""
        start, steps = int(state.step), self.config.train.steps
        if start >= steps:
            self.report(f"nothing to do: train.steps = {steps}, and {start} are done.")
        compiled: jax.stages.Compiled | None = None
        under_way: _Taken | None = None
        for step in range(start + 1, steps + 1):
            self.clock.batch_asked()
            fed = next(feed)
            self.clock.batch_there()
            if self.draw and (pictures := self.draw(step, fed.batches)):
                self.report(f"{len(pictures)} pictures of what the encoder sees: {pictures[0].parent}")
            if compiled is None:
                compiled = _compile(step_fn, state, fed.on_device, self.report)
                self.processes.barrier("the first step")
                self.first_step = start + 1
                self.clock.restart()
            self.profiler.before(step)
            with self.clock.dispatching():
                state, metrics = compiled(state, fed.on_device)
            self.clock.dispatched(metrics["loss"])
            if traced := self.profiler.after(step, metrics["loss"]):
                self.report(traced)
            if under_way:
                self._finish(under_way)
            under_way = _Taken(step, metrics, fed)
            self.checkpoints.check()
            is_told_to_stop = self.preemption.stops_after(step)
            if is_told_to_stop or self._saves(step) or self.evaluations.is_due(step):
                self._finish(under_way, is_saved=True)
                self.checkpoints.save(state, self.config, place_in_data(self.pipeline, fed.progress))
                under_way = None
                if self.evaluations.is_due(step) and not is_told_to_stop:
                    self._evaluate(step, state)
                self.processes.barrier(f"the end of the save of step {step}")  # or the next step would wait, and be timed so
                self.clock.restart()
            if is_told_to_stop and step < steps:
                self.report(f"told to stop (SIGTERM): step {step} is saved; the same command goes on from there.")
                break
        self.watchdog.expect("the last save", self.config.train.step_limit_s)
        return state

    def _evaluate(self, step: int, state: TrainState) -> None:
        """Not before the checkpoint of this step is whole: nothing that happens now can lose it."""
        self.checkpoints.wait()
        self.watchdog.expect(f"the evaluation after step {step}", self.config.train.eval_limit_s)
        scores = self.evaluations.after(step, self.config.encoder, state.params)
        self.watchdog.expect(f"step {step + 1}", self.config.train.step_limit_s)
        if self.log and scores:
            self.log.write(step, scores)

    def _saves(self, step: int) -> bool:
        return step % self.config.train.save_every == 0 or step == self.config.train.steps

    def _finish(self, taken: _Taken, is_saved: bool = False) -> None:
        """Waits for a step; stops the run if it is not finite, and logs it if it is one of those that are logged."""
        with self.clock.waiting():
            values = {name: float(value) for name, value in jax.device_get(taken.metrics).items()}
        self.watchdog.expect(f"step {taken.step + 1}", self.config.train.step_limit_s)
        self.watch.look(taken.step, values, taken.fed.batches)
        self.clock.step_done()
        if taken.step == self.first_step:  # it takes longer than the others, so the pace is theirs
            self.began = time.perf_counter()
        # Where a run may be taken up again the log is cut, so a line must end there.
        if taken.step % self.config.train.log_every and not is_saved and taken.step > 1:
            return
        values = self.watch.line(self.clock.lap(sum(head.batch_size for head in self.config.batches.heads)))
        if self.log:
            self.log.write(taken.step, values | {"order": taken.fed.progress.order, "bad_records": taken.fed.progress.replaced})
        steps, timed = self.config.train.steps, taken.step - self.first_step
        left_s = (steps - taken.step) * (time.perf_counter() - self.began) / timed if timed else None
        self.report(progress_line(taken.step, steps, values, left_s))


def _in_silence(line: str) -> None:
    """What processes after the first say: nothing, for all would say the same."""


def _compile(step_fn: jax.stages.Wrapped, state: TrainState, batch: DeviceBatch, report: Report) -> jax.stages.Compiled:
    report("compiling the training step, once …")
    before = time.perf_counter()
    compiled = step_fn.lower(state, batch).compile()
    report(f"compiled in {time.perf_counter() - before:.0f} s")
    return compiled
