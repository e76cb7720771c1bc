"""Which known keys come near a misspelt one."""

import difflib
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from ove.config.section import hints_of

_MOST = 3
_NEAR = 0.7
"""Least likeness of two names that are near, 0…1."""
_WORDS = 0.85
"""Likeness of `gop` and `gop_frames`: all words of one are words of the other."""
_LAST_PART = 0.8
"""Weight of the last part of a name; the sections before it have the rest."""
_BEHIND = 0.1
"""A key that is less like the given one than the best by more than this is not suggested."""


def suggestion(cls: type, prefix: str, given: str, old_keys: Mapping[str, Mapping[str, str]]) -> str:
    """Returns `did you mean a, b or c?` with the keys of a configuration nearest to `given`; "" if none is near.

    `prefix`: how all keys of the configuration begin. `old_keys`: former name → name, by class; a former name that is near
    suggests the present one.
    """
    scores: dict[str, float] = {}
    number = re.search(r"\[\d+\]", given)
    for spelt, key in _spellings(cls, prefix, old_keys):
        shown = key.replace("[i]", number[0]) if number else key
        scores[shown] = max(scores.get(shown, 0.0), _likeness(given, spelt.replace("[i]", number[0] if number else "[i]")))
    best = max(scores.values(), default=0.0)
    near = sorted(
        (key for key, score in scores.items() if score and score >= best - _BEHIND), key=lambda key: (-scores[key], len(key))
    )
    if not near:
        return ""
    *others, last = near[:_MOST]
    return f"did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _spellings(cls: type, prefix: str, old_keys: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Yields (spelling, key) of all keys of a dataclass and of its sections."""
    for old, new in old_keys.get(cls.__name__, {}).items():
        yield f"{prefix}{old}", f"{prefix}{new}"
    if hasattr(cls, "PRESETS"):
        yield f"{prefix}preset", f"{prefix}preset"
    for name, hint in hints_of(cls).items():
        if not is_dataclass(hint):
            yield f"{prefix}{name}", f"{prefix}{name}"
        sections: list[tuple[Any, str]] = [(hint, ".")] + [(part, "[i].") for part in typing.get_args(hint)]
        for section, between in sections:
            if isinstance(section, type) and is_dataclass(section):
                yield from _spellings(section, f"{prefix}{name}{between}", old_keys)


def _likeness(given: str, key: str) -> float:
    """Returns how alike two dotted names are, 0…1; 0 if their last parts are not near."""
    (given_before, _, given_last), (before, _, last) = given.lower().rpartition("."), key.lower().rpartition(".")
    words, others = set(given_last.split("_")), set(last.split("_"))
    alike = max(_ratio(given_last, last), _WORDS if words <= others or others <= words else 0.0)
    if alike < _NEAR:
        return 0.0
    before_alike = _ratio(given_before, before) if given_before or before else 1.0
    return _LAST_PART * alike + (1 - _LAST_PART) * (before_alike if before_alike >= _NEAR else 0.0)


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
