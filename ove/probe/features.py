"""Tokens of a frozen encoder for every record of a shard set, each record exactly once."""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float16, Float32, Int32

from ove.batches.modes import MODES, View, see
from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.errors import BadShard
from ove.shards.read import ShardSet

BATCH = 16
"""Records that go through the encoder at once."""
_THREADS = 2


@dataclass(frozen=True)
class Features:
    """What the probe gets to see."""

    tokens: Float16[np.ndarray, "S N D"]
    labels: Int32[np.ndarray, "S"]
    """Index into the classes of the set that the probe is trained on."""


@dataclass(frozen=True)
class Embeddings:
    """One vector a record."""

    vectors: Float32[np.ndarray, "S E"]
    """Of length 1."""
    labels: Int32[np.ndarray, "S"]
    """As in `Features`."""


@dataclass(frozen=True)
class _Seen:
    patches: np.ndarray
    positions: np.ndarray
    label: int


def extract(
    config: EncoderConfig,
    params: encoder.Params,
    shards: ShardSet,
    classes: Sequence[str],
    mode: str,
    view: View,
    report: Callable[[int, int], None],
) -> Features:
    """Tokens after the encoder's last norm for all records in order, without augmentation; `report(done, total)` at each batch.

    `mode` is one of `MODES`. BadShard for a damaged record, or one without a label or with one that is not among `classes`.
    """
    tokens, labels = [], []
    for seen in _ahead(lambda index: _see(shards, index, classes, mode, view), len(shards)):
        tokens.append(np.asarray(_forward(config, params, *_filled_up(seen)))[: len(seen)])
        labels += [s.label for s in seen]
        report(len(labels), len(shards))
    return Features(np.concatenate(tokens), np.array(labels, np.int32))


def embed(
    config: EncoderConfig, params: encoder.Params, shards: ShardSet, classes: Sequence[str], mode: str, view: View
) -> Embeddings:
    """The embedding of every record in order, of length 1, without augmentation; otherwise as `extract`."""
    vectors, labels = [], []
    for seen in _ahead(lambda index: _see(shards, index, classes, mode, view), len(shards)):
        vectors.append(np.asarray(_pooled(config, params, *_filled_up(seen)))[: len(seen)])
        labels += [s.label for s in seen]
    return Embeddings(np.concatenate(vectors), np.array(labels, np.int32))


def _filled_up(seen: Sequence[_Seen]) -> tuple[np.ndarray, np.ndarray]:
    """Patches and positions; the last batch is filled up with copies, so that one program serves all."""
    full = [seen[min(place, len(seen) - 1)] for place in range(BATCH)]
    return np.stack([s.patches for s in full]), np.stack([s.positions for s in full])


@functools.partial(jax.jit, static_argnums=0)
def _forward(config: EncoderConfig, params: encoder.Params, patches: Array, positions: Array) -> Float16[Array, "B N D"]:
    return encoder.apply(config, params, patches, positions).tokens.astype(jnp.float16)


@functools.partial(jax.jit, static_argnums=0)
def _pooled(config: EncoderConfig, params: encoder.Params, patches: Array, positions: Array) -> Float32[Array, "B E"]:
    pooled = encoder.apply(config, params, patches, positions).pooled
    assert pooled is not None, "the embedding of an encoder without a head"
    pooled = pooled.astype(jnp.float32)
    return pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-30)


def _ahead(see_one: Callable[[int], _Seen], total: int) -> Iterator[list[_Seen]]:
    """Batches of 0 … total − 1 in order, the next one being read while the caller works on this one."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: list[Future[_Seen]] = []
        for start in range(0, total, BATCH):
            batch, waiting = waiting, [pool.submit(see_one, i) for i in range(start, min(start + BATCH, total))]
            if batch:
                yield [future.result() for future in batch]
        yield [future.result() for future in waiting]


def _see(shards: ShardSet, index: int, classes: Sequence[str], mode: str, view: View) -> _Seen:
    record = shards.video(index)
    if record.label not in classes:
        raise BadShard(
            f"{shards.folder}: {record.key} has the label {record.label!r}, the training set has "
            f"{', '.join(classes) or 'no labels'}; give the videos labels by subfolder or list, then run launch.shards again."
        )
    patches, positions = see(record, MODES.index(mode), view, None)
    return _Seen(patches, positions, classes.index(record.label))
