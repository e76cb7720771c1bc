"""Taking up a run where its newest checkpoint left it, if it is the same run."""

from collections.abc import Iterator, Mapping
from typing import Any

from ove.batches.pipeline import Pipeline, Progress
from ove.config import RunConfig
from ove.config.mapping import from_mapping, to_mapping
from ove.errors import BadCheckpoint, ConfigError
from ove.train.checkpoint import Checkpoints
from ove.train.state import TrainState

_FREE = (
    "train",
    "evaluation",
    "encoder.remat",
    "batches.shards",
    "batches.threads",
    "batches.max_bad_share",
    "centers.chunk_rows",
    "centers.collapse_cosine",
    "centers.positives_capacity",
)
"""Sections and keys that may change within a run: they decide neither the shape of the state nor which data come when."""


def place_in_data(pipeline: Pipeline) -> dict[str, Any]:
    """What a checkpoint must hold for `resume`, and (`n_centers`) for whoever reads its banks."""
    return {**vars(pipeline.progress), "fingerprint": pipeline.fingerprint, "n_centers": pipeline.n_centers}


def resume(
    checkpoints: Checkpoints, config: RunConfig, pipeline: Pipeline, abstract: TrainState, shardings: TrainState
) -> TrainState | None:
    """The state of the newest checkpoint, with the pipeline set to its place in the data; None if there is no checkpoint.

    BadCheckpoint if it is damaged, or was made with another configuration or other data.
    """
    step = checkpoints.latest()
    if step is None:
        return None
    where = f"{checkpoints.folder}/{step}"
    meta = checkpoints.meta(step)
    differing = _differences(where, meta.config, config)
    if differing:
        raise BadCheckpoint(
            f"{where}: was trained with another configuration ({', '.join(differing)}); use that one or another --workdir."
        )
    data = dict(meta.data)
    if data.pop("fingerprint") != pipeline.fingerprint:
        raise BadCheckpoint(
            f"{where}: was trained on other records or labels than {config.batches.shards} holds now; "
            "restore those or use another --workdir."
        )
    data.pop("n_centers", None)
    state = checkpoints.restore(step, meta, abstract, shardings)
    pipeline.restore(Progress(**data))
    return state


def _differences(where: str, saved: Mapping[str, Any], config: RunConfig) -> list[str]:
    """`encoder.layers 4 → 12` for every key that differs and may not."""
    try:
        # Through the dataclass, so that keys which were added since then get the value that they stood for.
        before = dict(_flat(to_mapping(from_mapping(RunConfig, saved))))
    except ConfigError as error:
        raise BadCheckpoint(f"{where}: was made by another version of this program: {error}") from error
    after = dict(_flat(to_mapping(config)))
    return [
        f"{key} {before.get(key)!r} → {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not f"{key}.".startswith(tuple(f"{free}." for free in _FREE))
    ]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in nested dictionaries and sequences."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}[{index}]")
    else:
        yield name, value
