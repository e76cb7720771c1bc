"""Checkpoints: orbax writes and reads them, our own fingerprint of every leaf says whether they are still what was saved."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array

from ove.config import EncoderConfig, RunConfig, from_mapping, to_mapping
from ove.encoder import encoder
from ove.errors import BadCheckpoint
from ove.train.sharding import leaf_name
from ove.train.state import TrainState

SCHEMA_VERSION = 1


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints`; saving is asynchronous and atomic."""

    def __init__(self, workdir: Path, keep: int) -> None:
        """`keep`: how many of the newest stay."""
        self.folder = workdir.resolve() / "checkpoints"
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
        )

    def latest(self) -> int | None:
        """The newest finished step."""
        return self._manager.latest_step()

    def save(self, state: TrainState, config: RunConfig, data: Mapping[str, Any]) -> None:
        """Starts to save the state with the configuration and the position in the data."""
        tree = _plain(state)
        meta = {
            "schema_version": SCHEMA_VERSION,
            "config": to_mapping(config),
            "data": dict(data),
            "fingerprints": fingerprints(tree),
        }
        args = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        if not self._manager.save(int(state.step), args=args):
            raise BadCheckpoint(
                f"{self.folder}: step {int(state.step)} could not be saved; a folder of that name is in the way."
            )

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the arrays: configuration, position in the data, fingerprints."""
        try:
            meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        except (FileNotFoundError, KeyError, ValueError, json.JSONDecodeError) as error:
            raise BadCheckpoint(
                f"{self.folder}/{step}: cannot be read ({error}); delete it to go on from the one before."
            ) from error
        if meta.get("schema_version") != SCHEMA_VERSION:
            raise BadCheckpoint(
                f"{self.folder}/{step}: has schema version {meta.get('schema_version')}, this program reads {SCHEMA_VERSION}."
            )
        return meta

    def restore(self, step: int, abstract: TrainState, shardings: TrainState) -> TrainState:
        """The state saved at `step`, on the given shardings; BadCheckpoint if a leaf differs in name, shape, type or value."""
        meta = self.meta(step)
        target = _plain(
            jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), abstract, shardings)
        )
        self._compare(step, target)
        tree = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))).state
        self._check(step, tree, meta["fingerprints"])
        return TrainState(**tree | {"rng": jax.random.wrap_key_data(tree["rng"])})

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.wait_until_finished()
        self._manager.close()

    def _compare(self, step: int, target: Any) -> None:
        saved = _described(self._manager.item_metadata(step).state)
        wanted = _described(target)
        problems = [f"{name} is missing" for name in wanted.keys() - saved.keys()]
        problems += [f"{name} is not part of this run" for name in saved.keys() - wanted.keys()]
        problems += [
            f"{name} is {saved[name]}, not {wanted[name]}"
            for name in wanted.keys() & saved.keys()
            if saved[name] != wanted[name]
        ]
        if problems:
            more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise BadCheckpoint(
                f"{self.folder}/{step}: does not fit this configuration: {'; '.join(sorted(problems)[:4])}{more}. "
                "Use the configuration it was made with, or another workdir."
            )

    def _check(self, step: int, tree: Any, expected: dict[str, int]) -> None:
        found = fingerprints(tree)
        damaged = sorted(name for name in expected if found.get(name) != expected[name])
        if damaged:
            raise BadCheckpoint(
                f"{self.folder}/{step}: {len(damaged)} array(s) are not what was saved ({', '.join(damaged[:4])}); "
                "the files are damaged: delete this step to go on from the one before."
            )


def restore_encoder(workdir: Path) -> tuple[EncoderConfig, encoder.Params, int]:
    """The encoder of the newest checkpoint of a run: its configuration, its parameters, and the step they were saved at."""
    if not (workdir / "checkpoints").is_dir():
        raise BadCheckpoint(f"{workdir}: holds no checkpoints; give the --workdir of a training run.")
    checkpoints = Checkpoints(workdir, keep=1_000_000)
    with contextlib.closing(checkpoints):
        step = checkpoints.latest()
        if step is None:
            raise BadCheckpoint(f"{workdir}: holds no finished checkpoint; let the run reach its first save.")
        meta = checkpoints.meta(step)
        config = from_mapping(EncoderConfig, meta["config"]["encoder"])
        abstract = {"params": jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))}
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract)
        args = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        tree = ocp.CheckpointManager(checkpoints.folder).restore(step, args=ocp.args.Composite(state=args)).state
        checkpoints._check(step, tree, {k: v for k, v in meta["fingerprints"].items() if k.startswith("params/")})
    return config, tree["params"], step


def fingerprints(tree: Any) -> dict[str, int]:
    """A 32-bit sum of every leaf, the same on any number of devices, which every flipped bit changes.

    Bits are read as unsigned integers and weighted by an odd number that depends on the place; the sum wraps at 2^32.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = _sums([leaf for _, leaf in leaves])
    return {leaf_name(path): int(total) for (path, _), total in zip(leaves, jax.device_get(sums), strict=True)}


@jax.jit
def _sums(leaves: list[Array]) -> list[Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(leaf: Array) -> Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
        place = place * jnp.uint32(leaf.shape[axis]) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    return jnp.sum(bits * (place * jnp.uint32(2654435761) * 2 + 1), dtype=jnp.uint32)


def _plain(state: TrainState) -> dict[str, Any]:
    """The state as a dictionary; the typed key as its numbers."""
    rng: Any = state.rng
    if isinstance(rng, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, rng)
        key: Any = jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=rng.sharding)
    else:
        key = jax.random.key_data(rng)
    return {
        "step": state.step,
        "params": state.params,
        "banks": state.banks,
        "opt_state": state.opt_state,
        "rng": key,
    }


def _described(tree: Any) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {leaf_name(path): f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for path, leaf in leaves}
