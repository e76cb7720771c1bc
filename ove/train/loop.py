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
from ove.sources.quarantine import QUARANTINE
from ove.stream.batch_pipeline import Pipeline
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.checkpoints.resume import place_in_data, resume
from ove.train.encoder_grads import BatchArrays
from ove.train.feed import DeviceBatch, DevicePrefetcher
from ove.train.hosts.watchdog import Preemption, Watchdog
from ove.train.hosts.workdir import Report, claimed, compilation_cache, quarantine, save_config, save_inputs, save_table
from ove.train.init import TrainState, init_state
from ove.train.init_from import load_centroids, load_encoder
from ove.train.monitor.evaluation import Evaluate, Evaluations
from ove.train.monitor.metrics import MetricsLog, StepMonitor, parameter_table
from ove.train.monitor.profiler import Profiler, StepRange
from ove.train.monitor.speed import Clock
from ove.train.sharding import batch_sharding, check_division, make_mesh, placement, state_shardings
from ove.train.step import Metrics, make_step

DrawBatches = Callable[[int, Mapping[str, Batch]], list[Path]]
"""A step and its batches → the pictures made of them."""


@dataclass(frozen=True)
class Hooks:
    """Optional callbacks of a run: drawing batches, evaluation, profiling."""

    draw: DrawBatches | None = None
    """Called by the first process before every step, with the batches."""
    evaluate: Evaluate | None = None
    """Called by the first process every `train.eval_every` steps."""
    profile: StepRange | None = None
    """Steps to trace."""


NO_HOOKS = Hooks()
"""No callbacks."""


def check_config(config: RunConfig, workdir: Path, mesh: Mesh) -> None:
    """Raises ConfigError if the run cannot be trained as configured on these devices, or `workdir` is a file."""
    if not config.batches.heads:
        raise ConfigError("batches.heads is empty; name at least one bank to train, for example {bank: 'vid', batch_size: 16}.")
    if not config.encoder.pooling_head:
        raise ConfigError("encoder.pooling_head is False; training needs the pooling head, which makes the embedding.")
    check_division(config, mesh.size)
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"{workdir}: is a file; give a folder as --workdir.")


def check_agreement(processes: Processes, config: RunConfig, workdir: Path, data_fingerprint: str) -> None:
    """Raises ConfigError in all processes if their configurations, workdirs or data differ."""
    configuration = json.dumps(to_mapping(config), sort_keys=True).encode()
    processes.assert_equal("configuration", hashlib.sha256(configuration).hexdigest())
    processes.assert_equal("--workdir", str(workdir.resolve()))
    processes.assert_equal("data (records or labels)", data_fingerprint)


def describe_run(state: TrainState, mesh: Mesh) -> str:
    """Returns one line: sizes of the encoder and the banks, and the devices."""
    encoder = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    banks = ", ".join(f"{name} {len(bank.rows):,}" for name, bank in state.banks.items())
    device, hosts = mesh.devices.flat[0].device_kind, jax.process_count()
    where = f"{mesh.size} device{'s' * (mesh.size > 1)} ({device})" + (f" of {hosts} processes" if hosts > 1 else "")
    return f"encoder of {encoder:,} parameters; centers: {banks}; {where}"


def train(config: RunConfig, workdir: Path, report: Report, hooks: Hooks = NO_HOOKS) -> TrainState:
    """Trains as configured, from the newest checkpoint in `workdir` if there is one; returns the last state.

    `report` gets lines of progress. Writes config.json, parameters.txt, metrics.jsonl, tensorboard/ and checkpoints/
    to `workdir`, and quarantine.jsonl if there are bad records. On SIGTERM it saves and returns before the last step.
    With several processes all call it alike, and the first of them writes and reports. ConfigError, BadShard or
    BadCheckpoint if the run cannot start, TrainingStopped if it stops itself.
    """
    processes, limits = Processes(config.train.barrier_timeout_s), config.train
    speaks = processes.index == 0
    report = report if speaks else _in_silence
    mesh = make_mesh(config.mesh)
    check_config(config, workdir, mesh)
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.as_process_lost())
        watchdog = stack.enter_context(contextlib.closing(Watchdog()))
        watchdog.expect("the beginning of the run, up to the end of its first step", limits.first_step_limit_s)
        preemption = stack.enter_context(Preemption())
        bad = quarantine(workdir / (QUARANTINE if speaks else f"process_{processes.index}_{QUARANTINE}"), report)
        pipeline = Pipeline(config.batches, processes.index, processes.count, on_bad=bad)
        stack.enter_context(contextlib.closing(pipeline))
        check_agreement(processes, config, workdir, pipeline.fingerprint)
        workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(claimed(workdir, processes, report))
        stack.enter_context(compilation_cache(limits.compilation_cache, workdir))
        checkpoints = stack.enter_context(Checkpoints(workdir, limits.max_to_keep, limits.keep_period, processes))
        state, shardings = _first_state(config, mesh, pipeline, checkpoints, report)
        start, steps = int(state.step), limits.steps
        profiler = Profiler(hooks.profile, workdir, start, steps, report, writes=speaks)
        stack.callback(profiler.close)
        log = None
        if speaks:
            save_config(config, workdir)
            save_inputs(config, pipeline, workdir)
            save_table(parameter_table(state), workdir, report)
            log = stack.enter_context(contextlib.closing(MetricsLog(workdir, start)))
        report(describe_run(state, mesh))
        clock = stack.enter_context(contextlib.closing(Clock()))
        monitor = StepMonitor(config, workdir, mesh, pipeline.n_centers, pipeline.key_of, clock, log, start, report)
        # The others wait longer than the watchdog of the first, so that its stacks are shown.
        eval_limit_s = limits.eval_limit_s and limits.eval_limit_s + limits.barrier_timeout_s
        evaluations = Evaluations(hooks.evaluate, limits.eval_every, report, processes, eval_limit_s)
        step_fn = make_step(config, mesh, shardings, pipeline.n_centers)
        batches = stack.enter_context(contextlib.closing(DevicePrefetcher(pipeline, batch_sharding(mesh), pipeline.n_centers)))

        def finish(step: int, metrics: Metrics, batch: DeviceBatch, is_saved: bool = False) -> None:
            """Waits for a step; checks and logs its metrics."""
            with clock.waiting():
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            watchdog.expect(f"step {step + 1}", limits.step_limit_s)
            monitor.finish(step, values, batch, is_saved)

        def evaluate(step: int) -> None:
            """Evaluates once the checkpoint of this step is complete, so that a crash here loses nothing."""
            checkpoints.wait()
            watchdog.expect(f"the evaluation after step {step}", limits.eval_limit_s)
            scores = evaluations.after(step, config.encoder, state.params)
            watchdog.expect(f"step {step + 1}", limits.step_limit_s)
            if log and scores:
                log.write(step, scores)

        if start >= steps:
            report(f"nothing to do: train.steps = {steps}, and {start} are done.")
        compiled: jax.stages.Compiled | None = None
        under_way: tuple[int, Metrics, DeviceBatch] | None = None
        # The device works on one step while the host looks at the one before; a state is saved only if its loss is finite.
        for step in range(start + 1, steps + 1):
            clock.batch_asked()
            batch = next(batches)
            clock.batch_there()
            if hooks.draw and speaks and (pictures := hooks.draw(step, batch.batches)):
                report(f"{len(pictures)} pictures of what the encoder sees: {pictures[0].parent}")
            if compiled is None:
                compiled = _compile(step_fn, state, batch.arrays, report)
                processes.barrier("the first step")
                clock.restart()
            profiler.before(step)
            with clock.dispatching():
                state, metrics = compiled(state, batch.arrays)
            clock.dispatched(metrics["loss"])
            if traced := profiler.after(step, metrics["loss"]):
                report(traced)
            if under_way:
                finish(*under_way)
            under_way = step, metrics, batch
            checkpoints.check()
            is_told_to_stop = preemption.stops_after(step)
            if is_told_to_stop or step % limits.save_every == 0 or step == steps or evaluations.is_due(step):
                finish(*under_way, is_saved=True)
                checkpoints.save(state, config, place_in_data(pipeline, batch.progress))
                under_way = None
                if evaluations.is_due(step) and not is_told_to_stop:
                    evaluate(step)
                processes.barrier(f"the end of the save of step {step}")  # or the next step would wait, and be timed so
                clock.restart()
            if is_told_to_stop and step < steps:
                report(f"stopped by SIGTERM: step {step} is saved; the same command resumes from it.")
                break
        watchdog.expect("the last save", limits.step_limit_s)
        return state


def _first_state(
    config: RunConfig, mesh: Mesh, pipeline: Pipeline, checkpoints: Checkpoints, report: Report
) -> tuple[TrainState, TrainState]:
    """Returns the state of the newest intact checkpoint, or a fresh one, and its shardings."""
    make = jax.jit(partial(init_state, config, pipeline.n_centers, placement(mesh).n_shards))
    abstract = jax.eval_shape(make)
    shardings = state_shardings(abstract, mesh)
    state = resume(checkpoints, config, pipeline, abstract, shardings, report)
    if state is None:
        state = load_encoder(jax.jit(make, out_shardings=shardings)(), config, shardings)
        return load_centroids(state, config, pipeline.n_centers, mesh), shardings
    report(f"resumed from step {int(state.step)} of {checkpoints.folder}")
    return state, shardings


def _in_silence(line: str) -> None:
    """Discards what processes after the first report."""


def _compile(step_fn: jax.stages.Wrapped, state: TrainState, batch: BatchArrays, report: Report) -> jax.stages.Compiled:
    report("compiling the training step, once …")
    before = time.perf_counter()
    compiled = step_fn.lower(state, batch).compile()
    report(f"compiled in {time.perf_counter() - before:.0f} s")
    return compiled
