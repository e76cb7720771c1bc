"""Resumes a run from its newest intact checkpoint, if configuration and data still match."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ove.config import RunConfig
from ove.config.mapping import from_mapping, to_mapping
from ove.errors import BadCheckpoint, ConfigError, DamagedCheckpoint
from ove.stream.batch_pipeline import Pipeline, StreamProgress, mixture_differences
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.init import TrainState

_FREE = (
    r"(train|evaluation|mesh)\..*",
    r"encoder\.(attention|remat)",
    r"batches\.(heads\[\d+\]\.)?shards\b.*",
    r"batches\.(threads|num_workers|decode_limit_s|max_bad_share|allow_new_data)",
    r"centers\.(chunk_rows|collapse_cosine|positives_capacity)",
)
"""Keys that may change within a run: they affect neither the shape of the state nor the order of the data."""
_FREE_WITH_NEW_DATA = (*_FREE, r"batches\..*")
_ONLY_AT_THE_START = (r"train\.(seed|init_from)",)
"""Keys that are free, but act on a fresh state alone."""


def place_in_data(pipeline: Pipeline, progress: StreamProgress) -> dict[str, Any]:
    """Returns the position in the data to save with a checkpoint, and (`n_centers`) the sizes of its banks."""
    data = {"fingerprint": pipeline.fingerprint, "mixture": pipeline.mixture, "n_centers": pipeline.n_centers}
    return {**vars(progress), **data}


def resume(
    checkpoints: Checkpoints,
    config: RunConfig,
    pipeline: Pipeline,
    abstract: TrainState,
    shardings: TrainState,
    report: Callable[[str], None],
) -> TrainState | None:
    """Restores the newest checkpoint that is whole and sets the pipeline to its place; None if there is no checkpoint.

    Damaged ones are reported and, once an older one has been restored, moved aside. DamagedCheckpoint if none is left,
    BadCheckpoint if one was made with another configuration or other data.
    """
    damaged: list[int] = []
    for step in reversed(checkpoints.steps()):
        try:
            state = _restore(checkpoints, step, config, pipeline, abstract, shardings, report)
        except DamagedCheckpoint as error:
            damaged.append(step)
            report(f"DAMAGED CHECKPOINT: {error}")
            last = error
            continue
        if damaged:
            aside = checkpoints.set_aside(damaged)
            report(f"DAMAGED CHECKPOINT: going back to step {step}; what was damaged is in {aside} now, for you to look at.")
        return state
    if damaged:
        raise DamagedCheckpoint(
            f"{last} No other checkpoint is left to go on from; restore {checkpoints.folder} from a copy, or start anew with "
            "another --workdir."
        )
    return None


def _restore(
    checkpoints: Checkpoints,
    step: int,
    config: RunConfig,
    pipeline: Pipeline,
    abstract: TrainState,
    shardings: TrainState,
    report: Callable[[str], None],
) -> TrainState:
    where = f"{checkpoints.folder}/{step}"
    meta = checkpoints.meta(step)
    differing = _differences(where, meta.config, config)
    may_differ = _FREE_WITH_NEW_DATA if config.batches.allow_new_data else _FREE
    refused = [change for key, change in differing.items() if not _matches(may_differ, key)]
    if refused:
        raise BadCheckpoint(
            f"{where}: was trained with another configuration ({', '.join(refused)}); use that one or another --workdir."
        )
    ignored = [change for key, change in differing.items() if _matches(_ONLY_AT_THE_START, key)]
    applied = [change for key, change in differing.items() if not _matches(_ONLY_AT_THE_START, key)]
    if applied:
        report(f"{where}: the run goes on with other settings: {', '.join(applied)}.")
    if ignored:
        report(f"{where}: WITHOUT EFFECT on a resumed run: {', '.join(ignored)}; start a run with them in another --workdir.")
    data = dict(meta.data)
    mixture = data.pop("mixture", {})
    if data.pop("fingerprint") != pipeline.fingerprint:
        changed = ", ".join(mixture_differences(mixture, pipeline.mixture))
        if not config.batches.allow_new_data:
            raise BadCheckpoint(
                f"{where}: was trained on other records or labels than {_shards(config)} holds now ({changed}); restore those, "
                "use another --workdir, or go on with the new ones by --config.batches.allow_new_data=True."
            )
        report(f"{where}: was trained on other records or labels; the run goes on with what there is now ({changed}).")
    data.pop("n_centers", None)
    state = checkpoints.restore(step, meta, abstract, shardings)
    pipeline.restore(StreamProgress(**data))
    return state


def _shards(config: RunConfig) -> str:
    folders = [folder for head in config.batches.heads for folder in head.shards or (config.batches.shards,)]
    return ", ".join(dict.fromkeys(folders))


def _matches(patterns: tuple[str, ...], key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def _differences(where: str, saved: Mapping[str, Any], config: RunConfig) -> dict[str, str]:
    """Returns key → `encoder.layers 4 → 12` for every key that differs."""
    try:
        # Through the dataclass, so that keys which were added since then get the value that they stood for.
        before = dict(_flat(to_mapping(from_mapping(RunConfig, saved))))
    except ConfigError as error:
        raise BadCheckpoint(f"{where}: was made by another version of this program: {error}") from error
    after = dict(_flat(to_mapping(config)))
    return {
        key: f"{key} {before.get(key)!r} → {after.get(key)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of everything in nested dictionaries and sequences."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}[{index}]")
    else:
        yield name, value
