"""The argument of a pretraining recipe: `--config=configs/pretrain_stage1.py:ARG`."""

import re
from collections.abc import Sequence
from typing import NamedTuple


class RecipeArg(NamedTuple):
    """What the argument asks for."""

    size: str
    """A preset of the encoder."""
    devices: int
    smoke: bool
    """A run of seconds on the toy shards."""


def parse(arg: str, *, sizes: Sequence[str] = ("base", "large", "huge"), size: str = "large", devices: int = 0) -> RecipeArg:
    """Parses words with commas between them: one of `sizes` (without: `size`), smoke and, unless `devices` is 0, devices=N.

    `devices`: N if it is not given. ValueError for any other word, and for two sizes or numbers.
    """
    words = [word for word in arg.split(",") if word]
    named = [word for word in words if word in sizes]
    counts = [word for word in words if devices and re.fullmatch(r"devices=[1-9][0-9]*", word)]
    if len(named) > 1 or len(counts) > 1 or not {*words} <= {*named, *counts, "smoke"}:
        options = "devices=N or smoke" if devices else "smoke"
        raise ValueError(f"{arg!r} is not known here; give {', '.join(sizes[:-1])} or {sizes[-1]}, and {options} if you like")
    n_devices = int(counts[0].removeprefix("devices=")) if counts else devices
    return RecipeArg(named[0] if named else size, n_devices, "smoke" in words)
