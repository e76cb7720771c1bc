"""Codec against frames at one budget, and the trained encoder against an untrained one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from ove.batches.modes import MODES, View
from ove.config import ProbeConfig
from ove.encoder import encoder
from ove.errors import BadShard, ConfigError
from ove.probe.attentive import Scores, fit
from ove.probe.features import extract
from ove.shards.read import ShardSet
from ove.train.checkpoint import restore_encoder

_EVERY_S = 10.0
"""Between two lines of progress."""


@dataclass(frozen=True)
class Row:
    """The scores of one encoder in one mode."""

    mode: str
    trained: bool
    scores: Scores

    @property
    def name(self) -> str:
        """`codec`, `frames`, `untrained_codec`, …"""
        return self.mode if self.trained else f"untrained_{self.mode}"


@dataclass(frozen=True)
class Comparison:
    """All scores, and what they were measured on."""

    rows: list[Row]
    budget_tokens: int
    n_classes: int
    n_train: int
    n_val: int
    step: int
    """That the encoder was trained for."""


def compare(config: ProbeConfig, report: Callable[[str], None]) -> Comparison:
    """Probes every mode of the configuration on the newest checkpoint of its workdir, and on untrained weights if asked to.

    BadCheckpoint, BadShard or ConfigError if something that it names is missing or does not fit.
    """
    encoder_config, params, step = restore_encoder(Path(config.workdir))
    train, val = ShardSet.open(Path(config.train_shards)), ShardSet.open(Path(config.val_shards))
    view = View(config.budget_tokens, config.gop_frames, config.iframe_policy)
    _check(config, train, val, view)
    report(f"encoder of step {step} of {config.workdir}; {len(train)} videos to train the probe, {len(val)} to score it")
    weights = {True: params}
    if config.untrained:
        weights[False] = encoder.init(encoder_config, jax.random.key(config.seed))
    rows = []
    for trained in weights:
        for mode in config.modes:
            name = mode if trained else f"untrained {mode}"
            features = [
                extract(encoder_config, weights[trained], shards, train.classes, mode, view, _progress(report, name))
                for shards in (train, val)
            ]
            scores = fit(encoder_config, config, len(train.classes), *features)
            report(f"{name}: top-1 {scores.top1_last:.1%} (best epoch {scores.top1_best:.1%})")
            rows.append(Row(mode, trained, scores))
    return Comparison(rows, config.budget_tokens, len(train.classes), len(train), len(val), step)


def _check(config: ProbeConfig, train: ShardSet, val: ShardSet, view: View) -> None:
    unknown = [mode for mode in config.modes if mode not in MODES]
    if unknown or not config.modes:
        raise ConfigError(f"modes = {list(config.modes)}: name one or more of {', '.join(MODES)}.")
    for shards in (train, val):
        view.check(shards.grid_tyx, {MODES.index(mode) for mode in config.modes})
    if len(train.classes) < 2:
        raise BadShard(
            f"{train.folder}: a probe needs labels of at least two classes, found {len(train.classes)}; "
            "give the videos labels by subfolder or list, and write the shards again."
        )


def _progress(report: Callable[[str], None], name: str) -> Callable[[int, int], None]:
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done < total and time.monotonic() - told > _EVERY_S:
            told = time.monotonic()
            report(f"{name}: features of {done} of {total} videos")

    return tell
