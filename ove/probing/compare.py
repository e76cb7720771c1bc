"""Probes one encoder in every mode, at every budget and under every intervention; with its weights and with fresh ones."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ove.config import ProbeConfig
from ove.errors import BadInput, BadShard, ConfigError
from ove.features.frozen import Frozen, open_frozen
from ove.named import named, own_source
from ove.probing.dataset import ProbeDataset, readers
from ove.probing.heads.heads import HEADS
from ove.probing.score_cache import ScoreCache
from ove.probing.scores import Predictions, Scores, mean_and_half_width
from ove.progress import ProgressReport
from ove.records import MODES
from ove.shards.joined import Shards, open_shards, sets_of
from ove.stream.modes import TokenView
from ove.tokens.preprocessing import differs_from_training
from ove.workers import Crew

_DECIDES = (
    "probe",
    "jitter",
    "flip",
    "epochs",
    "batch_size",
    "lr",
    "lr_end",
    "label_smoothing",
    "clip_norm",
    "neighbours",
    "l2",
    "seeds",
)
"""Settings that scores depend on, besides the encoder, the records and how they become tokens."""
Log = Callable[[str], None]


@dataclass(frozen=True)
class ComparisonRow:
    """Scores of one encoder in one mode, at one budget, under one intervention."""

    mode: str
    budget: int
    """Tokens per clip."""
    intervention: str
    untrained: bool
    """Fresh weights instead of the given ones."""
    scores: tuple[Scores, ...]
    """One per seed."""
    predictions: tuple[Predictions, ...] = field(default=(), compare=False)
    """One per seed, for the validation samples; empty if the scores come from the cache."""

    @property
    def name(self) -> str:
        """The mode, after `untrained_` for fresh weights."""
        return f"untrained_{self.mode}" if self.untrained else self.mode

    def top1(self) -> tuple[float, float]:
        """Returns the mean over seeds after the last epoch and half of its 95 % interval (NaN for a single seed)."""
        return mean_and_half_width([scores.last.top1 for scores in self.scores])


@dataclass(frozen=True)
class Comparison:
    """All scores, with the encoder, probe and data sets that gave them."""

    rows: list[ComparisonRow]
    encoder: str
    probe: str
    classes: tuple[str, ...]
    """Class names of the training set, by class index."""
    n_train: int
    n_val: int
    n_unknown: int
    """Validation samples whose class the training set lacks; they count as wrong."""

    @property
    def n_classes(self) -> int:
        """Number of classes of the training set."""
        return len(self.classes)


def compare(config: ProbeConfig, log: Log, cache: ScoreCache | None = None, workers: int = 0) -> Comparison:
    """Runs all probes of a configuration; scores found in `cache` are not computed again.

    Records are decoded by `workers` processes for each set (`ove.probing.dataset.readers`), with 0 in this one. `log` is
    called with a line of text now and then. BadCheckpoint, BadShard, BadInput or ConfigError for missing files or
    settings that do not fit them.
    """
    if set(config.interventions) != {"none"} and "codec" not in config.modes:
        raise ConfigError("interventions change the patches that the codec chose; add codec to modes.")
    for name in ("weights", "train_shards", "val_shards"):
        if not getattr(config, name):
            raise ConfigError(f"probe.{name} is not set; name it in the configuration, or with --config.{name}=….")
    encoder = open_frozen(Path(config.weights), config.compute)
    encoder.check(config.modes)  # before the sets are opened, which may be far away
    sets = open_shards(config.train_shards), open_shards(config.val_shards)
    with readers(sets[0], workers) as of_train, readers(sets[1], workers) as of_val:
        return compare_on(config, encoder, sets, log, cache, (of_train, of_val))


def compare_on(
    config: ProbeConfig,
    encoder: Frozen,
    sets: tuple[Shards, Shards],
    log: Log,
    cache: ScoreCache | None = None,
    apart: Sequence[Crew[Any, Any] | None] = (None, None),
) -> Comparison:
    """Does as `compare` with an encoder and sets that are open, for training and for validation.

    `apart`: the processes that read each of them (`ProbeDataset.apart`).
    """
    encoder.check(config.modes)
    _check(config, encoder, sets)
    classes = tuple(sets[0].classes)
    if len(classes) < 2:
        raise BadShard(
            f"{sets[0].folder}: a probe needs labels of at least two classes, found {len(classes)}; "
            "give the files labels by subfolder or list, and write the shards again."
        )
    log(f"{encoder.name}; {len(sets[0])} {sets[0].kind}s to train the probe, {len(sets[1])} to score it")
    for sentence in _unlike_training(config, encoder, sets[0]):
        log(f"note: the encoder was trained on other inputs: {sentence}")
    encoders = {False: encoder} | ({True: encoder.untrained(config.seeds[0])} if config.untrained else {})
    view, seed = view_of(config, config.budgets[0]), config.seeds[0]
    samples = [ProbeDataset(each, classes, "", view, seed=seed, apart=crew) for each, crew in zip(sets, apart, strict=True)]
    rows, n_unknown = [], 0
    for fresh, condition in itertools.product(encoders, _conditions(config)):
        row, n_unknown = _row(encoders[fresh], fresh, condition, samples, config, log, cache)
        rows.append(row)
    if n_unknown:
        log(f"{n_unknown} of {len(sets[1])} {sets[1].kind}s are of classes that {sets[0].folder} lacks; they count as wrong")
    return Comparison(rows, encoder.name, config.probe, classes, len(sets[0]), len(sets[1]), n_unknown)


def view_of(config: ProbeConfig, budget: int) -> TokenView:
    """Returns the view of clips at a token budget."""
    return TokenView(budget, config.selection)


def _check(config: ProbeConfig, encoder: Frozen, sets: tuple[Shards, Shards]) -> None:
    """Raises ConfigError if sets, modes and budgets do not fit, BadInput if there are more processes than samples."""
    for shards in sets:
        if shards.kind == "image" and set(config.modes) != {"image"}:
            raise ConfigError(
                f"{shards.folder}: contains pictures, but modes = {list(config.modes)} need videos; set modes to ['image']."
            )
        if len(shards) < encoder.part[1]:
            raise BadInput(f"{shards.folder}: {len(shards)} samples for {encoder.part[1]} processes; start fewer.")
    if sets[0].kind != sets[1].kind:
        raise ConfigError(f"{sets[0].folder} holds {sets[0].kind}s and {sets[1].folder} {sets[1].kind}s; give two of a kind.")
    for (mode, budget, _), shards in itertools.product(_conditions(config), sets):
        if shards.kind == "video":
            view_of(config, budget).check(shards.grid_tyx, {MODES.index(mode)})


def _unlike_training(config: ProbeConfig, encoder: Frozen, shards: Shards) -> list[str]:
    """Lists what clips are otherwise than those that the encoder was trained on, for each budget in mode codec."""
    trained = encoder.inputs
    if trained is None or trained.mode == "image" or shards.kind == "image" or "codec" not in config.modes:
        return []
    videos = [part.manifest.video_config(config.selection) for part in sets_of(shards)]
    found = [
        differs_from_training(trained, replace(trained, mode="codec", video=video, budget=budget))
        for video in videos
        for budget in config.budgets
    ]
    return list(dict.fromkeys(itertools.chain.from_iterable(found)))


def _view(config: ProbeConfig, budget: int, encoder: Frozen, shards: Shards) -> TokenView:
    """Returns `view_of`, with a common size for pictures."""
    view = view_of(config, budget)
    if shards.kind == "video":
        return view
    patch_px = encoder.config.patch_px
    if config.image_px % patch_px:
        raise ConfigError(f"probe.image_px = {config.image_px} is not a multiple of the encoder's patch size, {patch_px} px.")
    return replace(view, size_px=config.image_px, patch_px=patch_px)


_Condition = tuple[str, int, str]
"""Mode, budget, intervention."""


def _conditions(config: ProbeConfig) -> Iterator[_Condition]:
    """Yields all conditions: interventions apply to mode codec only, budgets do not apply to mode image."""
    for mode in config.modes:
        for budget in config.budgets[:1] if mode == "image" else config.budgets:
            for intervention in config.interventions if mode == "codec" else ("none",):
                yield mode, budget, intervention


def _row(
    encoder: Frozen,
    fresh: bool,
    condition: _Condition,
    samples: Sequence[ProbeDataset],
    config: ProbeConfig,
    log: Log,
    cache: ScoreCache | None,
) -> tuple[ComparisonRow, int]:
    """Runs one condition on the samples to train on and those to score on, which lack mode, view and intervention."""
    mode, budget, intervention = condition
    row = ComparisonRow(mode, budget, intervention, fresh, ())
    size = [f"{budget} tokens"] if mode != "image" else []
    called = " ".join([row.name.replace("_", " "), *size, *([intervention] if intervention != "none" else [])])
    shards = samples[0].shards
    view = _view(config, budget, encoder, shards)
    train, val = (replace(each, mode=mode, view=view, intervention=intervention) for each in samples)
    about = {
        "encoder": encoder.fingerprint,
        "looks": [each.cache_key() for each in (train, val)],
        "probe": {name: getattr(config, name) for name in _DECIDES},
        **own_source(HEADS, config.probe, "probe.probe"),
    }
    known = cache.find(about) if cache else None
    predictions: tuple[Predictions, ...] = ()
    if known is None:
        progress = ProgressReport(lambda line, is_last: log(line), f"{shards.kind}s").of(f"{called}: features of")
        head = named(HEADS, config.probe, "probe.probe")
        scores, predictions = zip(*head(encoder, train, val, len(train.classes), config, progress), strict=True)
        n_unknown = val.n_unknown()
        if cache:
            cache.add(about, scores, n_unknown)
    else:
        scores, n_unknown = known
    row = replace(row, scores=scores, predictions=predictions)
    best = mean_and_half_width([each.best.top1 for each in scores])[0]
    log(f"{called}: top-1 {row.top1()[0]:.1%} (best epoch {best:.1%}){', cached' if known else ''}")
    return row, n_unknown
