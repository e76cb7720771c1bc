"""Studies: the paper's tables and figures on one encoder."""

import ast
from dataclasses import dataclass, field
from typing import Any

from ove.config.checks import at_least_one
from ove.config.probe import ProbeConfig
from ove.errors import ConfigError

CHOICE = ("gop_frames", "iframe_policy", "buckets", "static_fallback", "outside")
"""Keys of the video section that decide only which patches are chosen: they are tried on shards as they are."""
_FIXED = ("selection", "n_frames", "size_px", "patch_px", "preset")
"""Keys that cannot be options: with them the clips, and so the budgets, would be others."""


@dataclass(frozen=True)
class StudyConfig:
    """What is studied; `probe` says of which encoder, on which shards, and how its probes are trained."""

    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """`probe.budgets` are those of the study `budget`, `probe.seeds` give the error bars of all."""
    budget_tokens: int = 2048
    """Tokens of a clip in all other studies."""
    budget_policy: str = "first"
    """`iframe_policy` in the study `budget`, at every budget: with `keep`, two whole frames of 64, the smallest budget of
    the paper has nothing left to choose."""
    train_videos: str = ""
    val_videos: str = ""
    """Sources (as `launch.shards --videos`) of the probe's shards; for options that change the signals."""
    options: tuple[str, ...] = ()
    """Study `ablation`: each is "KEY=VALUE" of the video section, or several with commas; all else as in the probe's shards."""
    maps: tuple[str, ...] = ("",)
    """Studies `bias` and `allocation`: ways to choose, written alike; "": as in the probe's shards."""

    def __post_init__(self) -> None:
        at_least_one("study", self, "budget_tokens")
        if self.budget_policy not in ("keep", "first", "score", "drop"):
            raise ConfigError(f"study.budget_policy = {self.budget_policy!r} is none of 'keep', 'first', 'score', 'drop'.")
        for option in (*self.options, *self.maps):
            parse_option(option)


def parse_option(text: str) -> dict[str, Any]:
    """`iframe_policy=score, w_motion=0` → a dictionary; "" → an empty one; ConfigError for another form."""
    values: dict[str, Any] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not key or not value:
            raise ConfigError(f"the option {text!r} is not of the form KEY=VALUE or KEY=VALUE, KEY=VALUE.")
        if key in _FIXED:
            raise ConfigError(f"the option {text!r}: {key} cannot be an option, for it makes other clips; study it with shards "
                              "and a configuration of its own.")  # fmt: skip
        values[key] = _literal(value)
    return values


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
