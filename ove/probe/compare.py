"""One encoder in every mode, at every budget, under every intervention; with its own weights and with fresh ones."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ove.config import ProbeConfig
from ove.errors import BadInput, BadShard, ConfigError
from ove.features.frozen import Frozen, open_frozen, untrained
from ove.probe.dataset import UNKNOWN, Looks
from ove.probe.features import Encoded, Source, embed, extract, stored
from ove.probe.heads.attentive import fit
from ove.probe.heads.knn import knn
from ove.probe.heads.linear import fit_linear
from ove.probe.score_cache import Kept
from ove.probe.scores import Said, Scores, mean_and_half_width
from ove.progress import Progress
from ove.shards.read import ShardSet
from ove.stream.modes import MODES, TokenView

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
"""Settings on which scores depend beside the encoder, the records and the way of looking at them."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """The scores of one encoder, seeing one way."""

    mode: str
    budget: int
    """Tokens of a clip."""
    intervention: str
    untrained: bool
    """With fresh weights in the place of those that were given."""
    scores: tuple[Scores, ...]
    """One a seed."""
    said: tuple[Said, ...] = field(default=(), compare=False)
    """What each of these probes says of the validation samples; nothing where scores were kept from earlier."""

    @property
    def name(self) -> str:
        """`codec`, `untrained_frames`, …, with the budget and the intervention where there are several."""
        return f"untrained_{self.mode}" if self.untrained else self.mode

    def top1(self) -> tuple[float, float]:
        """Mean over the seeds after the last epoch, and half of its 95 % interval (NaN for a single seed)."""
        return mean_and_half_width([scores.last.top1 for scores in self.scores])


@dataclass(frozen=True)
class Comparison:
    """All scores, and what they were measured on."""

    rows: list[Row]
    encoder: str
    probe: str
    classes: tuple[str, ...]
    """Of the training set; numbers of classes are places in it."""
    n_train: int
    n_val: int
    n_unknown: int
    """Of the validation samples: their class is not in the training set, so that they count as wrong."""

    @property
    def n_classes(self) -> int:
        """How many classes a probe chooses from."""
        return len(self.classes)


def compare(config: ProbeConfig, tell: Tell, kept: Kept | None = None) -> Comparison:
    """Probes as configured; `tell` gets a line now and then. What is `kept` from earlier is not done again.

    BadCheckpoint, BadShard, BadInput or ConfigError if something that it names is missing or does not fit.
    """
    if set(config.interventions) != {"none"} and "codec" not in config.modes:
        raise ConfigError("interventions change what the codec chose; add codec to modes.")
    encoder = open_frozen(Path(config.weights), config.compute)
    encoder.check(config.modes)
    sets = ShardSet.open(config.train_shards), ShardSet.open(config.val_shards)
    _check(config, encoder, sets)
    classes = tuple(sets[0].classes)
    if len(classes) < 2:
        raise BadShard(
            f"{sets[0].folder}: a probe needs labels of at least two classes, found {len(classes)}; "
            "give the files labels by subfolder or list, and write the shards again."
        )
    tell(f"{encoder.name}; {len(sets[0])} {sets[0].kind}s to train the probe, {len(sets[1])} to score it")
    encoders = {False: encoder} | ({True: untrained(encoder, config.seeds[0])} if config.untrained else {})
    rows, n_unknown = [], 0
    for fresh, way in itertools.product(encoders, _ways(config)):
        row, n_unknown = _row(encoders[fresh], fresh, way, sets, classes, config, tell, kept)
        rows.append(row)
    if n_unknown:
        tell(f"{n_unknown} of {len(sets[1])} {sets[1].kind}s are of classes that {sets[0].folder} lacks; they count as wrong")
    return Comparison(rows, encoder.name, config.probe, classes, len(sets[0]), len(sets[1]), n_unknown)


def view_of(config: ProbeConfig, budget: int) -> TokenView:
    """How clips are looked at with so many tokens."""
    return TokenView(budget, config.gop_frames, config.iframe_policy, config.buckets, config.static_fallback, config.outside)


def _check(config: ProbeConfig, encoder: Frozen, sets: tuple[ShardSet, ShardSet]) -> None:
    """Whether sets, modes and budgets go together, and there is work for all processes."""
    for shards in sets:
        if shards.kind == "image" and set(config.modes) != {"image"}:
            raise ConfigError(
                f"{shards.folder}: holds pictures, and modes = {list(config.modes)} need videos; set modes to ['image']."
            )
        if len(shards) < encoder.part[1]:
            raise BadInput(f"{shards.folder}: {len(shards)} samples for {encoder.part[1]} processes; start fewer.")
    if sets[0].kind != sets[1].kind:
        raise ConfigError(f"{sets[0].folder} holds {sets[0].kind}s and {sets[1].folder} {sets[1].kind}s; give two of a kind.")
    for (mode, budget, _), shards in itertools.product(_ways(config), sets):
        if shards.kind == "video":
            view_of(config, budget).check(shards.grid_tyx, {MODES.index(mode)})


def _view(config: ProbeConfig, budget: int, encoder: Frozen, shards: ShardSet) -> TokenView:
    """As `view_of`; pictures, which have sizes of their own, become squares of one size."""
    view = view_of(config, budget)
    if shards.kind == "video":
        return view
    patch_px = encoder.config.patch_px
    if config.image_px % patch_px:
        raise ConfigError(f"probe.image_px = {config.image_px} is no multiple of the encoder's patches of {patch_px} px.")
    return replace(view, size_px=config.image_px, patch_px=patch_px)


_Way = tuple[str, int, str]
"""Mode, budget, intervention."""


def _ways(config: ProbeConfig) -> Iterator[_Way]:
    """Interventions change what the codec chose, other modes stay as they are; a picture has one size, whatever the budget."""
    for mode in config.modes:
        for budget in config.budgets[:1] if mode == "image" else config.budgets:
            for intervention in config.interventions if mode == "codec" else ("none",):
                yield mode, budget, intervention


def _row(
    encoder: Frozen,
    fresh: bool,
    way: _Way,
    sets: tuple[ShardSet, ShardSet],
    classes: tuple[str, ...],
    config: ProbeConfig,
    tell: Tell,
    kept: Kept | None,
) -> tuple[Row, int]:
    mode, budget, intervention = way
    row = Row(mode, budget, intervention, fresh, ())
    size = [f"{budget} tokens"] if mode != "image" else []
    called = " ".join([row.name.replace("_", " "), *size, *([intervention] if intervention != "none" else [])])
    view, seed = _view(config, budget, encoder, sets[0]), config.seeds[0]
    looks = [Looks(shards, classes, mode, view, intervention, seed) for shards in sets]
    about = {
        "encoder": encoder.fingerprint,
        "looks": [each.about() for each in looks],
        "probe": {name: getattr(config, name) for name in _DECIDES},
    }
    known = kept.find(about) if kept else None
    said: tuple[Said, ...] = ()
    if known is None:
        report = Progress(lambda line, is_last: tell(line), f"{sets[0].kind}s").of(f"{called}: features of")
        scores, said, n_unknown = _scores(encoder, looks, len(classes), config, report)
        if kept:
            kept.add(about, scores, n_unknown)
    else:
        scores, n_unknown = known
    row = replace(row, scores=scores, said=said)
    best = mean_and_half_width([each.best.top1 for each in scores])[0]
    tell(f"{called}: top-1 {row.top1()[0]:.1%} (best epoch {best:.1%}){', as found' if known else ''}")
    return row, n_unknown


def _scores(
    encoder: Frozen, looks: list[Looks], n_classes: int, config: ProbeConfig, report: Callable[[int, int], None]
) -> tuple[tuple[Scores, ...], tuple[Said, ...], int]:
    """Of every seed, and how many samples of the second of `looks` are of unknown classes."""
    if config.probe == "attentive":
        train, val = (_tokens(encoder, each, config, report, is_val=n == 1) for n, each in enumerate(looks))
        fits = [fit(encoder, config, n_classes, train, val, seed) for seed in config.seeds]
        scores, said = zip(*fits, strict=True)
        return scores, said, int((val.labels == UNKNOWN).sum())
    near, asked = (embed(encoder, each, report) for each in looks)
    if config.probe == "knn":
        found, said_of_val = knn(n_classes, near, asked, config.neighbours)
    else:
        found, said_of_val = fit_linear(n_classes, near, asked, config.l2)
    return (found,), (said_of_val,), int((asked.labels == UNKNOWN).sum())


def _tokens(encoder: Frozen, looks: Looks, config: ProbeConfig, report: Callable[[int, int], None], is_val: bool) -> Source:
    if config.features == "disk":
        return stored(encoder, looks, Path(config.cache), report)
    if config.features == "encode":
        return Encoded(encoder, looks if is_val else replace(looks, jitter=config.jitter, flip=config.flip))
    return extract(encoder, looks, report)
