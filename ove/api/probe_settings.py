"""Which settings of the probe section `ove.probe` takes, for which head and samples."""

from collections.abc import Mapping
from typing import Any

from ove.api.arguments import refuse
from ove.config import ProbeConfig
from ove.config.mapping import OLD_KEYS, from_mapping
from ove.errors import ConfigError

OF_HEAD: Mapping[str, tuple[str, ...]] = {
    "linear": ("l2",),
    "knn": ("neighbours",),
    "attentive": (
        "epochs",
        "batch_size",
        "lr",
        "lr_end",
        "label_smoothing",
        "clip_norm",
        "features",
        "cache",
        "jitter",
        "flip",
    ),
}
"""Settings that a head has; all have `seeds`."""
OF_SELECTION = ("selection", *OLD_KEYS["ProbeConfig"])
OF_SHARDS = (*OF_SELECTION, "image_px", "features", "cache", "jitter", "flip")
_ELSEWHERE = {
    "weights": "model",
    "train_shards": "train",
    "val_shards": "val",
    "probe": "head",
    "modes": "mode",
    "budgets": "budget",
    "compute": "compute of ove.load",
    "interventions": "`ove probe`",
    "untrained": "`ove probe`",
}
"""Keys of the probe section that are other arguments here, or for the command alone."""


def probe_settings(head: str, settings: Mapping[str, Any]) -> ProbeConfig:
    """Returns the probe section; ConfigError for settings that are unknown, said otherwise here, or of another head."""
    for name in settings:
        if name in _ELSEWHERE:
            raise ConfigError(f"unexpected argument {name}; use {_ELSEWHERE[name]}.")
    config = from_mapping(ProbeConfig, {"probe": head, "untrained": False} | dict(settings), "probe.")
    for other, own in OF_HEAD.items() if head in OF_HEAD else ():
        if other != head:
            refuse({name: settings.get(name) for name in own}, f"head = {other!r}", f"head = {head!r}")
    if len(config.seeds) > 1:
        raise ConfigError(f"seeds = {config.seeds} must be one seed, such as (0,); probe once with each.")
    return config
