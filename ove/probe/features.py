"""Tokens of a frozen encoder for every record of a shard set, each record exactly once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float16, Int32

from ove.batches.modes import MODES, View, see
from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.errors import BadShard, ConfigError
from ove.shards.read import ShardSet

_BATCH = 16


@dataclass(frozen=True)
class Features:
    """What the probe gets to see."""

    tokens: Float16[np.ndarray, "S N D"]
    labels: Int32[np.ndarray, "S"]
    """Index into the classes of the set that the probe is trained on."""


def extract(
    config: EncoderConfig,
    params: encoder.Params,
    shards: ShardSet,
    classes: list[str],
    mode: str,
    view: View,
    report: Callable[[int, int], None],
) -> Features:
    """Tokens after the encoder's last norm for all records, without augmentation; `report(done, total)` is called now and then.

    ConfigError for an unknown mode, BadShard for records without a label or with one that is not among `classes`.
    """
    if mode not in MODES:
        raise ConfigError(f"probe mode {mode!r} is none of {', '.join(MODES)}.")
    n = len(shards)
    labels = np.array([_label(shards, i, classes) for i in range(n)], np.int32)
    forward = jax.jit(lambda patches, positions: encoder.apply(config, params, patches, positions).tokens.astype(np.float16))
    found = []
    with ThreadPoolExecutor(2) as pool:
        seen = pool.map(lambda i: see(shards.record(i), MODES.index(mode), view, None), range(n))
        for start in range(0, n, _BATCH):
            size = min(_BATCH, n - start)
            patches, positions = (np.stack(part) for part in zip(*(next(seen) for _ in range(size)), strict=True))
            # The last batch is filled up with copies, so that one program serves all; they are cut off again.
            fill = np.minimum(np.arange(_BATCH), size - 1)
            found.append(np.asarray(forward(patches[fill], positions[fill]))[:size])
            report(start + size, n)
    return Features(np.concatenate(found), labels)


def _label(shards: ShardSet, index: int, classes: list[str]) -> int:
    label = shards.record(index).label
    if label not in classes:
        raise BadShard(
            f"{shards.folder}: record {index} has the label {label!r}, the training set has "
            f"{', '.join(classes) or 'no labels'}; give the videos labels by subfolder or list, then run launch.shards again."
        )
    return classes.index(label)
