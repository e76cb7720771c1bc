"""Checkpoints: orbax writes and reads them, our own fingerprint of every leaf says whether they are still what was saved."""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from ove.config import EncoderConfig, RunConfig
from ove.config.mapping import from_mapping, to_mapping
from ove.distributed import Processes
from ove.encoder import encoder
from ove.errors import BadCheckpoint, ConfigError, DamagedCheckpoint
from ove.train.checkpoints import integrity
from ove.train.checkpoints.async_save import SaveBarrier
from ove.train.checkpoints.integrity import fingerprints
from ove.train.init import TrainState
from ove.train.sharding import leaf_name

SCHEMA_VERSION = 2
_ROWS = r"^banks/[^/]+/rows"


@dataclass(frozen=True)
class Leaf:
    """What a saved array must still be when it is read."""

    kind: str
    """Its type and shape, for example `float32[64, 192]`."""
    fingerprint: int


@dataclass(frozen=True)
class Meta:
    """What is saved beside the arrays."""

    config: dict[str, Any]
    """Of the run, as `ove.config.to_mapping` gives it."""
    data: dict[str, Any]
    """The place in the data; the caller's own."""
    leaves: dict[str, Leaf]


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints`; saving is asynchronous and atomic."""

    def __init__(self, workdir: Path, keep: int | None = None, keep_every: int = 0, processes: Processes | None = None) -> None:
        """`keep`: how many of the newest stay; without it, a reader who changes nothing, not even what others left behind.

        `keep_every`: those of every so many steps stay besides. `processes`: all that save and restore together.
        """
        self.folder = workdir.resolve() / "checkpoints"
        self._processes = processes
        self._barrier = SaveBarrier(self.folder)
        self._writes = keep is not None
        kept: list[policies.PreservationPolicy] = [policies.LatestN(keep)]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            self.folder,
            # Weights hardly shrink; and in bytes as they are, damage is found, and found by name, by the fingerprints.
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(use_compression=False),
                "meta": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
                create=self._writes,
                cleanup_tmp_directories=self._writes,
                async_options=ocp.AsyncOptions(barrier_sync_fn=self._barrier, post_finalization_callback=self._record_files),
            ),
        )
        self._saving: int | None = None

    def latest(self) -> int | None:
        """Returns the newest finished step."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Returns all finished steps, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, config: RunConfig, data: Mapping[str, Any]) -> None:
        """Starts to save the state with the configuration and the place in the data, which must be JSON."""
        tree, step = _plain(state), int(state.step)
        kinds, prints = _kinds(tree), fingerprints(tree)
        meta = {
            "schema_version": SCHEMA_VERSION,
            "config": to_mapping(config),
            "data": dict(data),
            "leaves": {name: [kinds[name], prints[name]] for name in kinds},
        }
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(tree), meta=ocp.args.JsonSave(meta))
        self.wait()
        self._saving = step
        with self._barrier.watched(step):
            is_saved = self._manager.save(step, args=args)
        if not is_saved:
            raise BadCheckpoint(f"{self.folder}: step {step} could not be saved, for a folder of that name is in the way.")

    def meta(self, step: int) -> Meta:
        """Reads what was saved beside the arrays of `step`; BadCheckpoint if it is of another version.

        DamagedCheckpoint, in all processes, if one of them finds that files were changed, cut or lost.
        """
        with self._together(step, "files"):
            integrity.check_files(self.folder / str(step))
            meta = self._read(step, meta=ocp.args.JsonRestore()).meta
        version = meta.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BadCheckpoint(f"{self.folder}/{step}: has schema version {version!r}, this program reads {SCHEMA_VERSION}.")
        return Meta(meta["config"], meta["data"], {name: Leaf(*leaf) for name, leaf in meta["leaves"].items()})

    def restore(self, step: int, meta: Meta, abstract: TrainState, shardings: TrainState) -> TrainState:
        """Restores the state of `step` to the given shardings; BadCheckpoint if a leaf differs in name, shape or type.

        DamagedCheckpoint, in all processes, with the leaf's name, if the values are not those that were saved.
        Rows that only pad a bank (they hold 0) may be more or fewer than were saved, for another number of devices.
        """
        target = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), abstract, shardings)
        tree = self._arrays(step, meta.leaves, _plain(target))
        return TrainState(**tree | {"rng": jax.random.wrap_key_data(tree["rng"])})

    def restore_params(self, step: int, meta: Meta, config: EncoderConfig) -> encoder.Params:
        """Restores the encoder's parameters alone, to this process's first device; errors as in `restore`."""
        abstract = {"params": jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))}
        place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract)
        leaves = {name: leaf for name, leaf in meta.leaves.items() if name.startswith("params/")}
        return self._arrays(step, leaves, target)["params"]

    def set_aside(self, steps: list[int]) -> Path:
        """Moves checkpoints out of the way, to `checkpoints_damaged` beside the others; returns that folder."""
        aside = self.folder.with_name("checkpoints_damaged")
        if self._processes is None or self._processes.index == 0:
            aside.mkdir(exist_ok=True)
            for step in steps:
                names = (f"{step}{'' if n == 1 else f'_{n}'}" for n in itertools.count(1))
                os.rename(self.folder / str(step), next(aside / name for name in names if not (aside / name).exists()))
        if self._processes is not None:
            self._processes.barrier("damaged checkpoints set aside")
        self._manager.reload()
        return aside

    def check(self) -> None:
        """Raises BadCheckpoint if the save under way has failed; does not wait for it."""
        with self._barrier.watched(self._saving):
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Waits until the save under way, if any, is finished; BadCheckpoint if it failed."""
        with self._barrier.watched(self._saving):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the save under way and ends."""
        self.wait()
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # After an error a save may wait for processes that are gone.
        if error is None or self._processes is None or self._processes.count == 1:
            self.close()

    def _record_files(self) -> None:
        """Notes the files of the checkpoint that is being saved; orbax calls it when all are written, and then renames them."""
        (folder,) = self.folder.glob(f"{self._saving}.*tmp*")
        integrity.record_files(folder)

    @contextlib.contextmanager
    def _together(self, step: int, what: str) -> Iterator[None]:
        """Raises in all processes what one of them finds damaged, so that none goes on alone and waits for the others."""
        mine = None
        try:
            yield
        except DamagedCheckpoint as error:
            if self._processes is None:
                raise
            mine = error
        if self._processes is not None:
            said = self._processes.all_gather(f"{what} of checkpoint {step}", str(mine or ""))
            problems = [problem for problem in said if problem]
            if problems:
                self._processes.end_together(f"{what} of checkpoint {step}")  # it may have been the last one
                raise DamagedCheckpoint(problems[0]) from mine

    def _arrays(self, step: int, leaves: Mapping[str, Leaf], target: Any) -> Any:
        """Reads the saved arrays into the structure and onto the devices of `target`, and verifies each fingerprint."""
        self._compare(step, leaves, _kinds(target))
        restore = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target, strict=False), partial_restore=True
        )
        with self._together(step, "arrays"):
            tree = self._read(step, state=restore).state
        found = fingerprints(tree)
        altered = sorted(name for name, leaf in leaves.items() if found[name] != leaf.fingerprint)
        if altered:
            raise integrity.damaged(
                self.folder / str(step), f"{len(altered)} of its arrays are not what was saved: {integrity.few(altered)}"
            )
        return tree

    def _compare(self, step: int, leaves: Mapping[str, Leaf], wanted: Mapping[str, str]) -> None:
        problems = [f"{name} is missing" for name in wanted.keys() - leaves.keys()]
        problems += [f"{name} is not part of this run" for name in leaves.keys() - wanted.keys()]
        problems += [
            f"{name} is {leaf.kind}, not {wanted[name]}"
            for name, leaf in leaves.items()
            if name in wanted and _but_for_padding(name, leaf.kind) != _but_for_padding(name, wanted[name])
        ]
        if problems:
            raise BadCheckpoint(
                f"{self.folder}/{step}: does not fit this configuration: {integrity.few(sorted(problems))}. "
                "Use the configuration it was made with, or another --workdir."
            )

    def _read(self, step: int, **items: ocp.args.CheckpointArgs) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except jax.errors.JaxRuntimeError:
            raise  # of the device, not of the files
        except Exception as error:  # over damaged files orbax raises anything: ValueError, AssertionError, bare Exception
            raise integrity.damaged(self.folder / str(step), error) from error


def restore_encoder(workdir: Path, step: int | None = None) -> tuple[EncoderConfig, encoder.Params, int]:
    """Returns the encoder of a run: configuration, parameters, and the step they were saved at (by default the newest).

    Of several processes all must call it, and each gets them. BadCheckpoint if there is none, or of another version;
    DamagedCheckpoint, with the steps there are besides.
    """
    if not (workdir / "checkpoints").is_dir():
        raise BadCheckpoint(f"{workdir}: holds no checkpoints; give the --workdir of a training run.")
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        saved = checkpoints.steps()
        if not saved:
            raise BadCheckpoint(f"{workdir}: holds no finished checkpoint; let the run reach its first save.")
        step = saved[-1] if step is None else step
        if step not in saved:
            raise BadCheckpoint(f"{workdir}: holds no checkpoint of step {step}; there are {', '.join(map(str, saved))}.")
        try:
            meta = checkpoints.meta(step)
            config = from_mapping(EncoderConfig, meta.config["encoder"], "encoder.")
            return config, checkpoints.restore_params(step, meta, config), step
        except ConfigError as error:
            raise BadCheckpoint(f"{checkpoints.folder}/{step}: was made by another version of this program: {error}") from error
        except DamagedCheckpoint as error:
            others = ", ".join(str(other) for other in saved if other != step)
            raise DamagedCheckpoint(f"{error} {f'The run also holds step {others}.' if others else ''}".rstrip()) from error


def _plain(state: TrainState) -> dict[str, Any]:
    """Returns the (abstract) state as a dictionary; the typed key as its numbers."""
    rng: Any = state.rng
    if isinstance(rng, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, rng)
        key: Any = jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=rng.sharding)
    else:
        key = jax.random.key_data(rng)
    return {**state._asdict(), "rng": key}


def _kinds(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {leaf_name(path): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in leaves}


def _but_for_padding(name: str, kind: str) -> str:
    """Returns the kind of a leaf without the number of a bank's rows, for zeros at the end do not change its fingerprint."""
    return re.sub(r"\[\d+", "[", kind) if re.search(_ROWS, name) else kind
