"""The training run: open, restore, then next → step → log → save, until the last step."""

import contextlib
import dataclasses
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding

from ove.batches.pipeline import Pipeline, Progress
from ove.config import RunConfig, to_mapping
from ove.errors import BadCheckpoint, ConfigError, TrainingStopped
from ove.records import Batch
from ove.train.checkpoint import Checkpoints
from ove.train.metrics import MetricsLog, progress_line
from ove.train.sharding import batch_sharding, make_mesh, state_shardings
from ove.train.state import TrainState, init_state
from ove.train.step import DeviceBatch, make_step


def train(config: RunConfig, workdir: Path, report: Callable[[str], None]) -> TrainState:
    """Trains as configured, from the newest checkpoint in `workdir` if there is one; returns the last state.

    `report` gets a line of text now and then. Writes config.json, metrics.jsonl, tensorboard/ and checkpoints/ to `workdir`.
    ConfigError, BadShard or BadCheckpoint if the run cannot start, TrainingStopped if it stops itself.
    """
    if not config.batches.heads:
        raise ConfigError("batches.heads is empty; name at least one bank to train, for example {bank: 'vid', batch_size: 16}.")
    if not config.encoder.head:
        raise ConfigError("encoder.head is False; training needs the pooling head, which makes the embedding.")
    mesh = make_mesh()
    for head in config.batches.heads:
        if head.batch_size % mesh.size:
            raise ConfigError(f"batch_size {head.batch_size} of head {head.bank} cannot be split over {mesh.size} devices.")
    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(contextlib.closing(Pipeline(config.batches)))
        workdir.mkdir(parents=True, exist_ok=True)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, config.train.keep)))
        make = jax.jit(lambda: init_state(config, pipeline.n_centers))
        abstract = jax.eval_shape(make)
        shardings = state_shardings(abstract, mesh)
        state = _restored(checkpoints, config, pipeline, abstract, shardings, report)
        if state is None:
            state = jax.jit(make, out_shardings=shardings)()
        _save_config(config, workdir)
        log = stack.enter_context(contextlib.closing(MetricsLog(workdir, int(state.step))))
        return _run(config, state, pipeline, make_step(config, mesh, shardings), checkpoints, log, batch_sharding(mesh), report)


def _run(
    config: RunConfig,
    state: TrainState,
    pipeline: Pipeline,
    step_fn: Callable[[TrainState, DeviceBatch], Any],
    checkpoints: Checkpoints,
    log: MetricsLog,
    sharding: NamedSharding,
    report: Callable[[str], None],
) -> TrainState:
    """next → step → check and log the step before → save; the device works on one step while the host looks at the last."""
    steps = config.train.steps
    samples = sum(head.batch_size for head in config.batches.heads)
    clock = _Clock()
    pending: tuple[int, dict[str, Any], dict[str, Batch]] | None = None
    order = 0
    for step in range(int(state.step) + 1, steps + 1):
        with clock.waiting():
            batches = next(pipeline)
        state, metrics = step_fn(state, _to_device(batches, sharding))
        if pending:
            _check_finite(*pending, workdir=log.path.parent)
        pending = (step, metrics, batches)
        for batch in batches.values():
            order = zlib.crc32(batch.record.tobytes(), order)
        saving = step % config.train.save_every == 0 or step == steps
        if step % config.train.log_every == 0 or saving or step == 1:
            values = _check_finite(*pending, workdir=log.path.parent)
            values |= clock.lap(step, samples)
            log.write(step, values | {"order": order, "bad_records": pipeline.progress.replaced})
            report(progress_line(step, steps, values, (steps - step) * values["step_ms"] / 1000))
            order = 0
        if saving:
            checkpoints.save(state, config, dataclasses.asdict(pipeline.progress) | {"fingerprint": pipeline.fingerprint})
    return state


class _Clock:
    """Time per step and the share of it spent waiting for data, since the last lap."""

    def __init__(self) -> None:
        self._start, self._waited = time.perf_counter(), 0.0
        self._step: int | None = None

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self._waited += time.perf_counter() - before

    def lap(self, step: int, samples: int) -> dict[str, float]:
        now = time.perf_counter()
        elapsed = now - self._start
        n = step - self._step if self._step is not None else 1
        values = {"step_ms": 1000 * elapsed / n, "samples_per_s": samples * n / elapsed, "data_wait": self._waited / elapsed}
        self._start, self._waited, self._step = now, 0.0, step
        return values


def _to_device(batches: dict[str, Batch], sharding: NamedSharding) -> DeviceBatch:
    names = ("patches", "positions", "labels")
    return {
        bank: {name: jax.make_array_from_process_local_data(sharding, getattr(batch, name)) for name in names}
        for bank, batch in batches.items()
    }


def _check_finite(step: int, metrics: dict[str, Any], batches: dict[str, Batch], workdir: Path) -> dict[str, float]:
    """The metrics as floats; a loss that is not finite stops the run and leaves the batch's record numbers behind."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, value in values.items():
        if name.startswith("loss/") and not math.isfinite(value):
            path = workdir / f"not_finite_step_{step}.json"
            path.write_text(json.dumps({bank: batch.record.tolist() for bank, batch in batches.items()}))
            raise TrainingStopped(
                f"the loss of bank {name.removeprefix('loss/')} is {value} at step {step}; the batch's record numbers are in "
                f"{path}. Lower train.lr, or look at these records."
            )
    return values


def _restored(
    checkpoints: Checkpoints,
    config: RunConfig,
    pipeline: Pipeline,
    abstract: TrainState,
    shardings: TrainState,
    report: Callable[[str], None],
) -> TrainState | None:
    step = checkpoints.latest()
    if step is None:
        return None
    meta = checkpoints.meta(step)
    saved, wanted = meta["config"], to_mapping(config)
    for section in ("encoder", "centers"):
        differing = [
            f"{section}.{k} {saved[section].get(k)!r} → {v!r}" for k, v in wanted[section].items() if saved[section].get(k) != v
        ]
        if differing:
            raise BadCheckpoint(
                f"{checkpoints.folder}/{step}: was trained with another configuration ({'; '.join(differing)}); "
                "use that configuration or another --workdir."
            )
    if meta["data"]["fingerprint"] != pipeline.fingerprint:
        raise BadCheckpoint(
            f"{checkpoints.folder}/{step}: was trained on other data, labels, mixture or seed than "
            f"{config.batches.shards} gives now; restore them or use another --workdir."
        )
    state = checkpoints.restore(step, abstract, shardings)
    data = dict(meta["data"])
    data.pop("fingerprint")
    pipeline.restore(Progress(**data))
    report(f"resumed from step {step} of {checkpoints.folder}")
    return state


def _save_config(config: RunConfig, workdir: Path) -> None:
    temporary = workdir / ".config.json.tmp"
    temporary.write_text(json.dumps(to_mapping(config), indent=2) + "\n")
    os.replace(temporary, workdir / "config.json")
