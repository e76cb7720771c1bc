"""The named sizes of the encoder."""

import dataclasses
import difflib
from typing import Any

from ove.config import EncoderConfig
from ove.errors import ConfigError

PRESETS: dict[str, EncoderConfig] = {
    "tiny": EncoderConfig(layers=4, width=192, heads=3, mlp=768),
    "small": EncoderConfig(layers=12, width=384, heads=6, mlp=1536),
    "base": EncoderConfig(layers=12, width=768, heads=12, mlp=3072),
    "large": EncoderConfig(layers=24, width=1024, heads=16, mlp=4096),
    "huge": EncoderConfig(layers=32, width=1280, heads=20, mlp=5120),
}
"""Spec §1; `large` is the paper's."""


def preset(name: str, **overrides: Any) -> EncoderConfig:
    """Returns the configuration called `name` with some of its fields replaced.

    An unknown name or field raises ConfigError, which names the nearest one.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown encoder preset {name!r}; {_nearest(name, list(PRESETS))}")
    fields = [field.name for field in dataclasses.fields(EncoderConfig)]
    for key in overrides:
        if key not in fields:
            raise ConfigError(f"unknown encoder field {key!r} for preset {name!r}; {_nearest(key, fields)}")
    return dataclasses.replace(PRESETS[name], **overrides)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
