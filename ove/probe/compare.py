"""Codec against frames at one budget, and the trained encoder against its own initial weights."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax

from ove.batches.modes import View
from ove.config import ProbeConfig
from ove.encoder import encoder
from ove.errors import BadShard
from ove.probe.attentive import Scores, fit
from ove.probe.features import extract
from ove.shards.read import ShardSet
from ove.train.checkpoint import restore_encoder


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    """`codec`, `frames`, `untrained_codec`, …"""
    mode: str
    trained: bool
    scores: Scores


def compare(config: ProbeConfig, report: Callable[[str], None]) -> list[Row]:
    """Probes every mode of the configuration on the newest checkpoint of its workdir, and on untrained weights if asked to.

    BadCheckpoint, BadShard or ConfigError if something that it names is missing or does not fit.
    """
    encoder_config, params, step = restore_encoder(Path(config.workdir))
    train, val = ShardSet.open(Path(config.train_shards)), ShardSet.open(Path(config.val_shards))
    classes = train.classes
    if len(classes) < 2:
        raise BadShard(
            f"{train.folder}: a probe needs labels of at least two classes, found {len(classes)}; "
            "give the videos labels by subfolder or list, and write the shards again."
        )
    view = View(config.budget_tokens, config.gop_frames, config.iframe_policy)
    encoders = [("", True, params)]
    if config.untrained:
        encoders.append(("untrained_", False, encoder.init(encoder_config, jax.random.key(config.seed))))
    rows = []
    for prefix, trained, weights in encoders:
        for mode in config.modes:
            name = prefix + mode
            progress = _progress(report, name)
            features = [extract(encoder_config, weights, shards, classes, mode, view, progress) for shards in (train, val)]
            scores = fit(encoder_config, config, len(classes), *features)
            report(f"{name}: top-1 {scores.top1_last:.1%} (best epoch {scores.top1_best:.1%})")
            rows.append(Row(name, mode, trained, scores))
    report(f"probed the encoder of step {step} on {len(val)} validation videos, trained on {len(train)}")
    return rows


def _progress(report: Callable[[str], None], name: str) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if done == total:
            report(f"{name}: features of {total} videos")

    return tell
